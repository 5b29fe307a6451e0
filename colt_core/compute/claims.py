"""Claims on a store: who works on what, with signs of life; a dead or silent holder's claim is void."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from ..files import NotWritten, host, is_alive, part_of
from ..training.loop import is_held

EXPIRY = "COLT_CLAIM_SECONDS"  # after so many seconds without a sign of life a claim is void; 60 unless set
PATIENCE = 20.0  # seconds of waiting after which it is said for whom


class Files(Protocol):
    """What claims need of a store."""

    local: Path | None
    url: str
    fs: Any

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None."""

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file whole or not at all."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def at(self, name: str) -> str:
        """Return a file's place in a bucket."""


def holder(store: Files, name: str) -> dict[str, Any] | None:
    """Return who holds a claim, or None where it is free or its holder is dead or silent."""
    claim = _claim(store, name)
    return None if claim is None or _void(store, name, claim) else claim


def tidy(store: Files, name: str) -> None:
    """Take away what a holder that died left: it was killed after its work was done, before it let go."""
    claim = _claim(store, name)
    if claim is not None and _void(store, name, claim):
        _clear(store, name, claim)


@contextmanager
def hold(store: Files, name: str, until: Callable[[], bool] | None = None) -> Iterator[bool]:
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
    expiry()  # a mistake there is told here, not in a thread
    token = uuid4().hex  # tells this holder from an earlier one of the same process
    # Signs of life come from a thread of their own: a training may hold this one for minutes.
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(store, name, token, ended), daemon=True)
    try:  # from before it is taken: an interrupt at any moment must not leave a claim that beats on for ever
        held, waiting = _take(store, name, token), _Waiting(store, name)
        while not held and until is not None and not until():
            waiting.tell()
            time.sleep(0.1)
            held = _take(store, name, token)
        if held:
            beating.start()
        yield held
    finally:
        ended.set()
        try:
            if beating.ident is not None:  # it was started
                beating.join()
        finally:
            _let_go(store, name, token)


class _Waiting:
    """Says once who is waited for: at once where that run is paused, which may last for ever, else after a while."""

    def __init__(self, store: Files, name: str) -> None:
        self.store, self.name, self.since, self.said = store, name, time.monotonic(), False

    def tell(self) -> None:
        if self.said or (claim := _claim(self.store, self.name)) is None:
            return
        paused = bool(claim.get("paused"))
        if paused or time.monotonic() - self.since > PATIENCE:
            self.said = True
            who = f"process {claim.get('pid')} on {str(claim.get('host')).split(' ')[0]}"
            how = " and which is paused there: continue or stop it there, or end that process" if paused else ""
            logging.getLogger("colt_core").warning(f"waiting for {self.name}, which {who} holds{how}")


def _let_go(store: Files, name: str, token: str) -> None:
    """Remove a claim if it is still this holder's."""
    if (_claim(store, name) or {}).get("token") != token:
        return
    with suppress(OSError):
        store.remove(f"{name}.claim")
        if store.local and "/" in name:
            (store.local / name).parent.rmdir()  # if nothing came of it: a folder with files in it stays


def _take(store: Files, name: str, token: str) -> bool:
    about = json.dumps(_who() | {"token": token, "beat": 0, "since": time.time()}).encode()
    claim = _claim(store, name)
    if claim is not None:
        if not _void(store, name, claim):
            return False
        _clear(store, name, claim)
    path = f"{name}.claim"
    if store.local:
        return _link_new(store.local / path, about)
    try:
        store.fs.pipe_file(store.at(path), about, mode="create")
    except FileExistsError:
        return False
    except (TypeError, NotImplementedError, ValueError):  # this kind of bucket has no exclusive create
        store.write(path, about)
    return True


def _link_new(path: Path, about: bytes) -> bool:
    """Create a file exclusively with its whole content at once: nobody ever reads half a claim."""
    part = part_of(path)
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
        raise NotWritten(path, problem) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _claim(store: Files, name: str) -> dict[str, Any] | None:
    text = store.read(f"{name}.claim")
    return None if text is None else _parsed(text)


def _parsed(text: bytes) -> dict[str, Any]:
    """Return what a claim says; one that is damaged says nothing, and expires like a silent one."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return {"token": text.hex()}


def _void(store: Files, name: str, claim: dict[str, Any]) -> bool:
    """Tell whether a claim's holder is dead (on this machine) or has not been heard of for long, by our clock."""
    own = _who()
    if claim.get("host") == own["host"] and not is_alive(str(claim.get("pid"))):
        return True
    # Clocks of two machines may differ, so what counts is how long its beat has not changed by ours.
    heard = (claim.get("token"), claim.get("beat"))
    last, since = _HEARD.get((store.url, name), (None, 0.0))
    if last != heard:
        _HEARD[store.url, name] = heard, time.monotonic()
        return False
    return time.monotonic() - since > expiry()


def _clear(store: Files, name: str, claim: dict[str, Any]) -> None:
    """Take a void claim away, and none that has replaced it meanwhile."""
    if not store.local:
        store.remove(f"{name}.claim")
        return
    # Renaming is atomic: of two that find it void, one alone moves it away.
    aside = store.local / f"{name}.{uuid4().hex[:8]}.claim-void"
    with suppress(FileNotFoundError):
        (store.local / f"{name}.claim").rename(aside)
        with suppress(OSError):
            if _parsed(aside.read_bytes()).get("token") != claim.get("token"):
                os.link(aside, store.local / f"{name}.claim")  # a new holder's: put back
        aside.unlink()


def _beat(store: Files, name: str, token: str, ended: threading.Event) -> None:
    """Give signs of life until the claim ends or is another's."""
    while not ended.wait(expiry() / 6):
        claim = _claim(store, name)
        if claim is None or claim.get("token") != token or ended.is_set():
            return
        with suppress(OSError):
            beat = claim | {"beat": claim["beat"] + 1, "paused": is_held()}
            store.write(f"{name}.claim", json.dumps(beat))


_HEARD: dict[tuple[str, str], tuple[Any, float]] = {}  # by claim: what was last heard of it, and when, by our clock


def expiry() -> float:
    """Return after how many seconds without a sign of life a claim is void.

    Raises
    ------
    ValueError
        If `$COLT_CLAIM_SECONDS` is no positive number.
    """
    wanted = os.environ.get(EXPIRY) or "60"
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"{EXPIRY} must be a positive number of seconds, not {wanted!r}")
    return seconds


def _who() -> dict[str, Any]:
    return {"host": host(), "pid": os.getpid()}
