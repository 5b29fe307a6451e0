"""The store: a folder, or a bucket by fsspec URL, that any number of processes and machines share without a server."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch

from ..files import NotWritten, locked, save_tensors, scratch, sweep, write_whole
from ..settings import first_line
from . import claims

T = TypeVar("T")
SEAL = "sha256"  # of a record's line: over everything else in it


class Store:
    """Files by name (`<experiment>/records.jsonl`), written whole or not at all.

    Attributes
    ----------
    url
        What names it for other processes: an absolute path, or an fsspec URL.
    local
        The folder; None for a bucket.
    """

    def __init__(self, place: str | Path) -> None:
        text = str(place)
        if "://" not in text or text.startswith(("file://", "local://")):
            self.local: Path | None = Path(text.split("://", 1)[-1]).expanduser()
            self.url = str(self.local.absolute())
            return
        self.local, self.url = None, text.rstrip("/")
        self.fs, self.root = _file_system(self.url)

    @property
    def private(self) -> bool:
        """Whether no other process can see it (fsspec's `memory://`)."""
        return self.url.startswith("memory://")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def at(self, name: str) -> str:
        """Return a file's place in a bucket."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return (self.local / name).is_file() if self.local else bool(self.fs.isfile(self.at(name)))

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file."""
        try:
            return (self.local / name).read_bytes() if self.local else bytes(self.fs.cat_file(self.at(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def changed(self, name: str) -> float | None:
        """Return when a file was last written, in seconds since 1970; None where nobody can say."""
        try:
            if self.local:
                return (self.local / name).stat().st_mtime
            return float(self.fs.modified(self.at(name)).timestamp())
        except (OSError, NotImplementedError, KeyError):
            return None

    def names(self, pattern: str) -> list[str]:
        """Return the names of the files that fit a glob pattern, sorted."""
        if self.local:
            return sorted(str(path.relative_to(self.local)) for path in self.local.glob(pattern))
        return sorted(str(found)[len(self.root) :].lstrip("/") for found in self.fs.glob(self.at(pattern)))

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file whole or not at all.

        Raises
        ------
        OSError
            In one line, where the store cannot be written.
        """
        data = content.encode() if isinstance(content, str) else content
        if self.local:
            write_whole(self.local / name, lambda part: part.write_bytes(data))
        else:
            with self._plainly(name):
                self.fs.pipe_file(self.at(name), data)

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill a local file, and keep it under this name."""
        if self.local:
            write_whole(self.local / name, write)
            return
        between = scratch() / f"{uuid4().hex}{Path(name).suffix}"
        try:
            write(between)
            with self._plainly(name):
                self.fs.put_file(str(between), self.at(name))
        finally:
            between.unlink(missing_ok=True)

    def save_tensors(self, name: str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
        """Keep tensors and metadata under this name."""
        self.save(name, lambda path: save_tensors(path, tensors, about))

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Lend a local path with the file's content; from a bucket it is a copy that goes afterwards."""
        if self.local:
            yield self.local / name
            return
        copy = scratch() / f"{uuid4().hex}-{Path(name).name}"
        try:
            with suppress(FileNotFoundError):
                self.fs.get_file(self.at(name), str(copy))
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.local:
                (self.local / name).unlink()
            else:
                self.fs.rm_file(self.at(name))

    def sweep(self, folder: str) -> None:
        """Remove the temporary files that dead processes of this machine left in a folder."""
        if self.local:
            sweep(self.local / folder)

    # --- records: JSON lines ---

    def lines(self, folder: str) -> list[dict[str, Any]]:
        """Return the records of a folder in the order of their writing; a torn last line is left out.

        A folder has them in `records.jsonl`; a bucket, which cannot append, as objects `record-<key>.jsonl`.

        Raises
        ------
        ValueError
            In one line that names the file and the line, where one is no record or has been altered.
        """
        names = [f"{folder}/records.jsonl"]
        names += [] if self.local else self.names(f"{folder}/record-*.jsonl")
        found = []
        for name in names:
            text = self.read(name) or b""
            found += _records(text[: text.rfind(b"\n") + 1], f"{self.url}/{name}")
        return found

    def append(self, folder: str, record: dict[str, Any], key: tuple[str, ...]) -> None:
        """Add a record, unless one with the same values of `key` is there; mend a torn last line first."""
        line = json.dumps(record | {SEAL: _seal(record)}, allow_nan=False).encode() + b"\n"
        if not self.local:
            told = {k: record.get(k) for k in key if k in record or k != "scored_by"}
            name = "-".join(f"{value:03}" if k == "round" else str(value) for k, value in told.items())
            plain = "".join(c if c.isalnum() else "-" for c in name)
            if plain != name:  # another name may become the same one
                plain += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
            self.write(f"{folder}/record-{plain}.jsonl", line)
            return
        path = self.local / folder / "records.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab+") as file, locked(file):
                file.seek(0)
                content = file.read()
                whole = content[: content.rfind(b"\n") + 1]  # what a killed process left half written goes
                if any(all(old.get(k) == record.get(k) for k in key) for old in _records(whole, str(path))):
                    return
                file.truncate(len(whole))
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):  # a full disk: no half line
                        os.ftruncate(file.fileno(), len(whole))
                    raise
        except OSError as problem:
            raise NotWritten(path, problem) from None

    @contextmanager
    def _plainly(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as problem:  # every kind of bucket has errors of its own
            raise NotWritten(f"{self.url}/{name}", problem) from None

    # --- claims (see `claims`) ---

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return who holds a claim, or None where it is free or its holder is dead or silent."""
        return claims.holder(self, name)

    def claim(self, name: str, until: Callable[[], bool] | None = None) -> AbstractContextManager[bool]:
        """Hold a claim while the block runs, with a sign of life every few seconds; see `claims.hold`."""
        return claims.hold(self, name, until)

    def once(self, name: str, known: Callable[[], T | None], work: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yield what is known, else what the work yields: one process does it, the others wait for its result.

        Parameters
        ----------
        name
            What is claimed.
        known
            Looks the result up; None where there is none yet, or it is damaged. The work must leave it there.
        work
            Yields what there is to tell meanwhile, the result last.
        """
        while True:
            if (found := known()) is not None:
                claims.tidy(self, name)
                yield found
                return
            with self.claim(name, until=lambda: known() is not None) as mine:
                if mine and known() is None:  # another may have finished just before it was ours
                    yield from work()
                    return


def open_store(place: "Store | str | Path | None" = None) -> Store:
    """Return the store: the one given, else `$COLT_STORE`, else `runs`; a folder, or an fsspec URL (s3://bucket/x).

    Raises
    ------
    ValueError
        For a URL whose kind is unknown or whose library is not installed; for a file.
    """
    found = place if isinstance(place, Store) else Store(place or os.environ.get("COLT_STORE") or "runs")
    if found.local and os.path.isfile(found.url):
        raise ValueError(f"the store {found.url} is a file, and a folder is needed")
    return found


def _records(text: bytes, place: str) -> list[dict[str, Any]]:
    """Return the records of whole lines, their seals verified; lines of older versions have none."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            if not (isinstance(record["kind"], str) and isinstance(record["round"], int)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{place}, line {number}, is no record: restore it, or remove its folder") from None
        seal = record.pop(SEAL, None)
        if seal is not None and seal != _seal(record):
            raise ValueError(f"{place}, line {number}, has been altered: its checksum differs")
        found.append(record)
    return found


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # not at the top: only buckets need it

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as problem:
        raise ValueError(f"the store {url!r} cannot be opened: {first_line(problem)}") from None
    return fs, str(root).rstrip("/")
