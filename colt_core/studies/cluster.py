"""A study on a dask cluster: `study(experiments, store, cluster="local")`, or the address of a running scheduler.

Each experiment is one task. Only its description, as JSON, goes through the scheduler; tickets, records and the
trainings' last epochs go to the store, which every worker must see: a shared folder, or a bucket (s3://bucket/runs).
Where a worker is lost, dask gives its task to another, which continues from the training's last epoch. Every worker
needs this package, and a GPU worker says so: `dask worker tcp://host:8786 --nthreads 1 --resources GPU=1`.

Machines that ssh reaches (dask alone):

    from dask.distributed import SSHCluster
    cluster = SSHCluster(["head", "node1", "node2"], worker_options={"nthreads": 1})
    cc.study(experiments, "/shared/runs", device="cpu", cluster=cluster.scheduler_address)

SLURM (`pip install dask-jobqueue`; it has PBS, SGE, LSF and others too):

    from dask_jobqueue import SLURMCluster
    cluster = SLURMCluster(cores=1, processes=1, memory="8GB", walltime="04:00:00",
                           job_extra_directives=["--gres=gpu:1"], worker_extra_args=["--resources GPU=1"])
    cluster.adapt(maximum_jobs=16)
    cc.study(experiments, "/shared/runs", device="cuda", cluster=cluster.scheduler_address)

Kubernetes (`pip install dask-kubernetes`; the image must have this package):

    from dask_kubernetes.operator import KubeCluster
    cluster = KubeCluster(name="colt", image="registry/colt-workbook", n_workers=8)
    cc.study(experiments, "s3://bucket/runs", device="cpu", cluster=cluster.scheduler_address)

One worker thread an experiment (`nthreads=1`): of more, one at a time would train, for the random state and the thread
count are the process's.

A scheduler does what whoever reaches it asks. "local" listens to this machine alone. On a network others share, use
dask's TLS: the same certificates in `distributed.comm.tls` of every machine's dask configuration, this one's too, and
`require-encryption: true` (https://distributed.dask.org/en/stable/tls.html); then the address is tls://host:8786.
"""

import gc
import hashlib
import json
import logging
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from ..compute.pool import cores, environment, interpreter
from ..compute.store import Store
from ..files import scratch
from ..seeding import choose_device
from ..settings import first_line
from .experiment import Experiment
from .run import carry_out_described

PATIENCE = 10  # seconds to wait for a scheduler's answer
RETRIES = 2  # of a task that ends with an error: a full disk or a busy bucket may have recovered
LOSSES = 5  # workers that may die at one task before it counts as failed
BESIDE = """
import os, signal, threading

def watch():
    os.read(0, 1)  # ends when the process that started this one does, however that happens
    os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)

threading.Thread(target=watch, daemon=True).start()
from distributed.cli.dask_worker import main
main()
"""


def work_off_on(
    cluster: str, jobs: list[Experiment], store: Store, device: str, workers: int | None = None
) -> Iterator[Experiment]:
    """Run experiments as tasks of a dask cluster, in order as far as their references allow; yield each when done.

    Parameters
    ----------
    cluster
        "local" for worker processes of this machine, or a scheduler's address, "tcp://host:8786".
    jobs
        What to do; one that follows a COLT run waits for it.
    store
        A folder or a bucket that the workers see under the same name.
    device
        Where a worker computes; on CUDA each task asks for {"GPU": 1} of a worker's resources.
    workers
        Of "local" alone: processes side by side; by default one a core, or one a GPU.

    Raises
    ------
    ValueError, OSError
        In one line: no such cluster, no answer, a store that others cannot see.
    RuntimeError
        At the end: names each experiment that failed, while the others were finished.
    """
    if store.private:
        raise ValueError(f"the store {store.url} lives in this process; a cluster needs a folder or a bucket")
    _check(cluster)
    if not jobs:
        return
    if cluster != "local":
        yield from _work_off(cluster, jobs, store, device)
        return
    with local(min(workers or _places(device), len(jobs)), device) as address:
        yield from _work_off(address, jobs, store, device.partition(":")[0])


