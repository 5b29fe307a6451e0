import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import SimpleNamespace
from uuid import uuid4

import pytest
import torch
from waiting import PATIENCE, wait_for

import colt_core as cc
from colt_core import files
from colt_core.compute import claims
from colt_core.compute.store import Store
from colt_core.studies.records import read_records

PLACES = ["folder", "memory"]


@pytest.fixture(params=PLACES)
def store(request, tmp_path):
    return Store(tmp_path / "store") if request.param == "folder" else Store(f"memory://{uuid4().hex}")


# --- files ---


def test_what_is_written_is_read(store):
    assert store.read("a/x.json") is None and not store.exists("a/x.json")
    store.write("a/x.json", "one")
    store.write("a/x.json", b"two")
    store.save("b/y.bin", lambda path: path.write_bytes(b"three"))
    assert store.read("a/x.json") == b"two" and store.exists("a/x.json")
    with store.fetched("b/y.bin") as path:
        assert path.read_bytes() == b"three"
    assert store.names("*/*") == ["a/x.json", "b/y.bin"]
    store.remove("a/x.json")
    store.remove("a/x.json")
    assert store.read("a/x.json") is None


def test_records_come_back_in_order_and_once(store):
    key = ("kind", "round")
    for number in (0, 1, 2, 1, 11):
        store.append("e", {"kind": "round", "round": number, "seconds": time.time()}, key)
    store.append("e", {"kind": "score", "round": 2}, key)
    assert [(r["kind"], r["round"]) for r in store.lines("e")] == [
        *(("round", n) for n in (0, 1, 2, 11)), ("score", 2),
    ]  # fmt: skip


def test_records_whose_names_differ_by_a_sign_alone_are_both_kept(store):
    key = ("kind", "round", "scored_on", "scored_by")
    for name in ("cifar10:0-4", "cifar10:0,4", "./a/b", "./a-b"):
        store.append("e", {"kind": "score", "round": 1, "scored_on": name}, key)
    assert {record["scored_on"] for record in store.lines("e")} == {"cifar10:0-4", "cifar10:0,4", "./a/b", "./a-b"}


def test_a_write_that_fails_leaves_what_was_there(store):
    store.save("x", lambda path: path.write_bytes(b"old"))
    with pytest.raises(OSError):
        store.save("x", lambda path: (path.write_bytes(b"half"), (_ for _ in ()).throw(OSError("no space left"))))
    assert store.read("x") == b"old"


def test_a_bucket_holds_the_same_bytes_as_a_folder(few, folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.7, "recipe": recipe}
    jobs = [cc.Experiment(**base, method=m, scores=(0.5,)) for m in ("colt", "random")]
    bucket = Store(f"memory://{uuid4().hex}")
    plain = cc.study(jobs, tmp_path, workers=1)
    timeless = [c for c in plain.columns if "seconds" not in c]
    order = lambda frame: frame.sort_values(["experiment", "kind", "round"])[timeless].astype(str).to_dict("records")
    assert order(cc.study(jobs, bucket)) == order(plain)
    for job in jobs:
        tickets = sorted(p.name for p in (tmp_path / job.hash).glob("*.safetensors"))
        assert tickets and all(
            bucket.read(f"{job.hash}/{n}") == (tmp_path / job.hash / n).read_bytes() for n in tickets
        )
    before = bucket.names("**")
    assert order(cc.study(jobs, bucket)) == order(plain)
    assert bucket.names("**") == before
    assert len(cc.report.load(bucket)) == len(plain)


def test_a_store_that_other_processes_cannot_see_starts_none(folder, monkeypatch):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    job = cc.Experiment(
        dataset=str(folder), network_args={"width": 4}, rate=0.3, target=0.3, recipe=recipe, scores=None
    )
    monkeypatch.setattr("colt_core.compute.pool.lend", lambda *_: pytest.fail("a worker was started"))
    assert len(cc.run(job, f"memory://{uuid4().hex}")) >= 2


# --- claims ---


def test_a_claim_is_held_by_one_and_free_afterwards(store):
    with store.claim("x") as mine:
        assert mine and store.holder("x")["pid"] == os.getpid()
        with store.claim("x") as second:
            assert not second
    assert store.holder("x") is None
    with store.claim("x") as mine:
        assert mine


