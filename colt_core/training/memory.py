"""Freed memory is used again by the next step: what the C library does with it while a training runs on a CPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


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
