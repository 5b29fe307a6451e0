"""A study on this machine: a queue of experiments, and worker processes that are fed from it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Condition
from typing import Any

from ..compute.pool import Worker, lend
from ..compute.store import Store
from .experiment import Experiment
from .run import carry_out


def work_off(jobs: list[Experiment], store: Store, device: str, count: int) -> Iterator[Experiment]:
    """Run experiments on `count` worker processes, in order as far as their references allow; yield each when done."""
    queue, finished = _Queue(jobs, store), SimpleQueue[Any]()
    if count <= 1 or len(jobs) <= 1:
        while job := queue.take():
            carry_out(job, store, device, 1)
            queue.done(job)
            yield job
        return
    with lend(min(count, len(jobs))) as workers, ThreadPoolExecutor(len(workers)) as pool:
        feeders = [pool.submit(_feed, queue, worker, store, device, finished.put) for worker in workers]
        for feeder in feeders:
            feeder.add_done_callback(lambda _: finished.put(None))
        try:
            for _ in feeders:
                yield from iter(finished.get, None)
            for feeder in feeders:
                feeder.result()
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
        self.waiting, self.store = list(jobs), store
        self.running: list[str] = []
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

    def done(self, job: Experiment) -> None:
        """Take a job off."""
        with self.changed:
            self.running.remove(job.hash)
            self.changed.notify_all()


def _feed(queue: _Queue, worker: Worker, store: Store, device: str, report: Callable[[Experiment], None]) -> None:
    """Feed one worker with jobs, and report each when it is done; after a failure no other begins."""
    while job := queue.take():
        about = {"experiment": job.model_dump(mode="json"), "store": store.url, "device": device}
        try:
            for _ in worker.call("colt_core.studies.run:carry_out_described", **about):
                pass
        except Exception as problem:
            queue.stop()
            raise RuntimeError(f"{job.method} on {job.dataset}, seed {job.seed}: {_named(problem)}") from None
        queue.done(job)
        report(job)


def _named(problem: Exception) -> str:
    return str(problem) if type(problem) is RuntimeError else f"{type(problem).__name__}: {problem}"