def progress(futures: Iterable[Any]) -> dict[str, int]:
    """Count dask futures, in one request to their scheduler: how many are done, running, waiting and failed."""
    futures = list(futures)
    counts = Counter(future.status for future in futures)
    open_keys = {future.key for future in futures if future.status == "pending"}
    at_work = futures[0].client.processing() if open_keys else {}
    running = len(open_keys & {key for keys in at_work.values() for key in keys})
    failed = sum(counts[status] for status in ("error", "cancelled", "lost"))
    return {"done": counts["finished"], "running": running, "waiting": len(open_keys) - running, "failed": failed}


def _check(cluster: str) -> None:
    if cluster != "local" and "://" not in cluster:
        raise ValueError(f"unknown cluster {cluster!r}; allowed: local, or a scheduler's address (tcp://host:8786)")
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ValueError('a cluster needs dask: pip install "dask[distributed]"') from None


# --- tasks -------------------------------------------------------------------------------------------------------


def _carry_out(description: str, store: str, device: str, *_: None) -> None:
    """What a worker does for one task; what comes before it is only waited for. Errors travel as text."""
    try:
        carry_out_described(json.loads(description), store, str(choose_device(device)))
    except FloatingPointError:  # its records tell, and it would diverge again
        return
    except Exception as problem:
        raise RuntimeError(f"{type(problem).__name__}: {first_line(problem)}") from None


def _work_off(address: str, jobs: list[Experiment], store: Store, device: str) -> Iterator[Experiment]:
    """Hand in every experiment, yield each that is done, and at the end raise one error for those that failed."""
    with _connected(address) as client:
        tasks = _hand_in(client, jobs, store, device)
        errors: dict[str, str] = {}
        try:
            for future in _finished(client, address, [task.future for task in tasks.values()]):
                if future.status == "finished":
                    yield tasks[future.key].job
                else:
                    errors[future.key] = first_line(future.exception(timeout=PATIENCE))
        except BaseException:  # an interrupt, or the caller has seen enough: nothing more is begun
            with suppress(Exception):
                client.cancel([task.future for task in tasks.values()])
            raise
    if errors:
        raise RuntimeError(_told(tasks, errors))


class _Task:
    """An experiment that was handed in, and the keys of the tasks that it waits for."""

    def __init__(self, job: Experiment, future: Any, after: list[str]) -> None:
        self.job, self.future, self.after = job, future, after


def _hand_in(client: Any, jobs: list[Experiment], store: Store, device: str) -> dict[str, _Task]:
    """Submit each experiment after its reference and after those that share its folder; return the tasks by key."""
    tasks: dict[str, _Task] = {}
    last: dict[str, _Task] = {}  # by experiment hash
    resources = {"GPU": 1} if device.startswith("cuda") else None
    for place, job in sorted(enumerate(jobs), key=lambda numbered: len(numbered[1].references())):
        reference = job.reference()
        before = [last[name] for name in (job.hash, reference and reference.hash) if name in last]
        description, futures = json.dumps(job.model_dump(mode="json"), sort_keys=True), [t.future for t in before]
        key = _key(job, description, store, device)
        future = client.submit(
            _carry_out, description, store.url, device, *futures,
            key=key, retries=RETRIES, resources=resources, priority=-place,
        )  # fmt: skip
        tasks[key] = last[job.hash] = _Task(job, future, [task.future.key for task in before])
    return tasks


def _key(job: Experiment, description: str, store: Store, device: str) -> str:
    """Return the task's name: the experiment's hash, and what tells apart other scores, stores and devices."""
    about = json.dumps([description, store.url, device])
    return f"{job.hash}-{hashlib.sha256(about.encode()).hexdigest()[:8]}"


