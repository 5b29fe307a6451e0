"""`python -m colt_core.worker`: processes that compute beside this one, started once and kept for the next call.

A worker never imports the caller's `__main__`, so it serves a notebook, `python -` and a script without a main guard
alike. Calls and answers are JSON lines; tensors go through files that both sides map into memory. It ends with its
parent, whatever it is doing.
"""

import atexit
import builtins
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from inspect import isgenerator
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any


def _place() -> dict[str, str]:
    """What a worker takes over from this process when it starts: one from another place is not used again."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("COLT_", "XDG_"))}
    ours.pop("COLT_WORKERS", None)  # its own number is one
    return ours | {"executable": sys.executable, "folder": os.getcwd()}


class Worker:
    """A process that carries out one call at a time."""

    def __init__(self) -> None:
        self.place = _place()
        environment = {"OMP_NUM_THREADS": "1", "COLT_WORKERS": "1"}  # a worker starts no workers of its own
        environment |= {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}  # large pages
        environment |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "colt_core.worker"],
            text=True, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def call(self, function: str, **arguments: Any) -> Generator[Any, Any, Any]:
        """Call "module:function" there; yield what it yields, pass on what is sent to it, return what it returns.

        Raises
        ------
        RuntimeError
            If the process dies. An error of the function is raised here with its own type, if that is a built-in one.
        """
        answer = self._ask({"call": function, "arguments": arguments})
        while "yield" in answer:
            answer = self._ask({"send": (yield answer["yield"])})
        if "error" in answer:
            kind = getattr(builtins, answer["type"], RuntimeError)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(answer["error"])
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
_lock = Lock()


@contextmanager
def lend(count: int) -> Iterator[list[Worker]]:
    """Lend out workers: idle ones, and new ones for the rest. After an error those lent are stopped, not kept."""
    with _lock:
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


def stop_idle() -> None:
    """End the workers that nothing uses: frees their memory; the next call starts new ones."""
    with _lock:
        while _idle:
            _idle.pop().stop()


atexit.register(stop_idle)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    messages = SimpleQueue[dict[str, Any]]()
    Thread(target=_listen, args=(messages.put,), daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    while True:
        job = messages.get()
        try:
            module, _, name = job["call"].partition(":")
            result = getattr(import_module(module), name)(**job["arguments"])
            if isgenerator(result):
                result = _exchange(result, say, messages)
            say({"return": result})
        except Exception as problem:
            say({"error": str(problem), "type": type(problem).__name__})


def _exchange(generator: Any, say: Any, messages: "SimpleQueue[dict[str, Any]]") -> Any:
    try:
        value = next(generator)
        while True:
            say({"yield": value})
            value = generator.send(messages.get()["send"])
    except StopIteration as end:
        return end.value


def _listen(put: Any) -> None:
    """Hand on what the parent says; when it is gone, so are we. Files are written whole or not at all."""
    with suppress(ValueError):
        for line in sys.stdin:
            put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    _serve()
