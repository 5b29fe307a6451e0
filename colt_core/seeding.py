"""Randomness, the device and its settings: what every training must be told, in one place.

Every random draw of the workbook comes from a generator made of a seed and the draw's purpose, so the order in which
things are computed never changes a result.
"""

import ctypes
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed that belongs to `seed` and this purpose alone, e.g. `derive(0, "train", 3, 1)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for one purpose; draws are the same whatever device uses them."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


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


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """Let freed memory be used again by the next step instead of going back to the system, while training on a CPU.

    glibc returns every block over 32 MB at once, and its pages are zeroed anew at the next step: a fifth of the time
    of ResNet-18 at batch 256. Its defaults and the memory are given back afterwards. Elsewhere this does nothing.
    """
    glibc = None
    if device.type == "cpu" and sys.platform == "linux":
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            glibc = library if library.gnu_get_libc_version and library.malloc_trim else None
    if glibc is None:
        yield
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # the names and defaults of mallopt(3)
    for option, value in ((trim_threshold, -1), (top_pad, 2**26), (mmap_max, 0)):
        glibc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in ((trim_threshold, 2**17), (top_pad, 2**17), (mmap_max, 65536)):
            glibc.mallopt(option, value)
        glibc.malloc_trim(0)


@contextmanager
def reproducible(device: torch.device, seed: int, threads: int = 1, tf32: bool = False) -> Iterator[None]:
    """Compute with a fixed thread count, deterministic kernels and a private global random state (used by dropout).

    Everything is put back afterwards. On the CPU a result depends on the thread count, hence it is always explicit.
    TF32 is used on CUDA where it is asked for, and there alone.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    backends: Any = torch.backends
    switches = [backends.cudnn.conv, backends.cuda.matmul] if device.type == "cuda" else []
    rounding = [switch.fp32_precision for switch in switches]
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng knows CUDA alone
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.manual_seed(seed)
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
