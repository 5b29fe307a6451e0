"""Files are written whole or not at all: beside their place in a `.part`, then renamed into it. The one tensor format.

Tensors lie in safetensors files; names before a slash group them (`weight/conv1.weight`, `mask/conv1.weight`).
"""

import atexit
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .settings import first_line

Tensors = dict[str, torch.Tensor]


class NotWritten(OSError):
    """A file that could not be written; `reason` is why, in a few words. Nothing was changed."""

    def __init__(self, path: str | Path, problem: Exception) -> None:
        self.reason: str = getattr(problem, "reason", None) or getattr(problem, "strerror", None) or first_line(problem)
        super().__init__(f"{path} cannot be written ({self.reason}); nothing was changed")


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file, then rename it into place; on any failure nothing is left.

    The file gets the permissions that the umask gives, whatever `write` gave it.

    Raises
    ------
    NotWritten
        With one clear line where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    aside = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()  # a folder: some libraries write beside a file before they rename it, too
        part = aside / path.name
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.chmod(aside.stat().st_mode & 0o666)  # a new folder has what the umask leaves; asking for it would set it
        part.replace(path)
    except (OSError, SafetensorError) as problem:
        raise NotWritten(path, problem) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def part_of(path: Path) -> Path:
    """Return a name for what is written before it is renamed to `path`: no other writer has it, and it says whose."""
    return path.with_name(f".{path.name[:80]}.{host_mark()}.{os.getpid()}.{uuid4().hex[:12]}.part")


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
    try:
        save_file(plain, path, dict(about) if about else None)
    except (OSError, SafetensorError) as problem:
        raise NotWritten(path, problem) from None


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str] | None = None
) -> Path:
    """Write a tensor file whole or not at all."""
    return write_whole(Path(path), lambda part: save_tensors(part, tensors, about))


KINDS = {torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"}  # as safetensors calls them


class TensorWriter:
    """A tensor file of announced shapes that is filled piece by piece: its tensors need not be in memory.

    Until `finish` it has no header, so that nobody takes it for a whole one.

    Parameters
    ----------
    path
        The file; usually the one that `write_whole` gives.
    shapes
        Type and shape of each tensor by its name.
    room
        Bytes kept free for the metadata, which are known at the end.
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], room: int = 2**16
    ) -> None:
        self._header: dict[str, Any] = {}
        end = 0
        for name in sorted(shapes, key=lambda name: -shapes[name][0].itemsize):  # the widest first: all are aligned
            kind, shape = shapes[name]
            begin, end = end, end + kind.itemsize * math.prod(shape)
            self._header[name] = {"dtype": KINDS[kind], "shape": list(shape), "data_offsets": [begin, end]}
        self._next = {name: entry["data_offsets"][0] for name, entry in self._header.items()}
        self._begin = 8 + -(-(len(json.dumps(self._header)) + room) // 8) * 8
        self._file = open(path, "wb")  # noqa: SIM115 (closed by `close`)
        self._file.truncate(self._begin + end)

    def append(self, name: str, rows: torch.Tensor) -> None:
        """Write the next rows of a tensor; `rows` is of its type."""
        content = rows.contiguous().numpy().tobytes()
        if self._next[name] + len(content) > self._header[name]["data_offsets"][1]:
            raise ValueError(f"{name} has more rows than were announced")
        self._file.seek(self._begin + self._next[name])
        self._file.write(content)
        self._next[name] += len(content)

    def finish(self, about: Mapping[str, str]) -> None:
        """Write the header, with these metadata; all tensors must be full."""
        if short := [name for name, entry in self._header.items() if self._next[name] != entry["data_offsets"][1]]:
            raise ValueError(f"{short[0]} has fewer rows than were announced")
        text = json.dumps({"__metadata__": dict(about), **self._header}).encode()
        if len(text) > self._begin - 8:
            raise ValueError(f"the metadata need {len(text)} bytes; {self._begin - 8} were kept free")
        self._file.seek(0)
        self._file.write((self._begin - 8).to_bytes(8, "little") + text.ljust(self._begin - 8))
        self.close()

    def close(self) -> None:
        """Close the file, whole or not."""
        self._file.close()


def under(tensors: Mapping[str, torch.Tensor], group: str) -> Tensors:
    """Return the tensors whose names begin with `group`, without that beginning."""
    return {name.removeprefix(group): value for name, value in tensors.items() if name.startswith(group)}


def hash_into(digest: Any, *tensors: torch.Tensor) -> None:
    """Feed the bytes of tensors to a hash, some rows at a time."""
    for tensor in tensors:
        for part in tensor.cpu().split(rows_at_once(tensor)):
            digest.update(memoryview(part.contiguous().numpy()).cast("B"))


def rows_at_once(tensor: torch.Tensor) -> int:
    """Return how many rows of a tensor come to 32 MB, at least one: so many are looked at together."""
    return max(1, 2**25 // max(1, math.prod(tensor.shape[1:]) * tensor.dtype.itemsize))


def sha256_of(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of tensors, one after the other."""
    digest = hashlib.sha256()
    hash_into(digest, *tensors)
    return digest.hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes; read once for each state that the file is in."""
    now = Path(path).stat()
    return _sha256_of_file(str(path), now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=32)
def _sha256_of_file(path: str, size: int, written: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what processes leave ----------------------------------------------------------------------------------------

DAY = 24 * 3600.0


@cache
def host() -> str:
    """Return what names this machine since its start and, in containers, this space of process numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8], os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


@cache
def host_mark() -> str:
    """Return `host` as eight letters of a file's name."""
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def scratch() -> Path:
    """Return this process's folder for what its workers share with it; it goes with the process.

    Raises
    ------
    NotWritten
        In one line, where the temporary folder cannot be written.
    """
    return _scratch(os.getpid())


@cache
def _scratch(process: int) -> Path:
    """A forked child has a folder of its own, and does not take its parent's away when it ends."""
    root = Path(tempfile.gettempdir())
    for left in root.glob("colt-work-*-*-*"):
        _, _, mark, number, *_ = left.name.split("-")
        if mark == host_mark() and not is_alive(number):  # others' numbers say nothing here
            shutil.rmtree(left, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"colt-work-{host_mark()}-{process}-"))
    except OSError as problem:
        raise NotWritten(root, problem) from None
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def is_alive(process: str) -> bool:
    """Tell whether a process number belongs to a living process of this machine."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
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


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time make a file; others wait. The lock lies beside it, and goes with the last."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with _opened(lock) as file, locked(file):
            if not _is_at(file, lock):  # the one before has taken it away while this one waited
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()
            return


def _opened(lock: Path) -> IO[bytes]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return open(lock, "ab")
    except OSError as problem:
        raise NotWritten(lock.parent, problem) from None


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove the temporary files that dead processes left in a folder: this machine's, or nobody's for a day."""
    for part in folder.glob(".*.part"):
        fields = part.name.split(".")
        ours = len(fields) > 4 and fields[-4] == host_mark()
        with suppress(OSError):  # another may sweep too
            if not is_alive(fields[-3]) if ours else time.time() - part.stat().st_mtime > DAY:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
