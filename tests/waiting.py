"""No test depends on how fast a machine is: it waits until something is so, and holds a run where it wants it."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import colt_core as cc

PATIENCE = float(os.environ.get("COLT_TEST_SECONDS", "600"))  # only what never happens takes so long


def wait_for(what: Callable[[], object], told: Callable[[], object] = str) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, f"it has not happened in {PATIENCE:.0f} seconds: {told()}"
        time.sleep(0.02)


def trainings(experiment: cc.Experiment, store: Path) -> list[list[str]]:
    """Carry an experiment out; return the names of each round's trainings, in the order of their ends."""
    seen: set[str] = set()
    found = []
    for _ in cc.rounds(experiment, store, "cpu"):
        files = sorted((store / "trainings").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        found.append([f"trainings/{path.stem}" for path in files if path.stem not in seen])
        seen |= {path.stem for path in files}
    return found


class Held:
    """A training, or a score, that this process has claimed and does not do: whoever comes to it waits."""

    def __init__(self, store: Path, name: str) -> None:
        self.store, self.name, self._claim = cc.open_store(store), name, ExitStack()
        assert self._claim.enter_context(self.store.claim(name)), f"{name} is another's"

    def let_go(self) -> None:
        """Let others do it."""
        self._claim.close()

    @property
    def taken(self) -> bool:
        """Whether another process has begun it since."""
        holder = self.store.holder(self.name)
        return holder is not None and holder["pid"] != os.getpid()
