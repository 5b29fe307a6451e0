import gc
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from waiting import PATIENCE, trainings, wait_for

import colt_core as cc
from colt_core.studies import cluster
from colt_core.studies.records import read_records

distributed = pytest.importorskip("distributed", reason='needs pip install "dask[distributed]"')


@pytest.fixture
def make(folder):
    """Experiments of seconds: a folder of 36 pictures, a narrow conv3, one epoch."""
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.6, "scores": (0.5,)}
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    changed = lambda fields: {"recipe": recipe.changed(epochs=fields.pop("epochs", 1))} | fields
    return lambda **fields: cc.Experiment(**(base | changed(fields)))


def results(store, experiment):
    """The bytes of an experiment's tickets and its records without their times, in the rounds' order."""
    times = ("seconds", "score_seconds")
    records = [{k: v for k, v in r.items() if k not in times} for r in read_records(experiment, store)]
    tickets = {path.name: path.read_bytes() for path in sorted((store / experiment.hash).glob("*.safetensors"))}
    assert tickets and records
    return tickets, sorted(records, key=lambda r: (r["kind"], r["round"]))


@contextmanager
def running(command, **how):
    process = subprocess.Popen(command, start_new_session=True, **how)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler in a process of its own, and two worker processes that have joined it."""
    contact = tmp_path_factory.mktemp("dask") / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1"]
    command += ["--no-dashboard", "--scheduler-file", str(contact)]
    with running(command, env=os.environ | {"DASK_LOGGING__DISTRIBUTED": "critical"}):
        wait_for(lambda: contact.exists() and contact.read_text().rstrip().endswith("}"))
        found = json.loads(contact.read_text())["address"]
        workers = [cluster._worker(found, place) for place in cluster._environments(2, "cpu")]
        yield found
        for worker in workers:
            cluster._stop(worker)


def test_a_local_cluster_gives_the_same_bytes_as_this_process(make, tmp_path):
    jobs = [make(method=m) for m in ("matched", "colt", "dense")]
    cc.study(jobs, tmp_path / "here", device="cpu", workers=1)
    frame = cc.study(jobs, tmp_path / "there", device="cpu", workers=2, cluster="local")
    assert set(frame["experiment"]) == {job.hash for job in jobs}
    for job in jobs:
        assert results(tmp_path / "here", job) == results(tmp_path / "there", job)


def test_another_processs_scheduler_is_joined_and_a_reference_is_done_first(make, tmp_path, address):
    jobs = [make(method="random"), make(method="random", scores=()), make(seed=1)]  # the first two share a folder
    cc.study(jobs, tmp_path / "here", device="cpu", workers=1)
    cc.study(jobs, tmp_path / "there", device="cpu", cluster=address)
    for job in [*jobs, make()]:
        assert results(tmp_path / "here", job) == results(tmp_path / "there", job)
    cc.study(jobs, tmp_path / "there", device="cpu", cluster="tcp://127.0.0.1:1")  # nothing is left to do


def test_taught_transformed_and_stretched_tickets_go_through_a_cluster_and_into_every_view(make, tmp_path, address):
    """No method has a case of its own outside its file: what is true of COLT is true of the three that came later."""
    taught = make(scoring={"objective": {"name": "kd", "temperature": 4}}, target=0.5)
    moved = make(method="dual", densities=(0.5,), target=0.5, options={"steps": 120}, scoring={"head": "own"})
    deeper = {"network": "resnet20", "network_args": {}, "options": {"source": "resnet14"}}
    jobs = [taught, moved, make(method="elastic", **deeper, target=0.3, scores=(0.3,))]
    frame = cc.study(jobs, tmp_path, device="cpu", cluster=address)
    compare, explorer = cc.widgets.compare(store=tmp_path), cc.widgets.explorer(jobs, tmp_path)
    compare.singles.value = True
    for job in jobs:
        scored = frame[frame["experiment"].eq(job.hash) & frame["kind"].eq("score") & frame["round"].gt(0)]
        (row,) = scored.to_dict("records")
        assert "Done" in cc.widgets.cockpit(job, tmp_path).words.value
        explorer.run, explorer.round = job.hash, row["round"]
        explorer.other = "before"
        file = tmp_path / job.hash / f"round-{row['round']:02d}.safetensors"
        ticket = cc.Ticket.load(file)
        assert cc.masks.count(explorer.masks()[0]) == cc.masks.count(ticket.mask), job.method
        assert len(explorer.sheet["cells"]) == len(ticket.mask)
        said = f"{row['accuracy']:.1%} accuracy at {1 - row['density']:.2%} sparsity"
        assert any(said in text for _, _, text in compare.picture.spots)
        assert f"| {row['accuracy']:.4f} | {row['validation_accuracy']:.4f} |" in cc.cards.card(file)


def test_a_killed_worker_costs_nothing_but_time(make, tmp_path, address, hold, monkeypatch):
    """It dies in the middle of a round: one copy is trained, it has come to the other."""
    monkeypatch.setenv("COLT_WORKERS", "1")
    job = make(seed=5)
    first, second = trainings(job, tmp_path / "here")[2]
    gate = hold(tmp_path / "there", second)
    with ThreadPoolExecutor(1) as pool, distributed.Client(address, set_as_default=False) as client:
        study = pool.submit(cc.study, [job], tmp_path / "there", device="cpu", cluster=address)
        wait_for(lambda: study.done() or (tmp_path / "there" / f"{first}.safetensors").exists())
        assert not study.done(), "the study was over before a worker could be killed"
        (busy,) = (worker for worker, keys in client.processing().items() if keys)
        (process,) = client.run(os.getpid, workers=[busy]).values()
        os.kill(process, signal.SIGKILL)
        gate.let_go()
        study.result()
    cc.study([job], tmp_path / "here", device="cpu", workers=1)
    assert results(tmp_path / "here", job) == results(tmp_path / "there", job)


def test_a_failure_is_named_once_at_the_end_and_the_others_finish(make, tmp_path, address):
    wrong = {"seed": 1, "objective": "toys:Broken"}
    bad, follower, good = make(**wrong), make(**wrong, method="matched"), make(seed=2)
    with pytest.raises(RuntimeError, match=r"1 of 3 experiments failed \(and 1 that follow") as caught:
        cc.study([follower, bad, good], tmp_path, device="cpu", cluster=address)
    assert "\n" not in str(caught.value) and str(caught.value).count("seed 1: ArithmeticError") == 1
    assert f"colt on {bad.dataset}, seed 1" in str(caught.value) and (tmp_path / good.hash / "complete").exists()


def test_a_caller_who_stops_cancels_what_has_not_begun(make, tmp_path, address, hold):
    """Of five that score the dense network the first can be done; the others wait until the caller has stopped."""
    jobs = [make(method="dense", seed=seed, scores=()) for seed in range(5)]
    gates = [hold(tmp_path / "there", name) for job in jobs[1:] for name in scored(job, tmp_path / "here" / job.hash)]
    done = cluster.work_off_on(address, jobs, cc.Store(tmp_path / "there"), "cpu")
    assert next(done) == jobs[0] and len(gates) == 4
    done.close()
    for gate in gates:
        gate.let_go()
    with distributed.Client(address, set_as_default=False) as client:
        wait_for(lambda: not any(client.processing().values()))
    assert 1 <= len(list((tmp_path / "there").glob("*/complete"))) <= 3, "two workers, and what was done"


def scored(job, store):
    """Carry an experiment out in a store of its own; return the names of its scores."""
    cc.run(job, store, device="cpu")
    return [f"scores/{path.stem}" for path in (store / "scores").glob("*.json")]


def test_progress_counts_futures(address):
    with distributed.Client(address, set_as_default=False) as client:
        done, wrong = client.submit(int, "1"), client.submit(int, "one")
        after = client.submit(time.sleep, 60, resources={"none": 1})
        wait_for(lambda: done.done() and wrong.done())
        assert cluster.progress([done, wrong, after]) == {"done": 1, "running": 0, "waiting": 1, "failed": 1}
        assert cluster.progress([]) == {"done": 0, "running": 0, "waiting": 0, "failed": 0}


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        ("tcp://127.0.0.1:1", OSError, "no dask scheduler answers at tcp://127.0.0.1:1"),
        ("carrier://pigeon", OSError, "no dask scheduler answers at carrier://pigeon"),
        ("locl", ValueError, "unknown cluster 'locl'; allowed: local, or a scheduler's address"),
    ],
)
def test_no_cluster_there_is_one_line_after_the_patience_that_is_set(make, tmp_path, monkeypatch, where, kind, message):
    asked, real = [], distributed.Client
    spy = lambda *address, **how: asked.append(how["timeout"]) or real(*address, **how)
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    monkeypatch.setattr(distributed, "Client", spy)
    clients = lambda: {id(one) for one in gc.get_objects() if type(one) is real}
    before = clients()
    gc.disable()  # a client that is left would close in a thread of anybody's, where it has been seen to wait for ever
    try:
        with pytest.raises(kind, match=message) as caught:
            cc.study([make()], tmp_path, device="cpu", cluster=where)
        assert clients() <= before, "what did not connect is closed at once"
    finally:
        gc.enable()
    assert "\n" not in str(caught.value) and asked == ([1] if kind is OSError else [])


def test_a_store_in_memory_is_refused(make):
    with pytest.raises(ValueError, match="memory://runs lives in this process; a cluster needs a folder or a bucket"):
        next(cluster.work_off_on("local", [make()], cc.open_store("memory://runs"), "cpu"))


def test_without_dask_a_cluster_is_one_clear_line(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="pip install .dask"):
        next(cluster.work_off_on("local", [make()], cc.open_store(tmp_path), "cpu"))


def test_each_gpu_gets_a_worker_and_the_callers_choice_counts(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    places = lambda workers, device: [p["CUDA_VISIBLE_DEVICES"] for p in cluster._environments(workers, device)]
    assert places(8, "cuda") == ["2", "5"] and places(1, "cuda") == ["2"] and places(8, "cuda:1") == ["5"]
    assert all(place["COLT_WORKERS"] == place["OMP_NUM_THREADS"] == "1" for place in cluster._environments(2, "cpu"))


def test_a_local_cluster_listens_to_this_machine_alone():
    psutil = pytest.importorskip("psutil")

    def open_ports():
        own, found = psutil.Process(), []
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.Error, FileNotFoundError):  # it has ended meanwhile: nothing of it listens
                found += process.net_connections("inet")
        return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}

    before = open_ports()
    with cluster.local(2) as place, distributed.Client(place, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        places = open_ports() - before
    assert places and {ip for ip, _ in places} <= {"127.0.0.1", "::1"}


def test_threads_of_one_dask_worker_find_the_same_tickets(make, tmp_path):
    """A worker with more threads than one, as others may start it: their trainings do not disturb each other."""
    jobs = [make(seed=seed) for seed in range(3)]
    cc.study(jobs, tmp_path / "here", workers=1, device="cpu")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=3,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    ) as several:
        cc.study(jobs, tmp_path / "there", device="cpu", cluster=several.scheduler_address)
    for job in jobs:
        for path in (tmp_path / "here" / job.hash).glob("*.safetensors"):
            assert path.read_bytes() == (tmp_path / "there" / job.hash / path.name).read_bytes()
