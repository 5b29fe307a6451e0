"""Files are written whole or not at all: beside their place as `.part`, then renamed into it. The one tensor format.

Tensors lie in safetensors files; names before a slash group them (`weight/conv1.weight`, `mask/conv1.weight`).
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .settings import first_line

Tensors = dict[str, torch.Tensor]


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


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


# --- tensors -----------------------------------------------------------------------------------------------------


class Damaged(ValueError):
    """A file that is no tensor file, or not all of one."""


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """Lend a tensor file that is read piece by piece: `get_tensor`, `get_slice`, `keys()`, `metadata()`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Damaged
        If it is no tensor file, is truncated, or lacks a tensor that is asked for.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as problem:
        raise Damaged(first_line(problem)) from None


def read_tensors(path: str | Path) -> tuple[Tensors, dict[str, str]]:
    """Return all tensors of a file, mapped into memory, and its metadata; errors as of `open_tensors`."""
    with open_tensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 (no dict)


def save_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str] | None = None) -> None:
    """Fill a file with tensors from any device; of several metadata keys safetensors fixes no order."""
    plain: Tensors = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        one = value.detach().cpu().contiguous()
        memory = one.untyped_storage().data_ptr()
        plain[name] = one.clone() if memory in seen else one  # the format refuses tensors that share memory
        seen.add(memory)
    save_file(plain, path, dict(about) if about else None)


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str] | None = None
) -> Path:
    """Write a tensor file whole or not at all."""
    return write_whole(Path(path), lambda part: save_tensors(part, tensors, about))


def under(tensors: Mapping[str, torch.Tensor], group: str) -> Tensors:
    """Return the tensors whose names begin with `group`, without that beginning."""
    return {name.removeprefix(group): value for name, value in tensors.items() if name.startswith(group)}


def hash_into(digest: Any, *tensors: torch.Tensor) -> None:
    """Feed the bytes of tensors to a hash, 10,000 rows at a time."""
    for tensor in tensors:
        for part in tensor.cpu().split(10_000):
            digest.update(memoryview(part.contiguous().numpy()).cast("B"))


def sha256_of(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of tensors, one after the other."""
    digest = hashlib.sha256()
    hash_into(digest, *tensors)
    return digest.hexdigest()


# --- what processes leave ----------------------------------------------------------------------------------------


@cache
def scratch() -> Path:
    """Return this process's folder for what its workers share with it; it goes with the process."""
    root = Path(tempfile.gettempdir())
    for left in root.glob("colt-scratch-*-*"):
        if not is_alive(left.name.split("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"colt-scratch-{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def is_alive(process: str) -> bool:
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
        if not is_alive(part.name.split(".")[-2]):
            part.unlink(missing_ok=True)
