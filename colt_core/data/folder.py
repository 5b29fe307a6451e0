"""A user's folder of class folders: its pictures, and a stamp that tells whether they have changed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .images import Images
from .partition import split_validation
from .pictures import RESIZE, decode, shown


def read_folder(root: Path, size: int | None, seed: int) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return a folder's tensors and class names: classes in sorted order of their folders' names."""
    with _readable(root):
        parts = [_read_classes(part, size) for part in _parts(root)]
    train, classes = parts[0]
    if len(parts) == 1:
        train, test = split_validation(train, 0.2, seed)
    else:
        test, other = parts[1]
        if other != classes:
            raise ValueError(f"{shown(root)}: train/ and test/ have different class folders")
        if test.shape != train.shape:
            raise ValueError(f"{shown(root)}: train/ and test/ have images of different sizes; {RESIZE}")
    return {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }, classes


def stamp_of(root: Path) -> str:
    """Return a SHA-256 over the paths, sizes and times of all files that `read_folder` would read; it opens none.

    The time of a file's last change of any kind counts too: a copy put in its place may bring the old time along.
    """
    digest = hashlib.sha256()
    with _readable(root):
        for folder in (folder for part in _parts(root) for folder in _class_folders(part)):
            digest.update(os.fsencode(folder) + b"\0")
            for entry in sorted(_files(folder), key=lambda entry: entry.path):
                now = entry.stat()
                digest.update(os.fsencode(entry.path))
                digest.update(b"\0%d %d %d\0" % (now.st_size, now.st_mtime_ns, now.st_ctime_ns))
    return digest.hexdigest()


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as problem:
        raise ValueError(f"{shown(problem.filename or root)} cannot be read ({problem.strerror})") from None


def _parts(root: Path) -> list[Path]:
    parts = [root / "train", root / "test"]
    return parts if all(part.is_dir() for part in parts) else [root]


def _class_folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """Yield the files below a folder, but hidden ones; links are followed to files, not into folders."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.name.startswith("."):
                continue
            elif entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
                yield entry


def _read_classes(root: Path, size: int | None) -> tuple[Images, tuple[str, ...]]:
    folders = _class_folders(root)
    if len(folders) < 2:
        raise ValueError(f"{shown(root)} holds {len(folders)} class folder(s); at least two are needed")
    files = {f: sorted(Path(entry.path) for entry in _files(f)) for f in folders}
    if empty := [f.name for f, inside in files.items() if len(inside) < 3]:
        raise ValueError(f"{shown(root)}: class folder {empty[0]!r} holds fewer than three images")
    paths = [p for inside in files.values() for p in inside]
    labels = torch.tensor([i for i, inside in enumerate(files.values()) for _ in inside])
    classes = tuple(f.name for f in folders)
    return Images(decode(len(paths), paths, size), labels, classes, (0.0,) * 3, (1.0,) * 3), classes
