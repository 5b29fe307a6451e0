"""Where prepared data lies, made once, by whichever process comes first; `prepared()` shows it, `forget()` removes."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import Damaged, alone, open_tensors, sweep, write_whole
from ..settings import shown

if TYPE_CHECKING:
    import pandas

COLUMNS = ("name", "MB", "images", "classes", "made", "used", "file")


def data_folder() -> Path:
    """Return where prepared data lies: `$COLT_DATA`, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("COLT_DATA") or Path(cache) / "colt")


def prepared_path(name: str, key: Sequence[object]) -> Path:
    """Return where a data set lies that is prepared from `key`: its source, the source's stamp, the size, ..."""
    mark = hashlib.sha256(json.dumps([str(one) for one in key]).encode()).hexdigest()[:16]
    return data_folder() / "prepared" / f"{label(name)}-{mark}.safetensors"


def label(name: str) -> str:
    """Return a data set's name as the beginning of a file's name: short, and a letter first."""
    text = re.sub(r"[^A-Za-z0-9_]+", "-", name.rstrip("/").rpartition("/")[2]).strip("-_")[:40] or "data"
    return text if text[0].isalpha() else f"data-{text}"


def make_once(path: Path, begin: Callable[[], Callable[[Path], object]]) -> Path:
    """Make a file unless it is there: one process does, others wait for it; nothing half-done is left.

    `begin` finds out what there is to write, and returns what fills the file. What killed processes have left of other
    files is swept away first.
    """
    if not path.exists():
        with alone(path):
            if not path.exists():
                sweep(path.parent)
                write_whole(path, begin())
    return path


def touch(path: Path) -> None:
    """Note that a file was used now; the time of its last change stays, by which other processes know its content."""
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def prepared() -> "pandas.DataFrame":
    """Return what lies prepared on this machine: data sets that were downloaded, decoded or given once.

    To remove one: `colt_core.data.forget(name)`, or delete its file. It is prepared anew when it is next loaded, but a
    set whose name begins with "own:" must be given again. Downloads lie in `$COLT_DATA/downloads`, and are not needed
    once a set is prepared.

    Returns
    -------
    pandas.DataFrame
        A row a file: name, size in MB, number of images and of classes, when it was made and last used, and the file.
    """
    import pandas

    return pandas.DataFrame([row for path in _files() if (row := _row(path))], columns=list(COLUMNS))


def forget(name: str) -> None:
    """Remove a prepared data set: all files of this name, or the one file of this path, as `prepared` shows them.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [row["file"] for path in _files() if (row := _row(path)) and str(name) in (row["name"], row["file"])]
    if not found:
        raise ValueError(f"no prepared data set is called {shown(name)}; colt_core.data.prepared() shows all")
    for file in found:
        Path(file).unlink(missing_ok=True)


def _files() -> list[Path]:
    folder = data_folder()
    return sorted(p for place in (folder, folder / "prepared", folder / "own") for p in place.glob("*.safetensors"))


def _row(path: Path) -> dict[str, Any] | None:
    """Return what a file's header says; None where it is no data set."""
    try:
        with open_tensors(path) as file:
            about = file.metadata() or {}
            counts = [file.get_slice(k).get_shape()[0] for k in file.keys() if k.endswith("_labels")]  # noqa: SIM118
            classes = len(json.loads(about["classes"]))
        now = path.stat()
    except (Damaged, KeyError, ValueError, OSError):
        return None
    named = f"own:{path.stem}" if path.parent.name == "own" else about.get("name", path.stem)
    times = [datetime.fromtimestamp(seconds).replace(microsecond=0) for seconds in (now.st_mtime, now.st_atime)]
    values = (named, round(now.st_size / 1e6, 1), sum(counts), classes, times[0], max(times), str(path))
    return dict(zip(COLUMNS, values, strict=True))
