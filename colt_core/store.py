"""The store: a folder, or a bucket by fsspec URL, that any number of processes and machines share without a server."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from .files import _alive, locked, scratch, sweep, write_whole

EXPIRY = "COLT_CLAIM_SECONDS"  # after so many seconds without a sign of life a claim is void; 60 unless set


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
            self.local: Path | None = Path(text.split("://", 1)[-1])
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

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return (self.local / name).is_file() if self.local else bool(self.fs.isfile(self._at(name)))

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file."""
        try:
            return (self.local / name).read_bytes() if self.local else bytes(self.fs.cat_file(self._at(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, pattern: str) -> list[str]:
        """Return the names of the files that fit a glob pattern, sorted."""
        if self.local:
            return sorted(str(path.relative_to(self.local)) for path in self.local.glob(pattern))
        return sorted(str(found)[len(self.root) :].lstrip("/") for found in self.fs.glob(self._at(pattern)))

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
                self.fs.pipe_file(self._at(name), data)

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill a local file, and keep it under this name."""
        if self.local:
            write_whole(self.local / name, write)
            return
        between = scratch() / f"{uuid4().hex}{Path(name).suffix}"
        try:
            write(between)
            with self._plainly(name):
                self.fs.put_file(str(between), self._at(name))
        finally:
            between.unlink(missing_ok=True)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Lend a local path with the file's content; from a bucket it is a copy that goes afterwards."""
        if self.local:
            yield self.local / name
            return
        copy = scratch() / f"{uuid4().hex}-{Path(name).name}"
        try:
            with suppress(FileNotFoundError):
                self.fs.get_file(self._at(name), str(copy))
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.local:
                (self.local / name).unlink()
            else:
                self.fs.rm_file(self._at(name))

    def sweep(self, folder: str) -> None:
        """Remove the temporary files that dead processes of this machine left in a folder."""
        if self.local:
            sweep(self.local / folder)

    # --- records: JSON lines ---

    def lines(self, folder: str) -> list[dict[str, Any]]:
        """Return the records of a folder in the order of their writing; a torn last line is left out.

        A folder has them in `records.jsonl`; a bucket, which cannot append, as objects `record-<key>.jsonl`.
        """
        found = [self.read(f"{folder}/records.jsonl")]
        if not self.local:
            found += [self.read(name) for name in self.names(f"{folder}/record-*.jsonl")]
        return [json.loads(line) for text in found if text for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def append(self, folder: str, record: dict[str, Any], key: tuple[str, ...]) -> None:
        """Add a record, unless one with the same values of `key` is there; mend a torn last line first."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        if not self.local:
            name = "-".join(f"{record.get(k):03}" if k == "round" else str(record.get(k)) for k in key)
            self.write(f"{folder}/record-{''.join(c if c.isalnum() else '-' for c in name)}.jsonl", line)
            return
        path = self.local / folder / "records.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab+") as file, locked(file):
                file.seek(0)
                content = file.read()
                whole = content[: content.rfind(b"\n") + 1]
                known = (json.loads(old) for old in whole.splitlines())
                if any(all(old.get(k) == record.get(k) for k in key) for old in known):
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
            raise OSError(f"{path} cannot be written ({problem.strerror})") from None

    @contextmanager
    def _plainly(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as problem:  # every kind of bucket has errors of its own
            raise OSError(f"{self.url}/{name} cannot be written ({_first_line(problem)})") from None

    # --- claims ---

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return who holds a claim, or None where it is free or its holder is dead or silent."""
        claim = self._claim(name)
        return None if claim is None or self._void(name, claim) else claim

    @contextmanager
    def claim(self, name: str, until: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Hold a claim while the block runs, with a sign of life every few seconds.

        Parameters
        ----------
        name
            What is claimed.
        until
            None: do not wait for another holder. Else wait, until the claim is free or this tells that it is no longer
            needed.

        Yields
        ------
        bool
            Whether it is held. Where a file system has no exclusive create, two may hold it: the work is done twice,
            with the same bytes.
        """
        token = uuid4().hex
        held = self._take(name, token)
        while not held and until is not None and not until():
            time.sleep(0.1)
            held = self._take(name, token)
        if not held:
            yield False
            return
        ended = threading.Event()
        beating = threading.Thread(target=self._beat, args=(name, token, ended), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            ended.set()
            beating.join()
            if (self._claim(name) or {}).get("token") == token:
                with suppress(OSError):
                    self.remove(f"{name}.claim")
                    if self.local and "/" in name:
                        (self.local / name).parent.rmdir()  # if nothing came of it: a folder with files in it stays

    def _take(self, name: str, token: str) -> bool:
        about = json.dumps(_who() | {"token": token, "beat": 0, "since": time.time()}).encode()
        claim = self._claim(name)
        if claim is not None:
            if not self._void(name, claim):
                return False
            self._clear(name, claim)
        path = f"{name}.claim"
        if self.local:
            return self._link_new(self.local / path, about)
        try:
            self.fs.pipe_file(self._at(path), about, mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError, ValueError):  # this kind of bucket has no exclusive create
            self.write(path, about)
        return True

    @staticmethod
    def _link_new(path: Path, about: bytes) -> bool:
        """Create a file exclusively with its whole content at once: nobody ever reads half a claim."""
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(about)
            try:
                os.link(part, path)
            except FileExistsError:
                return False
            except OSError:  # no hard links here
                try:
                    with open(path, "xb") as file:
                        file.write(about)
                except FileExistsError:
                    return False
            return True
        except OSError as problem:
            raise OSError(f"{path} cannot be written ({problem.strerror})") from None
        finally:
            with suppress(OSError):
                part.unlink()

    def _claim(self, name: str) -> dict[str, Any] | None:
        text = self.read(f"{name}.claim")
        try:
            return None if text is None else dict(json.loads(text))
        except ValueError:
            return {"token": text.hex() if text else ""}  # damaged: it expires like a silent one

    def _void(self, name: str, claim: dict[str, Any]) -> bool:
        """Tell whether a claim's holder is dead (on this machine) or has not been heard of for long, by our clock."""
        own = _who()
        if claim.get("host") == own["host"] and not _alive(str(claim.get("pid"))):
            return True
        heard = (claim.get("token"), claim.get("beat"))
        last, since = _HEARD.get((self.url, name), (None, 0.0))
        if last != heard:
            _HEARD[self.url, name] = heard, time.monotonic()
            return False
        return time.monotonic() - since > _expiry()

    def _clear(self, name: str, claim: dict[str, Any]) -> None:
        """Take a void claim away, and none that has replaced it meanwhile."""
        if not self.local:
            self.remove(f"{name}.claim")
            return
        aside = self.local / f"{name}.{uuid4().hex[:8]}.claim-void"
        with suppress(FileNotFoundError):
            (self.local / f"{name}.claim").rename(aside)
            with suppress(OSError, ValueError):
                if json.loads(aside.read_bytes()).get("token") != claim.get("token"):
                    os.link(aside, self.local / f"{name}.claim")  # a new holder's: put back
            aside.unlink()

    def _beat(self, name: str, token: str, ended: threading.Event) -> None:
        """Give signs of life until the claim ends or is another's."""
        while not ended.wait(_expiry() / 6):
            claim = self._claim(name)
            if claim is None or claim.get("token") != token or ended.is_set():
                return
            with suppress(OSError):
                self.write(f"{name}.claim", json.dumps(claim | {"beat": claim["beat"] + 1}))


_HEARD: dict[tuple[str, str], tuple[Any, float]] = {}  # by claim: what was last heard of it, and when, by our clock


def open_store(place: "Store | str | Path | None" = None) -> Store:
    """Return the store: the one given, else `$COLT_STORE`, else `runs`; a folder, or an fsspec URL (s3://bucket/x).

    Raises
    ------
    ValueError
        For a URL whose kind is unknown or whose library is not installed.
    """
    return place if isinstance(place, Store) else Store(place or os.environ.get("COLT_STORE") or "runs")


@lru_cache(maxsize=8)
def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # not at the top: only buckets need it

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as problem:
        raise ValueError(f"the store {url!r} cannot be opened: {_first_line(problem)}") from None
    return fs, str(root).rstrip("/")


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def _expiry() -> float:
    return float(os.environ.get(EXPIRY) or 60)


def _who() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid()}


@cache
def _host() -> str:
    """Return what names this machine since its start and, in containers, this space of process numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8], os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
