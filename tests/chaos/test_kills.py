"""Whatever kills a run, wherever it is, and whoever works beside it: in the end the store holds the same bytes.

`COLT_CHAOS_KILLS` kills (6 unless set; `make chaos`: 1,000), of a seed that is printed and can be set
(COLT_CHAOS_SEED). So few fall on some of the experiments alone.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from again import AGAIN, SEED, timeless
from waiting import PATIENCE

import colt_core as cc
from colt_core.methods import METHODS

HERE = Path(__file__).parent
KILLS = int(os.environ.get("COLT_CHAOS_KILLS", "6"))

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def jobs(folder):
    """Every method, and what else changes the course of a run; a second or two each, with a middle to be killed in."""
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=4)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.4, "target": 0.6, "recipe": recipe}
    make = lambda **fields: cc.Experiment(**(base | {"scores": (0.3, 0.6)} | fields))
    special = [make(early_bird=cc.EarlyBird(delta=0.4, window=1)), make(seed=1, rewind=9), make(parts=3)]
    special += [make(official=("best-epoch",)), make(official=("statistics-kept",)), make(scope="layer", by="random")]
    one_head = ("soup", "crossfit")  # not by class
    short = {"dual": {"options": {"steps": 120}}}  # fewer would not bring a weight to zero
    split = {name: "random" if name in one_head else "class" for name in METHODS}
    every = [make(method=name, by=split[name], **short.get(name, {})) for name in METHODS] + special
    return random.Random(SEED).sample(every, len(every) if KILLS > 100 else 5)


@pytest.fixture(scope="module")
def whole(jobs, tmp_path_factory):
    """The store of these experiments that nothing has disturbed."""
    store = tmp_path_factory.mktemp("whole")
    cc.study(jobs, store, workers=1, device="cpu")
    return store


def left(store, experiment):
    """The bytes of an experiment's tickets, and its records without their times."""
    place = cc.open_store(store)
    tickets = {Path(n).name: place.read(n) for n in place.names(f"{experiment.hash}/*.safetensors")}
    return tickets, timeless(experiment, place)


def killed(store, jobs, kills, seed, workers):
    described = json.dumps([job.model_dump(mode="json") for job in jobs])
    command = [sys.executable, HERE / "killer.py", store, described, kills, seed, workers]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{AGAIN}: {done.stderr}"
    return int(done.stdout)


def test_killed_at_random_runs_end_with_the_same_bytes(jobs, whole, tmp_path, monkeypatch):
    """Laps over some experiments each, in a folder or a bucket, until enough have been killed."""
    import buckets  # noqa: F401 (registers it)

    monkeypatch.setenv("COLT_TEST_BUCKETS", str(tmp_path))
    chance, count, lap = random.Random(SEED), 0, 0
    print(AGAIN)
    while count < KILLS:
        place = tmp_path / f"lap-{lap}"
        store, workers = (f"shared://{place}", "1") if lap % 2 else (place, "2")
        some = [jobs[(lap * 6 + i) % len(jobs)] for i in range(6)]
        count += killed(store, some, min(25, KILLS - count), chance.randrange(10**6), workers)
        for job in some:
            assert left(store, job) == left(whole, job), f"{job.method} in {store}; {AGAIN}"
        names = [path.name for path in place.rglob("*")]
        assert not [name for name in names if name.endswith((".claim", ".epoch", ".part"))], AGAIN
        shutil.rmtree(place)
        lap += 1


def test_threads_that_share_a_store_leave_what_one_leaves(jobs, whole, tmp_path):
    some = random.Random(SEED).sample(jobs, 2)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(cc.run, job, tmp_path, "cpu") for job in some * 2]:
            done.result()
    for job in some:
        assert left(tmp_path, job) == left(whole, job), AGAIN


def isolated(*command):
    """A command in a space of process numbers of its own, where everyone is number 1 or so."""
    return ["unshare", "--pid", "--fork", "--mount-proc", *map(str, command)]


def test_containers_that_share_a_store_leave_what_one_leaves(jobs, whole, tmp_path):
    """Their process numbers are the same, their temporary folder is shared."""
    try:
        subprocess.run(isolated("true"), check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process number spaces here")
    some = random.Random(SEED).sample(jobs, 2)
    code = """if True:
        import json, sys
        import colt_core as cc
        for job in json.loads(sys.argv[2]):
            cc.run(cc.Experiment(**job), sys.argv[1], device="cpu")
    """
    described = json.dumps([job.model_dump(mode="json") for job in some])
    command = isolated(sys.executable, "-c", code, tmp_path / "store", described)
    environment = os.environ | {"TMPDIR": str(tmp_path), "COLT_WORKERS": "2"}
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, env=environment, stderr=pipe, text=True) for _ in range(2)]
    for one in both:
        _, problem = one.communicate(timeout=PATIENCE)
        assert one.returncode == 0, f"{AGAIN}: {problem}"
    for job in some:
        assert left(tmp_path / "store", job) == left(whole, job), AGAIN
    assert not list((tmp_path / "store").rglob("*.part"))
