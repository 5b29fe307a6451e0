"""A study on this machine: a queue of experiments, and worker processes that are fed from it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Condition
from typing import Any

from ..compute.pool import Worker, lend
from ..compute.store import Store
from .experiment import Experiment
from .run import carry_out


def work_off(jobs: list[Experiment], store: Store, device: str, count: int) -> Iterator[Experiment]:
    """Run experiments on `count` worker processes, in order as far as their references allow; yield each when done.

    A training that diverges ends its own experiment, whose records say so.

    Raises
    ------
    RuntimeError
        At the end: names each experiment that another error ended, while the others were finished.
    """
    queue, finished = _Queue(jobs, store), SimpleQueue[Any]()
    if count <= 1 or len(jobs) <= 1:
        while job := queue.take():
            _attempt(job, queue, partial(carry_out, job, store, device, 1))
            yield job
        queue.raise_problems()
        return
    with lend(min(count, len(jobs))) as workers, ThreadPoolExecutor(len(workers)) as pool:
        feeders = [pool.submit(_feed, queue, worker, workers, store, device, finished.put) for worker in list(workers)]
        for feeder in feeders:
            feeder.add_done_callback(lambda _: finished.put(None))
        try:
            for _ in feeders:
                yield from iter(finished.get, None)
            for feeder in feeders:
                feeder.result()
            queue.raise_problems()
        except BaseException:  # an interrupt, or the caller has seen enough: what runs is stopped, its rounds are kept
            queue.stop()
            for worker in workers:
                worker.process.kill()
            raise


class _Queue:
    """Jobs in order; one is ready when neither its own folder nor its reference's is being worked on or waited for.

    Those that other processes on this store are at come last: when they have finished, or died, little or all is left.
    """

    def __init__(self, jobs: list[Experiment], store: Store) -> None:
        self.waiting, self.store, self.count = list(jobs), store, len(jobs)
        self.running: list[str] = []
        self.problems: list[str] = []
        self.changed = Condition()

    def take(self) -> Experiment | None:
        """Wait for a job that is ready; None when there is none left."""
        with self.changed:
            while self.waiting:
                open_folders = {*self.running, *(job.hash for job in self.waiting)}
                for job in self.waiting:
                    reference = job.reference()
                    ready = job.hash not in self.running and (reference is None or reference.hash not in open_folders)
                    if ready and self.store.holder(f"{job.hash}/experiment") is None:
                        self.waiting.remove(job)
                        self.running.append(job.hash)
                        return job
                self.changed.wait(timeout=0.5)
            return None

    def stop(self) -> None:
        """Begin nothing more."""
        with self.changed:
            self.waiting = []
            self.changed.notify_all()

    def done(self, job: Experiment, problem: Exception | None = None) -> None:
        """Take a job off; `problem` is what ended it."""
        with self.changed:
            self.running.remove(job.hash)
            if problem is not None:
                self.problems.append(f"{job.method} on {job.dataset}, seed {job.seed}: {_named(problem)}")
            self.changed.notify_all()

    def raise_problems(self) -> None:
        """Raise one error for all experiments that failed."""
        if self.problems:
            raise RuntimeError(f"{len(self.problems)} of {self.count} experiments failed: {'; '.join(self.problems)}")


def _feed(
    queue: _Queue,
    worker: Worker,
    workers: list[Worker],
    store: Store,
    device: str,
    report: Callable[[Experiment], None],
) -> None:
    """Feed one worker with jobs, and report each when it is done.

    Where its process dies another takes its place, among `workers` too: who ends those ends it.
    """
    while job := queue.take():
        if worker.process.poll() is not None:
            workers.append(worker := Worker())
        about = {"experiment": job.model_dump(mode="json"), "store": store.url, "device": device}
        call = worker.call("colt_core.studies.run:carry_out_described", **about)
        _attempt(job, queue, partial(list, call))
        report(job)


def _attempt(job: Experiment, queue: _Queue, work: Callable[[], object]) -> None:
    """Do the work of a job; what goes wrong ends it alone."""
    try:
        work()
        queue.done(job)
    except FloatingPointError:  # its records tell
        queue.done(job)
    except Exception as problem:
        queue.done(job, problem)


def _named(problem: Exception) -> str:
    """An error of ours is a sentence; any other says what kind it is."""
    ours = type(problem) is RuntimeError or isinstance(problem, OSError | ValueError)
    return str(problem) if ours else f"{type(problem).__name__}: {problem}"
