"""Randomness, the device and its settings: what every training must be told, in one place.

Every random draw of the workbook comes from a generator made of a seed and the draw's purpose, so the order in which
things are computed never changes a result. What PyTorch draws from its global state alone (initial weights, dropout)
is drawn behind one lock, so that threads cannot disturb each other either.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch

# PyTorch's global random state and settings are the whole process's: one thread at a time puts its own there.
_GLOBAL = RLock()


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed that belongs to `seed` and this purpose alone, e.g. `derive(0, "train", 3, 1)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for one purpose; draws are the same whatever device uses them."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def drawing(seed: int, *purpose: object) -> Iterator[None]:
    """Let PyTorch's own initialisers draw for one purpose, on the CPU; the global random state is put back."""
    with _GLOBAL, torch.random.fork_rng(devices=[]):
        _seed(derive(seed, *purpose), torch.device("cpu"))
        yield


def _seed(seed: int, device: torch.device) -> None:
    """Seed the CPU's global generator, and the device's.

    `torch.manual_seed` seeds every kind of device that there might be: of those not begun with it notes down the call
    and the whole stack, each time, for as long as the process lives.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)  # of this one alone: the others' states are not put back
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def alone() -> Iterator[None]:
    """Let nothing of this process train, score or draw while the block runs, as `reproducible` does."""
    with _GLOBAL:
        yield


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device to compute on: CUDA, else MPS, else the CPU; or the one asked for.

    Raises
    ------
    ValueError
        If the device is not there, or the name is none of PyTorch's.
    """
    if str(name) == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:0, ..., mps") from None
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {str(name)!r} was asked for, but this machine has none; use device='auto' or 'cpu'")
    return device


def memory_format(device: torch.device, precision: str = "float32") -> torch.memory_format:
    """Return the memory in which a network's convolutions are fastest on a device: `torch.channels_last` or plain.

    In float32 without TF32 cuDNN has slow kernels alone for channels_last: on an H100 ResNet-20 trains twice, conv3 of
    width 16 three times as many images a second in plain memory (benchmarks/README.md).
    """
    plain = device.type == "cuda" and precision == "float32"
    return torch.contiguous_format if plain else torch.channels_last


@contextmanager
def reproducible(device: torch.device, seed: int, threads: int = 1, tf32: bool = False) -> Iterator[None]:
    """Compute with a fixed thread count, deterministic kernels and a private global random state (used by dropout).

    Everything is put back afterwards. On the CPU a result depends on the thread count, hence it is always explicit.
    TF32 is used on CUDA where it is asked for, and there alone. Another thread of this process waits until the block
    ends: all of this is the process's, not the thread's.
    """
    with _GLOBAL:
        yield from _as_told(device, seed, threads, tf32)


def _as_told(device: torch.device, seed: int, threads: int, tf32: bool) -> Iterator[None]:
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    backends: Any = torch.backends
    # cuDNN's for recurrent layers goes along: where the two differ, PyTorch refuses to tell either by its older name.
    parts = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    switches = parts if device.type == "cuda" else ()
    rounding = [switch.fp32_precision for switch in switches]
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng knows CUDA alone
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            _seed(seed, device)
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
            for switch in switches:
                switch.fp32_precision = "tf32" if tf32 else "ieee"
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]
            for switch, value in zip(switches, rounding, strict=True):
                switch.fp32_precision = value
            if on_mps is not None:
                torch.mps.set_rng_state(on_mps)
