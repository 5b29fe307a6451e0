"""`Live`: one experiment carried out in a process beside this one, to be watched, paused, continued and stopped."""

import os
import time
from collections.abc import Callable, Generator
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal
from uuid import uuid4

from .experiments import Experiment
from .files import scratch
from .planning import remaining
from .runs import Place, _complete, _finish, _scored, read_records, saved_rounds
from .seeding import choose_device, cores
from .store import open_store
from .tickets import Round
from .training import PAUSE, History
from .worker import Worker

State = Literal["ready", "running", "paused", "stopped", "done", "failed"]
Curves = dict[tuple[int, int], tuple[int, list[dict[str, float]]]]


class Live:
    """A run that goes on while this process does other things.

    Its random state, thread counts and memory are another process's, so it finds the same tickets, bit for bit, as
    `run`. Whatever ends it, finished rounds are in the store, and another `Live`, or `run`, goes on from there.

    Attributes
    ----------
    state
        "ready"; "running"; "paused" (between two optimiser steps, nothing is lost); "stopped" (the epoch under way is
        lost); "done"; "failed" (`problem` says why, in one line).
    running
        The curves of the trainings under way, by round and copy: (epochs planned, one dict an epoch).
    """

    def __init__(
        self, experiment: Experiment, store: Place = None, device: str = "auto", tell: Callable[[], None] | None = None
    ) -> None:
        """Describe a run; `tell` is called, from a thread of its own, whenever there is news."""
        self.experiment, self.store, self.device = experiment, open_store(store), str(choose_device(device))
        self.running: Curves = {}
        self.problem, self.tell = "", tell or (lambda: None)
        self._worker: Worker | None = None
        self._rounds: list[Round] = []
        self._left: tuple[float, float] | None = None  # images still to be seen, when the last record was written
        self._flag = scratch() / f"pause-{uuid4().hex}"
        self._seen: dict[tuple[str, int, int], int] = {}  # images of each training, since this run went on
        self._clock = _Clock()
        over = _complete(experiment, self.store) and _scored(experiment, self.store)
        self.state: State = "done" if over else "stopped" if self.records else "ready"

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the store has of this run, a dict a record."""
        return read_records(self.experiment, self.store)

    @property
    def rounds(self) -> list[Round]:
        """The rounds found so far, read from the store."""
        found = sum(record["kind"] == "round" for record in self.records)
        if found != len(self._rounds):
            self._rounds = list(saved_rounds(self.experiment, self.store))
        return self._rounds

    @property
    def seconds(self) -> float:
        """Seconds since it was started or continued here, pauses left out."""
        return self._clock.seconds

    def seconds_left(self) -> tuple[float, float] | None:
        """Return the least and the most seconds still to go, at the speed so far; None before there is one."""
        images = sum(self._seen.values())
        if not images or self._left is None or self.state not in ("running", "paused"):
            return None
        under_way = sum(self._seen.get((self.experiment.hash, *key), 0) for key in self.running)
        low, high = (max(0.0, n - under_way) * self.seconds / images for n in self._left)
        return low, high

    def start(self) -> None:
        """Begin, or go on from what the store has; nothing happens while it runs or when it is done.

        Raises
        ------
        ValueError, OSError
            As `run`, in one line, where that can be told before any training.
        """
        if self.state in ("running", "paused", "done"):
            return
        self.problem, self.running, self._seen = "", {}, {}
        self._worker = Worker()
        about = self.experiment.model_dump(mode="json")
        call = self._worker.call(
            "colt_core.live:serve", experiment=about, store=self.store.url, device=self.device,
            flag=str(self._flag), workers=cores(),
        )  # fmt: skip
        self.state = "running"
        _RUNNING[self.store.url, self.experiment.hash] = self
        self._clock = _Clock()
        self._clock.go()
        Thread(target=self._follow, args=(self._worker, call), daemon=True).start()

    def pause(self) -> None:
        """Hold every training before its next step; the processes stay, and keep what they have."""
        if self.state == "running":
            self._flag.touch()
            self.state = "paused"
            self._clock.halt()
            self.tell()

    def resume(self) -> None:
        """Go on: from a pause at once, else from what the store has."""
        if self.state == "paused":
            self._flag.unlink(missing_ok=True)
            self.state = "running"
            self._clock.go()
            self.tell()
        else:
            self.start()

    def stop(self) -> None:
        """End the processes now. Finished rounds, and each training's last finished epoch, are in the store."""
        if self._worker is not None and self.state in ("running", "paused"):
            self.state = "stopped"
            self._clock.halt()
            self._worker.process.kill()
            self._worker.process.wait()
            self._flag.unlink(missing_ok=True)
            self.tell()

    def _follow(self, worker: Worker, call: Generator[Any, Any, Any]) -> None:
        """Take up what the process tells until it ends."""
        ending: State = "done"
        try:
            for event in call:
                if "curve" in event:
                    name, number, copy = event["experiment"], event["round"], event["copy"]
                    self._seen[name, number, copy] = event["images"]
                    if name == self.experiment.hash:
                        self.running[number, copy] = event["planned"], event["curve"]
                elif event["record"]["kind"] == "round":
                    over = [key for key in self.running if key[0] <= event["record"]["round"]]
                    self.running = {key: value for key, value in self.running.items() if key not in over}
                self._left = tuple(event["left"]) if "left" in event else self._left  # type: ignore[assignment]
                self.tell()
        except Exception as problem:
            self.problem, ending = next(iter(str(problem).splitlines()), type(problem).__name__), "failed"
        finally:
            worker.stop()
        if self._worker is worker and self.state in ("running", "paused"):
            self.state = ending
            self._clock.halt()
            self.tell()


_RUNNING: dict[tuple[str, str], Live] = {}


def attach(experiment: Experiment, store: Place = None, device: str = "auto") -> Live:
    """Return the run of this experiment that goes on, or is paused, in this process, else a new one."""
    key = open_store(store).url, experiment.hash
    for other in [k for k, live in _RUNNING.items() if live.state not in ("running", "paused")]:
        del _RUNNING[other]
    return _RUNNING.get(key) or Live(experiment, store, device)


class _Clock:
    """Seconds that count only while it goes."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        return self._before + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def go(self) -> None:
        self._since = time.perf_counter()

    def halt(self) -> None:
        self._before, self._since = self.seconds, None


def serve(
    experiment: dict[str, Any], store: str, device: str, flag: str, workers: int
) -> Generator[dict[str, Any], None, None]:
    """What the process does: carry the experiment out, and yield every epoch's curve and every record as they come."""
    os.environ |= {PAUSE: flag, "COLT_WORKERS": str(workers)}  # it may start workers of its own, which can pause too
    events = SimpleQueue[Any]()

    def watch(name: str, number: int, copy: int, history: History) -> None:
        about = {"experiment": name, "round": number, "copy": copy, "images": history.images}
        events.put(about | {"planned": history.planned, "curve": [dict(epoch) for epoch in history.epochs]})

    described = Experiment(**experiment)

    def tell(record: dict[str, Any]) -> None:
        events.put({"record": {name: record[name] for name in ("kind", "round")}, "left": remaining(described, store)})

    def work() -> None:
        try:
            _finish(described, open_store(store), device, 1, tell, watch)
            events.put(None)
        except Exception as problem:
            events.put(problem)

    Thread(target=work, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, Exception):
            raise event
        yield event
