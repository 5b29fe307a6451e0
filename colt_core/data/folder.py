"""A user's folder of class folders: its pictures, and a stamp that tells whether they have changed."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .images import UNLABELLED
from .notes import endings_of
from .pictures import endings, is_picture, shown
from .streaming import Item, Part, Raw

VALIDATION = ("val", "valid", "validation")  # what the folder of a validation split may be called
SPLITS = {"train", "training", "test", "testing", "dev", "eval", *VALIDATION}  # in whatever case


def raw_folder(root: Path) -> Raw:
    """Return a folder's pictures, and classes in sorted order of their folders' names.

    Class folders lie in it directly, or below `train/` and `test/`, and `val/` (`valid/`, `validation/`) for a
    validation split; without `test/`, `val/` is the test set. What is no picture is left out, and counted. Pictures
    that lie there in no folder of their own, and no folder beside them, have no labels: `UNLABELLED` is their class.

    Raises
    ------
    ValueError
        In one line: a single class folder, no picture at all, a class folder without one, parts with other classes.
    """
    with _readable(root):
        folders = _parts(root)
        found = {what: _classes_of(folder) for what, folder in folders.items()}
    classes = tuple(found["train"])
    for what, pictures in found.items():
        if tuple(pictures) != classes:
            odd = sorted(set(classes) ^ set(pictures))[0]
            place = f"train/ and {folders[what].name}/"
            raise ValueError(f"{shown(root)}: {place} have different class folders, {odd!r} for example")
        _check_pictures(folders[what], pictures, alone=len(found) == 1)
    skipped = endings_of(
        [os.path.basename(path) for part in found.values() for _, left in part.values() for path in left]
    )
    parts = {what: _part([paths for paths, _ in pictures.values()]) for what, pictures in found.items()}
    splits = parts["train"], parts.get("test"), parts.get("validation")
    return Raw(*splits, classes, colour=True, skipped=skipped, root=f"{shown(root)}{os.sep}")


def stamp_of(root: Path) -> str:
    """Return a SHA-256 over the paths, sizes and times of all files that `raw_folder` would read; it opens none.

    The time of a file's last change of any kind counts too: a copy put in its place may bring the old time along.
    """
    digest = hashlib.sha256()
    with _readable(root):
        for folder in (folder for part in _parts(root).values() for folder in _class_folders(part) or [part]):
            digest.update(os.fsencode(folder) + b"\0")
            for entry in sorted(_files(folder), key=lambda entry: entry.path):
                if _may_be_picture(entry.path):
                    stamp_into(digest, entry)
    return digest.hexdigest()


def stamp_into(digest: "hashlib._Hash", entry: "os.DirEntry[str]") -> None:
    """Feed a file's path, size and times to a hash."""
    now = entry.stat()
    digest.update(os.fsencode(entry.path))
    digest.update(b"\0%d %d %d\0" % (now.st_size, now.st_mtime_ns, now.st_ctime_ns))


def stamp_of_all(root: Path) -> str:
    """Return a SHA-256 over the paths, sizes and times of all files below a folder, but hidden ones."""
    digest = hashlib.sha256()
    with _readable(root):
        for entry in sorted(_files(root), key=lambda entry: entry.path):
            stamp_into(digest, entry)
    return digest.hexdigest()


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as problem:
        raise ValueError(f"{shown(problem.filename or root)} cannot be read ({problem.strerror})") from None


def _parts(root: Path) -> dict[str, Path]:
    """Return the folders of class folders: "train", and "test" and "validation" where they are."""
    named = {folder.name.lower(): folder for folder in reversed(_class_folders(root))}
    train, test = named.get("train"), named.get("test")
    held_out = next((named[name] for name in VALIDATION if name in named), None)
    if train and test:
        return {"train": train, "test": test} | ({"validation": held_out} if held_out else {})
    if train and held_out:
        return {"train": train, "test": held_out}
    if len(named) > 1 and named.keys() <= SPLITS and all(any(_class_folders(folder)) for folder in named.values()):
        about = "are no classes: call the training set's train, the test set's test, a validation set's val"
        raise ValueError(f"{shown(root)}: the folders {', '.join(f.name for f in _class_folders(root))} {about}")
    return {"train": train if train and len(named) == 1 else root}


def _class_folders(root: Path) -> list[Path]:
    """Return the folders in a folder, but hidden ones and the one that macOS puts into archives."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


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


def _may_be_picture(path: str) -> bool:
    """Tell by a file's name whether it is a picture, or may be one for all that its name says."""
    ending = os.path.splitext(path)[1].lower()
    return not ending or ending in endings()


def _classes_of(root: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each class folder the paths of its pictures, and of files that are none."""
    folders = _class_folders(root)
    unlabelled = not folders and any(_may_be_picture(entry.path) for entry in _files(root))
    if len(folders) < 2 and not unlabelled:
        raise ValueError(f"{shown(root)} holds {len(folders)} class folder(s); at least two are needed")
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, folder in [(UNLABELLED[0], root)] if unlabelled else [(folder.name, folder) for folder in folders]:
        pictures, left = found.setdefault(name, ([], []))
        for path in sorted((entry.path for entry in _files(folder)), key=lambda path: path.split(os.sep)):
            named = os.path.splitext(path)[1]
            (pictures if _may_be_picture(path) and (named or is_picture(path)) else left).append(path)
    return found


def _check_pictures(root: Path, found: dict[str, tuple[list[str], list[str]]], alone: bool) -> None:
    for name, (pictures, left) in found.items():
        if not pictures:
            other = f" ({len(left)} file(s) that are none)" if left else ""
            raise ValueError(f"{shown(root)}: class folder {name!r} holds no picture{other}")
        if alone and len(pictures) < 3:
            raise ValueError(f"{shown(root)}: class folder {name!r} holds fewer than three images")


def _part(classes: Sequence[Sequence[str]]) -> Part:
    def read() -> Iterator[Item]:
        for label, paths in enumerate(classes):
            for path in paths:
                yield shown(path), Path(path), label

    return Part(sum(map(len, classes)), read)
