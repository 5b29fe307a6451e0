"""Workers that are forked from one process that has imported everything: a start takes milliseconds, not seconds.

PyTorch takes two seconds of a core to import. One process of ours, the nursery, does it once, computes nothing, has no
other thread, and forks a worker whenever it is asked. Where that cannot be (see `possible`), each worker is a fresh
Python. Both give the same bits: a worker is told everything that its results depend on.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from threading import Lock
from typing import Any
from weakref import finalize

FORK = "COLT_FORK"  # "0": each worker is a fresh Python
LOADED = ("colt_core.studies.run", "colt_core.compute.copies", "colt_core.compute.worker")  # what workers will need


def possible() -> bool:
    """Tell whether workers can be forked here: on Linux, where a process can be held by a descriptor."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and os.environ.get(FORK, "1") != "0"


class Forked:
    """A forked process, with the part of `subprocess.Popen` that workers need; it is no child of this process."""

    def __init__(self, pid: int, handle: int, stdin: int, stdout: int) -> None:
        self.pid, self._handle = pid, handle
        finalize(self, os.close, handle)  # not before: several threads may wait for its end
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return None while it runs; afterwards a number, which says nothing else."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a worker", timeout or 0.0)
        return code

    def kill(self) -> None:
        """End it now."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def communicate(self) -> None:
        """Close its pipes and wait for its end."""
        for pipe in (self.stdin, self.stdout):
            with suppress(OSError):
                pipe.close()
        self.wait()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._handle], [], [], timeout)[0]:
            self.returncode = -signal.SIGKILL
        return self.returncode


class Nursery:
    """The process that forks workers; it ends when this one does."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno())], env=dict(environment), pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.socket, self._lock = ours, Lock()

    def fork(self, about: Mapping[str, Any]) -> Forked:
        """Fork a worker: `about` is its environment, folder and places to import from.

        Raises
        ------
        OSError
            If the nursery has died.
        """
        with self._lock:
            return self._fork(about)

    def _fork(self, about: Mapping[str, Any]) -> Forked:
        reading, to_worker = os.pipe()
        from_worker, writing = os.pipe()
        try:
            message = json.dumps(about).encode()
            socket.send_fds(self.socket, [len(message).to_bytes(8, "big")], [reading, writing, 2])
            self.socket.sendall(message)
            answer, handles, _, _ = socket.recv_fds(self.socket, 8, 1)
            if len(answer) < 8:
                raise OSError("the process that forks workers has died")
            return Forked(int.from_bytes(answer, "big"), handles[0], to_worker, from_worker)
        except BaseException:  # an interrupt, too: what was asked for may come later, so nobody asks here again
            os.close(to_worker)
            os.close(from_worker)
            raise
        finally:
            os.close(reading)
            os.close(writing)

    def stop(self) -> None:
        """End it; the workers that it has forked live on."""
        self.socket.close()
        self.process.kill()
        self.process.wait()


# --- in the nursery ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a worker for each message; end when nobody can send one any more."""
    for module in LOADED:
        import_module(module)
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    channel = socket.socket(fileno=int(sys.argv[-1]))
    while True:
        head, pipes, _, _ = socket.recv_fds(channel, 8, 3)
        if len(head) < 8:
            os._exit(0)
        about = json.loads(_exactly(channel, int.from_bytes(head, "big")))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # not reaped before it is held
        if not (pid := os.fork()):
            _become_worker(about, channel, pipes)
        handle = os.pidfd_open(pid)
        for pipe in pipes:
            os.close(pipe)
        socket.send_fds(channel, [pid.to_bytes(8, "big")], [handle])
        os.close(handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _exactly(channel: socket.socket, count: int) -> bytes:
    """Receive so many bytes; what is missing when the other side is gone ends this process."""
    found = b""
    while len(found) < count:
        part = channel.recv(count - len(found))
        if not part:
            os._exit(0)
        found += part
    return found


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_worker(about: Mapping[str, Any], channel: socket.socket, pipes: list[int]) -> None:
    """Take over what the asking process has, and serve it."""
    channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number, pipe in enumerate(pipes):
        os.dup2(pipe, number)
        os.close(pipe)
    os.environ.clear()
    os.environ.update(about["environment"])
    os.chdir(about["folder"])
    sys.path[:] = [*sys.path, *(place for place in about["places"] if place not in sys.path)]
    sys.stdin = os.fdopen(0)
    import_module("colt_core.compute.worker").serve()
