"""Worker processes of this one: started when first needed, lent out, and kept a minute for the next call.

A worker never imports the caller's `__main__`, so it serves a notebook, `python -` and a script without a main guard
alike.
"""

import atexit
import builtins
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from ..progress import SWITCH
from .nursery import Forked, Nursery, possible


def cores() -> int:
    """Return how many processes may compute side by side: `$COLT_WORKERS`, else the cores this process may use.

    Raises
    ------
    ValueError
        If `$COLT_WORKERS` is no number from 1.
    """
    wanted = os.environ.get("COLT_WORKERS", "")
    if wanted and not (wanted.isdigit() and int(wanted)):
        raise ValueError(f"COLT_WORKERS must be a whole number from 1, not {wanted!r}")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(wanted or available)


def check_workers(workers: int | None) -> None:
    """Raise a `ValueError` unless it is None or a number from 1."""
    if workers is not None and (isinstance(workers, bool) or workers != int(workers) or workers < 1):
        raise ValueError(f"workers must be a whole number from 1, not {workers!r}")


def _place() -> dict[str, str]:
    """What a worker takes over from this process when it starts: one from another place is not used again."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("COLT_", "XDG_"))}
    for name in ("COLT_WORKERS", SWITCH):  # of these it has its own
        ours.pop(name, None)
    return ours | {"executable": sys.executable, "folder": os.getcwd(), "path": os.pathsep.join(sys.path)}


# This very package is loaded from its place, and what else this process can import comes last: a `random.py` in the
# current folder must not run in place of Python's own. An interrupt is the parent's to handle: also while libraries are
# imported.
_BEGIN = """
import signal
import sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("colt_core", {package!r} + "/__init__.py", submodule_search_locations=[{package!r}])
sys.modules["colt_core"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["colt_core"])
sys.path += [place for place in {places!r} if place not in sys.path]
"""


def _places() -> list[str]:
    """Return where this process imports from."""
    return [place or os.getcwd() for place in sys.path]


def interpreter(code: str, places: list[str] | None = None) -> list[str]:
    """Return the command of a Python that runs `code` with this package, whatever the current folder holds."""
    places = _places() if places is None else places
    begin = _BEGIN.format(package=str(Path(__file__).absolute().parent.parent), places=places)
    return [sys.executable, "-P", "-c", begin + code]


def environment() -> dict[str, str]:
    """Return the environment of a worker: this process's, one thread, no workers of its own, large memory pages."""
    own = {"OMP_NUM_THREADS": "1", "COLT_WORKERS": "1", SWITCH: "0"}  # the bar is the caller's alone
    return os.environ | own | {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}


IDLE = 60.0  # seconds after which what nothing uses is ended
_lock = Lock()
Process = subprocess.Popen[str] | Forked


def _fresh() -> Process:
    """Return a worker's process that is a Python of its own."""
    command, pipe = interpreter("from colt_core.compute.worker import serve; serve()"), subprocess.PIPE
    return subprocess.Popen(command, text=True, env=environment(), stdin=pipe, stdout=pipe)


# What libraries read but once, when they are loaded: a nursery that was started with other values is not used.
_READ_ONCE = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "GLIBC_", "LD_", "CUDA_", "CUBLAS_", "TORCH", "PYTORCH_", "PYTHON")
_nurseries: dict[str, Nursery] = {}
_used: dict[str, float] = {}  # when each was last asked for a worker


def _forked() -> Process | None:
    """Return a worker's process that is forked; None where that cannot be, or did not work."""
    if not possible():
        return None
    about = {"environment": environment(), "folder": os.getcwd(), "places": _places()}
    once = {name: value for name, value in sorted(environment().items()) if name.startswith(_READ_ONCE)}
    key = json.dumps([sys.executable, once])
    for _ in range(2):  # it may have died since
        with _lock:
            if key not in _nurseries:
                command = interpreter("from colt_core.compute.nursery import serve; serve()", places=[])
                _nurseries[key] = Nursery(command, environment())
            nursery = _nurseries[key]
            _used[key] = time.monotonic()
        try:
            return nursery.fork(about)
        except BaseException as problem:
            with _lock:
                if _nurseries.get(key) is nursery:
                    _nurseries.pop(key).stop()
            if not isinstance(problem, OSError):
                raise
    return None


_OF_MORE_THAN_A_TEXT = (UnicodeError, BaseExceptionGroup)  # they cannot be made again of their words


class Worker:
    """A process that carries out one call at a time."""

    def __init__(self) -> None:
        self.place, self.since = _place(), time.monotonic()
        self.process = _forked() or _fresh()

    def call(self, function: str, **arguments: Any) -> Generator[Any, Any, Any]:
        """Call "module:function" there; yield what it yields, pass on what is sent to it, return what it returns.

        Raises
        ------
        RuntimeError
            If the process dies. An error of the function is raised here with its own type, if that is a built-in one.
        """
        # A strict exchange, one line each way, so that neither side ever waits for the other with its pipe full.
        answer = self._ask({"call": function, "arguments": arguments})
        while "yield" in answer:
            answer = self._ask({"send": (yield answer["yield"])})
        if "error" in answer:
            kind = getattr(builtins, answer["type"], RuntimeError)
            if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _OF_MORE_THAN_A_TEXT):
                kind = RuntimeError
            raise kind(answer["error"])
        return answer["return"]

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            return dict(json.loads(self.process.stdout.readline()))
        except (OSError, ValueError):
            self.stop()
            return {"error": "the worker process died", "type": "RuntimeError"}

    def stop(self) -> None:
        """End the process now."""
        self.process.kill()
        with suppress(OSError, ValueError):
            self.process.communicate()


_idle: list[Worker] = []


@contextmanager
def lend(count: int) -> Iterator[list[Worker]]:
    """Lend out workers: idle ones, and new ones for the rest. After an error those lent are stopped, not kept."""
    with _lock:
        # One that was started elsewhere, or with other settings, would compute with those.
        mine = [worker for worker in _idle if worker.process.poll() is None and worker.place == _place()][:count]
        _idle[:] = [worker for worker in _idle if worker not in mine]
    mine += [Worker() for _ in range(count - len(mine))]
    try:
        yield mine
    except BaseException:
        for worker in mine:
            worker.stop()
        raise
    with _lock:
        _idle.extend(mine)
        for worker in mine:
            worker.since = time.monotonic()
    _end_idle_later()


_ending = Lock()  # held while a timer waits


def _end_idle_later() -> None:
    """End what has been idle for `IDLE` seconds, when that is so: a notebook left open must not hold its memory."""
    if _ending.acquire(blocking=False):
        timer = Timer(IDLE / 2, _end_idle, [_ending])
        timer.daemon = True
        timer.start()


def _end_idle(held: Lock) -> None:
    old = time.monotonic() - IDLE
    with _lock:
        ended: list[Worker | Nursery] = [worker for worker in _idle if worker.since <= old]
        _idle[:] = [worker for worker in _idle if worker.since > old]
        gone = [key for key in _nurseries if _used.get(key, 0.0) <= old]
        ended += [_nurseries.pop(key) for key in gone]
        left = bool(_idle or _nurseries)
    for one in ended:
        one.stop()
    held.release()
    if left:
        _end_idle_later()


def stop_idle() -> None:
    """End the workers that nothing uses: frees their memory; the next call starts new ones."""
    with _lock:
        while _idle:
            _idle.pop().stop()


def _stop_all() -> None:
    stop_idle()
    while _nurseries:
        _nurseries.popitem()[1].stop()


atexit.register(_stop_all)