@pytest.fixture
def clock(monkeypatch):
    """The clock by which claims expire, which only waiting moves on."""

    class Clock(SimpleNamespace):
        def sleep(self, seconds):
            self.now += seconds

    found = Clock(now=0.0, time=time.time, monotonic=lambda: found.now)
    monkeypatch.setattr(claims, "time", found)
    return found


def test_a_claim_gives_signs_of_life(store, monkeypatch, clock):
    monkeypatch.setenv("COLT_CLAIM_SECONDS", "0.6")
    with store.claim("x"):
        for _ in range(3):
            beat = store.holder("x")["beat"]
            wait_for(lambda beat=beat: store.holder("x")["beat"] > beat)
            clock.now += 0.5
        assert store.holder("x") is not None
    assert store.read("x.claim") is None
    time.sleep(0.2)
    assert store.read("x.claim") is None, "no sign of life after the end"


def test_a_dead_processs_claim_on_this_machine_is_void_at_once(tmp_path, clock):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "x.claim").write_text(json.dumps(claims._who() | {"pid": dead.pid, "token": "t", "beat": 7}))
    with Store(tmp_path).claim("x", until=lambda: False) as mine:
        assert mine and clock.now == 0
    assert not list(tmp_path.iterdir())


def test_a_silent_claim_of_another_machine_expires_and_a_living_one_does_not(store, monkeypatch, clock):
    monkeypatch.setenv("COLT_CLAIM_SECONDS", "0.4")
    other = {"host": "elsewhere", "pid": 1, "token": "t", "beat": 0}
    store.write("x.claim", json.dumps(other))
    for beat in range(1, 6):
        with store.claim("x") as mine:
            assert not mine
        clock.now += 0.3
        store.write("x.claim", json.dumps(other | {"beat": beat}))
    begun = clock.now
    with store.claim("x", until=lambda: False) as mine:
        assert mine and 0.4 < clock.now - begun < 0.6


def test_a_damaged_claim_expires_too(store, monkeypatch, clock):
    monkeypatch.setenv("COLT_CLAIM_SECONDS", "0.2")
    store.write("x.claim", b"\x00\x00")
    with store.claim("x", until=lambda: False) as mine:
        assert mine and 0.2 < clock.now < 0.4


