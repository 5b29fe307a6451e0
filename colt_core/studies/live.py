"""`Live`: one experiment carried out in a process beside this one, to be watched, paused, continued and stopped."""

import logging
import os
import time
from collections.abc import Callable, Generator
from queue import SimpleQueue
from threading import RLock, Thread
from typing import Any, Literal
from uuid import uuid4

from ..compute.pool import Worker, cores
from ..compute.store import open_store
from ..files import host, scratch
from ..seeding import choose_device
from ..settings import first_line
from ..tickets import Round
from ..training import History
from ..training.loop import PAUSE
from .experiment import Experiment
from .plan import remaining, together
from .records import Place, is_complete, is_scored, saved_rounds
from .run import carry_out, check
from .saved import checked_records

State = Literal["ready", "running", "paused", "stopped", "done", "failed", "elsewhere"]
Curves = dict[tuple[int, int], tuple[int, list[dict[str, float]]]]
BUSY = ("running", "paused")


class Live:
    """A run that goes on while this process does other things.

    Its random state, thread counts and memory are another process's, so it finds the same tickets, bit for bit, as
    `run`. Whatever ends it, finished rounds are in the store, and another `Live`, or `run`, goes on from there.

    Attributes
    ----------
    state
        "ready"; "running"; "paused" (between two optimiser steps, nothing is lost); "stopped" (the epoch under way is
        lost); "done"; "failed" (`problem` says why, in one line); "elsewhere" (another process is at it, see `look`).
    running
        The curves of the trainings under way, by round and copy: (epochs planned, one dict an epoch).
    reference
        The round under way of the COLT run that this one follows, while that comes first; else None.
    listeners
        Called, from a thread of the run's own, whenever there is news.
    """

    def __init__(self, experiment: Experiment, store: Place = None, device: str = "auto") -> None:
        """Describe a run; nothing is started."""
        self.experiment, self.store, self.device = experiment, open_store(store), str(choose_device(device))
        self.listeners: list[Callable[[], None]] = []
        self.running: Curves = {}
        self.reference: int | None = None
        self.problem = ""
        self._worker: Worker | None = None
        self._rounds: list[Round] = []
        self._lock = RLock()
        self._flag = scratch() / f"pause-{uuid4().hex}"
        self._clock, self._pace = _Clock(), _Pace()
        self.state: State = self._found()

    def _found(self) -> State:
        """Return how far the store says it is."""
        if is_complete(self.experiment, self.store) and is_scored(self.experiment, self.store):
            return "done"
        return "elsewhere" if self.elsewhere else "stopped" if self.records else "ready"

    @property
    def elsewhere(self) -> str:
        """Which other process is at this run, in words; "" where none is."""
        holder = self.store.holder(f"{self.experiment.hash}/experiment")
        if holder is None or (holder.get("host"), holder.get("pid")) in _ENDED:
            return ""
        return f"process {holder.get('pid', '?')} on {str(holder.get('host', '?')).split(' ')[0]}"

    def look(self) -> None:
        """Ask the store anew how far it is: another process may have begun it, gone on, or ended."""
        with self._lock:
            if self.state not in (*BUSY, "done") and (self.state != "failed" or self.elsewhere):
                self.state = self._found()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the store has of this run, a dict a record.

        Raises
        ------
        ValueError
            In one line, where it is damaged.
        """
        return checked_records(self.experiment.hash, self.store)

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
        """Return the least and the most seconds still to go, at the pace so far; None before there is one."""
        return self._pace.left() if self.state in BUSY else None

    def start(self) -> None:
        """Begin, or go on from what the store has; nothing happens while it runs or when it is done.

        Raises
        ------
        ValueError
            If no other process can see the store, or `$COLT_WORKERS` is no number.
        """
        with self._lock:
            if self.state in (*BUSY, "done"):
                return
            if self.store.private:
                raise ValueError(f"the process that trains cannot see {self.store.url}: use a folder or a bucket")
            workers = cores()
            self._flag.unlink(missing_ok=True)
            self.problem, self.running, self.reference, self._pace = "", {}, None, _Pace()
            self._worker = Worker()
            call = self._worker.call(
                "colt_core.studies.live:serve", experiment=self.experiment.model_dump(mode="json"),
                store=self.store.url, device=self.device, flag=str(self._flag), workers=workers,
            )  # fmt: skip
            self.state, self._clock = "running", _Clock()
            self._clock.go()
            _RUNNING[self.store.url, self.experiment.hash] = self
            Thread(target=self._follow, args=(self._worker, call), daemon=True).start()

    def pause(self) -> None:
        """Hold every training before its next step; the processes stay, and keep what they have."""
        with self._lock:
            if self.state == "running":
                self._flag.touch()
                self.state = "paused"
                self._clock.halt()
        self._tell()

    def resume(self) -> None:
        """Go on: from a pause at once, else from what the store has."""
        with self._lock:
            if self.state == "paused":
                self._flag.unlink(missing_ok=True)
                self.state = "running"
                self._clock.go()
            else:
                self.start()
        self._tell()

    def stop(self) -> None:
        """End the processes now. Finished rounds, and each training's last finished epoch, are in the store."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is None or self.state not in BUSY:
                return
            self.state = "stopped"
            self._clock.halt()
            _ENDED.add((host(), worker.process.pid))
            worker.process.kill()
            worker.process.wait()
            self._flag.unlink(missing_ok=True)
        self._tell()

    def _follow(self, worker: Worker, call: Generator[Any, Any, Any]) -> None:
        """Take up what the process tells until it ends, or until another has taken its place."""
        ending: State = "done"
        problem = ""
        try:
            for event in call:
                with self._lock:
                    if self._worker is not worker:
                        break
                    self._take(event)
                self._tell()
        except Exception as error:
            problem, ending = first_line(error), "failed"
        _ENDED.add((host(), worker.process.pid))
        worker.stop()
        with self._lock:
            if self._worker is not worker:
                return
            self.problem, self.state, self.reference = problem, ending, None
            self._worker = None
            self._clock.halt()
            self._flag.unlink(missing_ok=True)
        self._tell()

    def _take(self, event: dict[str, Any]) -> None:
        self._pace.take(event)
        if "curve" in event:
            foreign = event["experiment"] != self.experiment.hash
            self.reference = event["round"] if foreign else None
            if not foreign:
                self.running = self.running | {(event["round"], event["copy"]): (event["planned"], event["curve"])}
        elif event.get("kind") == "round":
            self.running = {key: value for key, value in self.running.items() if key[0] > event["round"]}

    def _tell(self) -> None:
        """Tell all listeners; what goes wrong there is not the run's business."""
        for listener in list(self.listeners):
            try:
                listener()
            except Exception:
                logging.getLogger(__name__).exception("a view of the run could not be drawn")


