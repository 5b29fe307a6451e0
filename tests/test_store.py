import json
import os
import subprocess
import sys
import time
from importlib import import_module
from types import SimpleNamespace
from uuid import uuid4

import pytest
from waiting import PATIENCE, wait_for

import colt_core as cc
from colt_core.compute import claims
from colt_core.compute.store import Store
from colt_core.studies.run import read_records

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
