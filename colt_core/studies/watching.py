"""How far running experiments are, read from their store, on one bar: which, its round and density, what is left."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from ..compute.store import Store
from ..methods import method_of
from ..progress import Bar, bar, left
from .experiment import Experiment
from .records import is_over, read_records, rounds_scored


def size_of(experiment: Experiment) -> float:
    """Guess the work of finding: rounds, or next to nothing where none is trained."""
    method = method_of(experiment.method)
    keep = (1 - experiment.rate) ** (experiment.parts if method.split else 1)
    share = {"never": 0.1 if method.split else 0.0, "once": 0.2}.get(method.trains, 1.0)
    rounds = math.log(1 - experiment.target) / math.log(keep)
    return share * (rounds if experiment.densities is None else len(experiment.densities))


@contextmanager
def watched(jobs: list[Experiment], store: Store, progress: bool | None = None) -> Iterator[None]:
    """Show how far experiments are while the block runs; whoever computes them, here or elsewhere, need not tell."""
    with bar(progress) as shown:
        if not shown.shows or not jobs:
            yield
            return
        over = Event()
        looking = Thread(target=_Board(jobs, store, shown).follow, args=(over,), daemon=True)
        looking.start()
        try:
            yield
        finally:
            over.set()
            looking.join()


class _Board:
    """What is known of some experiments; those that are over are not asked for again."""

    def __init__(self, jobs: list[Experiment], store: Store, shown: Bar) -> None:
        self.jobs, self.store, self.shown = jobs, store, shown
        self.shares = [0.0] * len(jobs)
        self.over = [False] * len(jobs)
        self.begun, self.first = time.monotonic(), -1.0
        self.last, self.since = 0.0, self.begun  # the share when it last grew, and when that was

    def follow(self, over: Event) -> None:
        """Look, and tell, until it is over; what cannot be read now is read at the next look."""
        wait = 0.5 if self.store.local else 10.0
        while not over.wait(wait):
            try:
                self.tell()
            except (ValueError, OSError, KeyError):
                continue

    def tell(self) -> None:
        """Say how far they are."""
        running = []
        for i, job in enumerate(self.jobs):
            if self.over[i]:
                continue
            records = read_records(job, self.store)
            self.over[i] = is_over(job, self.store)
            self.shares[i] = 1.0 if self.over[i] else _share(job, records)
            if not self.over[i] and self.store.holder(f"{job.hash}/experiment"):
                running.append(_told(job, records, len(self.jobs) > 1))
        weights = [size_of(job) * job.found_with.epochs + _asked(job) * job.recipe.epochs or 1 for job in self.jobs]
        share = sum(w * s for w, s in zip(weights, self.shares, strict=True)) / sum(weights)
        self.first = share if self.first < 0 else self.first
        fresh = (share - self.first) / (1 - self.first) if self.first < 1 else 1.0
        now = time.monotonic()
        if fresh > self.last:
            self.last, self.since = fresh, now
        told = [f"{sum(self.over)} of {len(self.jobs)} done"] if len(self.jobs) > 1 else []
        told += [left(self.since - self.begun, fresh, now - self.since)]
        told += [f"{len(running)} running: {running[0]}" if len(running) > 1 else running[0]] if running else []
        self.shown.say(", ".join(text for text in told if text) or "starting", share)


def _asked(e: Experiment) -> float:
    """Return how many scores an experiment asks for, as far as that is known before."""
    if e.scores is None:
        return 0
    return len(e.scores) or max(1.0, size_of(e))


def _share(e: Experiment, records: list[dict[str, Any]]) -> float:
    """Return how much of an experiment is done, in [0, 1]: by the logarithm of its density, and by its scores."""
    found = [record for record in records if record["kind"] == "round"]
    if not found:
        return 0.0
    far = math.log(max(found[-1]["density"], 1e-12)) / math.log(1 - e.target)
    far = (len(found) - 1) / len(e.densities) if e.densities is not None else far
    find, judge = size_of(e) * e.found_with.epochs, _asked(e) * e.recipe.epochs
    scored = len(rounds_scored(e, records)) / _asked(e) if judge else 0.0
    return (find * min(1.0, far) + judge * min(1.0, scored)) / (find + judge or 1)


def _told(e: Experiment, records: list[dict[str, Any]], several: bool) -> str:
    """Say which experiment it is, and where: "colt cifar10 seed 0, round 3, 41% dense"."""
    found = [record for record in records if record["kind"] == "round"]
    where = f"round {found[-1]['round']}, {found[-1]['density']:.0%} dense" if found else "starting"
    return f"{e.method} {e.dataset} seed {e.seed}, {where}" if several else where