def _finished(client: Any, address: str, futures: list[Any]) -> Iterator[Any]:
    """Yield futures as they end; notice when the scheduler is gone."""
    ended = SimpleQueue[Any]()
    for future in futures:
        future.add_done_callback(ended.put)
    missing = len(futures)
    while missing:
        try:
            future = ended.get(timeout=1)
        except Empty:
            future = None
        if client.status not in ("running", "connecting") or (future is not None and future.cancelled()):
            raise OSError(f"the dask scheduler at {address} is gone; what was finished is in the store")
        if future is not None:
            missing -= 1
            yield future


def _told(tasks: dict[str, _Task], errors: dict[str, str]) -> str:
    """Return one line that names each failed experiment, but not those that failed with the one they follow."""
    first = {key: error for key, error in errors.items() if not set(tasks[key].after) & set(errors)}
    named = [(tasks[key].job, error) for key, error in first.items()]
    lines = [f"{job.method} on {job.dataset}, seed {job.seed}: {error}" for job, error in named]
    followers = f" (and {len(errors) - len(first)} that follow them)" if len(errors) > len(first) else ""
    return f"{len(first)} of {len(tasks)} experiments failed{followers}: {'; '.join(lines)}"


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    client, told = None, ""
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as problem:
        told = first_line(problem)
    if client is None:
        # The client that did not connect closes when it is collected, and that takes a lock of dask's: here and now,
        # not in whichever thread happens to collect it, which may be one that somebody waits for with the same lock.
        gc.collect()
        raise OSError(f"no dask scheduler answers at {address} ({told})")
    with client:
        yield client


# --- this machine ------------------------------------------------------------------------------------------------


@contextmanager
def local(workers: int, device: str = "cpu") -> Iterator[str]:
    """Lend a scheduler's address with worker processes of this machine: for CUDA, one a GPU.

    They are `dask worker` processes of their own, so a script without a main guard can start them. They are stopped at
    once when the block ends, or this process does, whatever they are doing.
    """
    from distributed import LocalCluster

    how: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=0, scheduler_kwargs={"allowed_failures": LOSSES}, **how) as cluster:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for place in _environments(workers, device):
                processes.append(_worker(cluster.scheduler_address, place))
            yield cluster.scheduler_address
        finally:
            for process in processes:
                _stop(process)


def _places(device: str) -> int:
    """Return how many workers this machine has room for."""
    return len(_gpus(device)) if device.startswith("cuda") else cores() if device == "cpu" else 1


def _gpus(device: str) -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES knows the GPUs meant: all of them, or the one of "cuda:1"."""
    import torch

    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    listed = listed or [str(i) for i in range(torch.cuda.device_count())]
    index = device.partition(":")[2]
    return [listed[int(index)]] if index else listed


def _environments(workers: int, device: str) -> list[dict[str, str]]:
    """Return each worker's environment, its GPU among it."""
    shared = environment() | {"DASK_LOGGING__DISTRIBUTED": "critical"}
    if device.startswith("cuda"):
        return [shared | {"CUDA_VISIBLE_DEVICES": name} for name in _gpus(device)[:workers]]
    return [shared] * workers


def _worker(address: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker with its nanny, which replaces it when it dies; in a group of its own, out of Ctrl-C's way."""
    command = [*interpreter(BESIDE), address, "--host", "127.0.0.1"]
    command += ["--nworkers", "1", "--nthreads", "1", "--memory-limit", "0", "--death-timeout", "60"]
    command += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]  # else its HTTP server listens to everyone
    command += ["--local-directory", str(scratch() / "dask")]
    if "CUDA_VISIBLE_DEVICES" in environment:
        command += ["--resources", "GPU=1"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a worker, its nanny and all, now: files are written whole or not at all."""
    end: Callable[[], None] = process.kill
    if hasattr(os, "killpg"):
        end = lambda: os.killpg(process.pid, signal.SIGKILL)  # noqa: E731
    with suppress(OSError):
        end()
    process.communicate()
