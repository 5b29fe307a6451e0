"""`python -m colt_core.worker`: a process that runs experiments, a JSON line each on its standard input.

It never imports the caller's `__main__`, so `study` works from a notebook, from `python -` and from a script without a
main guard; it ends when its input does, hence with its parent.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Condition
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiments import Experiment


def work_off(jobs: list["Experiment"], store: Path, device: str, count: int) -> Iterator["Experiment"]:
    """Run experiments on `count` worker processes, in order as far as their references allow; yield each when done."""
    if count <= 1 or len(jobs) <= 1:
        from .experiments import _finish

        for job in sorted(jobs, key=lambda e: e.reference() is not None):
            _finish(job, store, device, 1)
            yield job
        return
    queue, finished = _Queue(jobs), SimpleQueue[Any]()
    with ThreadPoolExecutor(count) as pool:
        lanes = [pool.submit(_lane, queue, store, device, finished.put) for _ in range(count)]
        for lane in lanes:
            lane.add_done_callback(lambda _: finished.put(None))
        try:
            for _ in lanes:
                yield from iter(finished.get, None)
        except BaseException:  # an interrupt, or the caller has seen enough: what runs is stopped, its rounds are kept
            queue.stop()
            raise
    for lane in lanes:
        lane.result()


class _Queue:
    """Jobs in order; one is ready when neither its own folder nor its reference's is being worked on or waited for."""

    def __init__(self, jobs: list["Experiment"]) -> None:
        self.waiting = list(jobs)
        self.running: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.changed = Condition()

    def take(self) -> "Experiment | None":
        """Wait for a job that is ready; None when there is none left."""
        with self.changed:
            while self.waiting:
                open_folders = {*self.running, *(job.hash for job in self.waiting)}
                for job in self.waiting:
                    reference = job.reference()
                    if job.hash not in self.running and (reference is None or reference.hash not in open_folders):
                        self.waiting.remove(job)
                        self.running.append(job.hash)
                        return job
                self.changed.wait()
            return None

    def stop(self) -> None:
        """Begin nothing more, and end what runs."""
        with self.changed:
            self.waiting = []
            for process in self.processes:
                process.terminate()
            self.changed.notify_all()

    def done(self, job: "Experiment", failed: bool) -> None:
        """Take a job off; after a failure no other begins."""
        with self.changed:
            self.running.remove(job.hash)
            self.waiting = [] if failed else self.waiting
            self.changed.notify_all()


def _lane(queue: _Queue, store: Path, device: str, report: Callable[["Experiment"], None]) -> None:
    """Feed one worker process with jobs, and report each when it is done."""
    command = [sys.executable, "-m", "colt_core.worker"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    queue.processes.append(process)
    try:
        while job := queue.take():
            answer = _ask(process, {"experiment": job.model_dump(mode="json"), "store": str(store), "device": device})
            queue.done(job, "error" in answer)
            if "error" in answer:
                raise RuntimeError(f"{job.method} on {job.dataset}, seed {job.seed}: {answer['error']}")
            report(job)
    finally:
        with suppress(OSError):
            process.communicate()


def _ask(process: "subprocess.Popen[str]", job: dict[str, Any]) -> dict[str, Any]:
    """Send a job and wait for its answer; a dead worker's is an error."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return dict(json.loads(process.stdout.readline()))
    except (OSError, ValueError):
        return {"error": "the worker process died"}


def _serve() -> None:
    from .experiments import Experiment, _finish

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    for line in sys.stdin:
        job = json.loads(line)
        try:
            _finish(Experiment(**job["experiment"]), Path(job["store"]), job["device"], 1)
            answer: dict[str, Any] = {"done": True}
        except Exception as problem:
            answer = {"error": f"{type(problem).__name__}: {problem}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