CROWD = """
import os, pathlib, sys
import colt_core.compute.store as s

def add():
    store, path = s.Store(sys.argv[1]), pathlib.Path(sys.argv[1], "number")
    for _ in range(10):
        with store.claim("x", until=lambda: False) as mine:
            assert mine
            path.write_text(str(int(path.read_text()) + 1))
    os._exit(0)

children = [os.fork() or add() for _ in range(3)]
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts no processes by halves")
def test_of_many_processes_one_holds_a_claim_at_a_time(tmp_path):
    """Each adds one to a number ten times, reading and writing it without any lock but the claim."""
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", CROWD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.split() == ["[0,", "0,", "0]"], done.stderr
    assert (tmp_path / "number").read_text() == "30"


def test_two_experiments_of_one_store_are_told_apart(tmp_path):
    store = Store(tmp_path)
    store.append("a", {"kind": "round", "round": 0}, ("kind", "round"))
    assert read_records("a", store) and not read_records("b", store)


@pytest.mark.parametrize("moment", ["_link_new", "threading.Thread.start", "threading.Thread.join"])
def test_an_interrupt_at_any_moment_leaves_no_claim_behind(tmp_path, monkeypatch, moment):
    """A claim of this living process that nobody holds would be waited for without end."""
    owner, _, name = f"colt_core.compute.claims.{moment}".rpartition(".")
    module = import_module("colt_core.compute.claims")
    target = module if owner.endswith("claims") else module.threading.Thread
    real = getattr(target, name)

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupted)
        with pytest.raises(KeyboardInterrupt), store.claim("scores/x"):
            pass
    assert not list(tmp_path.rglob("*.claim"))
    with store.claim("scores/x") as mine:
        assert mine


# --- files, whoever writes them ---


def test_what_dead_processes_left_is_swept_and_what_living_ones_or_others_write_is_kept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = files.part_of(tmp_path / "round-00.safetensors")
    ours = f".{files.host_mark()}.{os.getpid()}."
    of = lambda pid, host=None: tmp_path / mine.name.replace(ours, f".{host or files.host_mark()}.{pid}.")
    old, absurd = of(7, "00000000"), of("9" * 30, "11111111")
    for folder in (mine, of(dead.pid), of(dead.pid, "elsewhe."), old, absurd):
        folder.mkdir()
        (folder / ".tmpAbCdEf").write_text("what safetensors leaves")
    (tmp_path / ".x.claim.part").write_text("an older version's")
    os.utime(old, (0, 0))
    files.sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {mine.name, of(dead.pid, "elsewhe.").name, absurd.name, ".x.claim.part"}


def test_threads_write_the_same_file_at_the_same_time_and_each_write_is_whole(tmp_path):
    write = lambda number: files.write_text(tmp_path / "x", str(number) * 10_000)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(write, range(100)))) == 100
    text = (tmp_path / "x").read_text()
    assert len(set(text[-2:])) <= 2 and {path.name for path in tmp_path.iterdir()} == {"x"}


@pytest.mark.skipif(os.name != "posix", reason="there is no umask here")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
        files.write_text(tmp_path / "y", "text")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_forked_child_has_a_scratch_folder_of_its_own_and_leaves_its_parents(tmp_path):
    code = """if True:
        import os, sys
        from colt_core.files import scratch
        mine = scratch()
        if child := os.fork():
            os.waitpid(child, 0)
            print(mine.exists(), len([p for p in os.listdir(sys.argv[1]) if p.startswith("colt-work")]))
        else:
            assert scratch() != mine and scratch().exists()
    """
    (tmp_path / f"colt-work-{files.host_mark()}-{'9' * 30}-absurd").mkdir()
    (tmp_path / "colt-work-elsewhere-1-x").mkdir()
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=os.environ | {"TMPDIR": str(tmp_path)},
                          capture_output=True, text=True, timeout=PATIENCE)  # fmt: skip
    assert done.stdout.split() == ["True", "2"], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["colt-work-elsewhere-1-x"]


def test_a_full_or_missing_temporary_folder_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path / "missing"))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "missing"))
    files._scratch.cache_clear()
    with pytest.raises(OSError, match=r"missing cannot be written \(No such file or directory\)"):
        files.scratch()


@pytest.mark.parametrize("seconds", ["0", "-5", "nan", "abc", "inf"])
def test_a_claims_seconds_must_be_a_positive_number(store, monkeypatch, seconds):
    monkeypatch.setenv("COLT_CLAIM_SECONDS", seconds)
    with pytest.raises(ValueError, match=f"COLT_CLAIM_SECONDS must be a positive number of seconds, not '{seconds}'"):
        store.claim("x").__enter__()


@pytest.mark.parametrize("text", ["", "[1, 2]", "7", "nonsense", '{"host": 3, "pid": {}}', "null"])
def test_a_damaged_claim_is_void_when_nothing_is_heard_of_it(store, clock, text):
    store.write("x.claim", text)
    with store.claim("x", until=lambda: False) as mine:
        assert mine and clock.now > 60


def test_it_is_said_for_whom_one_waits_at_once_where_that_run_is_paused(store, clock, caplog):
    claim = {"host": "elsewhere 1", "pid": 4711, "token": "t", "beat": 0}
    for paused, most in ((True, 1), (False, claims.PATIENCE + 1)):
        store.write("x.claim", json.dumps(claim | {"paused": paused}))
        begun = clock.now
        with store.claim("x", until=lambda begun=begun, most=most: clock.now - begun > most):
            pass
        assert "waiting for x, which process 4711 on elsewhere holds" in caplog.text
        assert ("paused there: continue or stop it there" in caplog.text) is paused
        caplog.clear()
        store.remove("x.claim")


def test_a_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    cc.open_store("~/runs").write("a", "b")
    assert (tmp_path / "runs" / "a").read_text() == "b"
