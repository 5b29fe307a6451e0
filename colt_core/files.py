"""Files are written whole or not at all: beside their place as `.part`, then renamed into it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from safetensors import SafetensorError


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file, then rename it into place; on any failure nothing is left.

    Raises
    ------
    OSError
        With one clear line where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise OSError(f"{path} cannot be written ({reason}); nothing was changed") from None
    finally:
        with suppress(OSError):
            part.unlink()
    return path


@cache
def scratch() -> Path:
    """Return this process's folder for what its workers share with it; it goes with the process."""
    root = Path(tempfile.gettempdir())
    for left in root.glob("colt-scratch-*-*"):
        if not _alive(left.name.split("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"colt-scratch-{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _alive(process: str) -> bool:
    """Tell whether a process number belongs to a living process of this machine."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def locked(file: IO[bytes]) -> Iterator[None]:
    """Hold an open file for this process alone, where the system can (not on Windows)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file lets go


def sweep(folder: Path) -> None:
    """Remove the temporary files that dead processes of this machine left in a folder."""
    for part in folder.glob(".*.part"):
        if not _alive(part.name.split(".")[-2]):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