_RUNNING: dict[tuple[str, str], Live] = {}
_ENDED: set[tuple[str | None, int | None]] = set()  # our own processes: their claims say nothing, once they have ended


def attach(experiment: Experiment, store: Place = None, device: str = "auto") -> Live:
    """Return the run of this experiment that goes on, or is paused, in this process, else a new one."""
    key = open_store(store).url, experiment.hash
    for other in [k for k, live in _RUNNING.items() if live.state not in BUSY]:
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


class _Pace:
    """How many images were trained on since the run went on here, how long that took, and how many are left.

    The seconds are those of the trainings themselves, as in a plan: what starting up takes is no pace.
    """

    def __init__(self) -> None:
        self.trained = 0  # here: what was looked up, or trained before a stop, says nothing about the pace
        self.seconds = 0.0
        self._left: tuple[float, float] | None = None
        self._since = 0.0  # images of trainings since `_left` was told, counted as there
        self._seen: dict[tuple[str, int, int], tuple[int, float]] = {}

    def take(self, event: dict[str, Any]) -> None:
        if "left" in event:
            self._left, self._since = (event["left"][0], event["left"][1]), 0
        if "curve" in event:
            key = event["experiment"], event["round"], event["copy"]
            before = self._seen.get(key, (0, 0.0))
            images, seconds = event["images"] - before[0], event["seconds"] - before[1]
            self._since += images / event["together"]
            if key in self._seen or len(event["curve"]) == 1:
                self.trained, self.seconds = self.trained + images, self.seconds + seconds
            self._seen[key] = event["images"], event["seconds"]
        if event.get("scored"):
            self.trained, self.seconds = self.trained + event["scored"], self.seconds + event["score_seconds"]

    def left(self) -> tuple[float, float] | None:
        """Return the least and the most seconds that are left."""
        if not self.trained or self._left is None:
            return None
        low, high = (max(0.0, images - self._since) * self.seconds / self.trained for images in self._left)
        return low, high


def serve(
    experiment: dict[str, Any], store: str, device: str, flag: str, workers: int
) -> Generator[dict[str, Any], None, None]:
    """What the process does: carry the experiment out, and yield every epoch's curve and every record as they come."""
    os.environ |= {PAUSE: flag, "COLT_WORKERS": str(workers)}  # it may start workers of its own, which can pause too
    events, described = SimpleQueue[Any](), Experiment.as_sent(experiment)
    beside = workers if device == "cpu" else 1
    at_once = {e.hash: together(e, beside) for e in [described, *described.references()]}

    def watch(name: str, number: int, copy: int, history: History) -> None:
        about = {"experiment": name, "round": number, "copy": copy, "images": history.images}
        about |= {"seconds": history.seconds, "together": at_once.get(name, 1)}
        events.put(about | {"planned": history.planned, "curve": [dict(epoch) for epoch in history.epochs]})

    def tell(record: dict[str, Any]) -> None:
        about = {"kind": record["kind"], "round": record["round"]}
        about |= {"left": remaining(described, store, beside)}
        spent = {"scored": record.get("score_image_epochs") or 0, "score_seconds": record.get("score_seconds") or 0.0}
        events.put(about | spent)

    def work() -> None:
        try:
            check(described, device, store)
            events.put({"left": remaining(described, store, beside)})
            carry_out(described, open_store(store), device, 1, tell, watch)
            events.put(None)
        except Exception as problem:
            events.put(problem)

    Thread(target=work, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, Exception):
            raise event
        yield event
