"""Kernels that are forked from one process that has imported PyTorch and the like: a notebook starts in half a second.

Two dozen kernels start in a run of all tests, and each would import the same libraries for four seconds. The workbook's
own code is not among what is imported beforehand: a kernel reads it, and its environment, by itself. Where this cannot
be done, kernels are started as usual.

As a script it is what a kernel's specification starts: it hands its arguments, folder, environment and streams to that
process, lives as long as the kernel, passes signals on, and its own end is the kernel's.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from importlib import import_module
from select import select

LIBRARIES = ["torch", "torchvision.models", "torch.fx", "pandas", "scipy.stats", "matplotlib.figure", "ipywidgets"]
LIBRARIES += ["matplotlib.backends.backend_agg", "ipykernel.kernelapp", "pydantic", "yaml", "PIL.Image", "jinja2"]
PATIENCE = 60  # seconds, for that process to begin


def serve(place: str) -> None:
    """Fork a kernel for whoever asks, until the process that started this one has ended: it closes the input."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as kernels have it, before it is imported
    for name in LIBRARIES:
        import_module(name)
    kernels: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen()
        while True:
            ready, _, _ = select([door, sys.stdin, *kernels.values()], [], [], 0.2)
            if sys.stdin in ready:
                break
            if door in ready:
                starter, _ = door.accept()
                try:
                    fork(starter, [door, *kernels.values()], kernels)
                except (OSError, ValueError):  # it has ended before it had said what it wants
                    starter.close()
            for pid, starter in kernels.items():
                if starter in ready:  # it says nothing: it has ended
                    os.kill(pid, signal.SIGKILL)
            for pid in [pid for pid in kernels if os.waitpid(pid, os.WNOHANG)[0]]:
                kernels.pop(pid).close()
    for pid in kernels:
        os.kill(pid, signal.SIGKILL)


def fork(starter: socket.socket, others: list[socket.socket], kernels: dict[int, socket.socket]) -> None:
    """Begin a kernel as its starter says, and tell it the kernel's number."""
    size = int.from_bytes(starter.recv(4, socket.MSG_WAITALL), "big")
    _, streams, _, _ = socket.recv_fds(starter, 1, 3)
    about = json.loads(starter.recv(size, socket.MSG_WAITALL))
    pid = os.fork()
    if not pid:
        for one in [starter, *others]:
            one.close()
        try:
            begin(streams, **about)
        except Exception:
            traceback.print_exc()
        sys.exit()  # out of `serve` too: there is one process that forks, and this one tidies up as kernels do
    for stream in streams:
        os.close(stream)
    kernels[pid] = starter
    starter.sendall(pid.to_bytes(4, "big"))


def begin(streams: list[int], folder: str, environment: dict[str, str], arguments: list[str]) -> None:
    """Be a kernel."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ipykernel_launcher", *arguments]
    places = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [place for place in places if place and place not in sys.path]  # in place of this file's folder
    import_module("ipykernel.kernelapp").launch_new_instance()


def ask(place: str, arguments: list[str]) -> None:
    """Have a kernel forked, and end with it; begin one as usual where there is nobody who forks."""
    # Jupyter's own number would tell the kernel, which is another's child, that its parent is gone.
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    about = json.dumps({"folder": os.getcwd(), "environment": environment, "arguments": arguments}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        if not reached(server, place):
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
        server.sendall(len(about).to_bytes(4, "big"))
        socket.send_fds(server, [b"3"], [0, 1, 2])
        server.sendall(about)
        pid = int.from_bytes(server.recv(4, socket.MSG_WAITALL), "big")
        signal.signal(signal.SIGINT, lambda *_: os.kill(pid, signal.SIGINT))
        server.recv(1)  # nothing is ever sent: it returns when the kernel has ended


def reached(server: socket.socket, place: str) -> bool:
    """Tell whether the process that forks answers; it may be importing still."""
    for _ in range(10 * PATIENCE):
        try:
            server.connect(place)
            return True
        except FileNotFoundError:
            time.sleep(0.1)
        except OSError:
            break
    return False


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[1], sys.argv[2:])
