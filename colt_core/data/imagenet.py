"""ImageNet at 64 pixels, from the official archives or folders: never downloaded, prepared once, streamed.

In `$COLT_DATA/downloads/imagenet` lie `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and
`ILSVRC2012_devkit_t12.tar.gz`; or, unpacked, `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, or `val/*.JPEG` beside the
development kit. The validation images are the test set. Classes are the wnids in sorted order.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..files import alone, sweep, write_whole
from .pictures import shown
from .shelf import data_folder
from .streaming import Item, Part, Raw, write_raw

SIZE = 64
TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"
ANSWERS, META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"


def prepare_imagenet(name: str) -> Path:
    """Write `$COLT_DATA/<name>.safetensors`, whole or not at all.

    Raises
    ------
    ValueError
        In one line, where the archives are missing or damaged.
    """
    root, target = data_folder() / "downloads" / "imagenet", data_folder() / f"{name}.safetensors"
    with alone(target):
        if not target.exists():
            sweep(target.parent)
            with _whole(root):
                raw = raw_imagenet(root)
            write_whole(target, lambda part: write_raw(part, raw, name, SIZE))
    return target


def raw_imagenet(root: Path) -> Raw:
    """Return the pictures of ImageNet's archives or folders; see above."""
    if (root / TRAIN).is_file():
        counts = _counts(root / TRAIN)
        wnids = tuple(sorted(counts))
        train = Part(sum(counts.values()), lambda: _of_tars(root / TRAIN, wnids))
    elif (root / "train").is_dir():
        wnids = tuple(sorted(entry.name for entry in os.scandir(root / "train") if entry.is_dir()))
        paths = [(path, i) for i, wnid in enumerate(wnids) for path in _jpegs(root / "train" / wnid)]
        train = Part(len(paths), lambda: ((shown(path), path, label) for path, label in paths))
    else:
        raise ValueError(
            f"imagenet-64 is not downloaded for you: put {TRAIN}, {VAL} and {KIT}.tar.gz into {shown(root)}"
        )
    return Raw(train, test=_test(root, wnids), classes=wnids, colour=True, root=f"{shown(root)}{os.sep}")


@contextmanager
def _whole(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, tarfile.TarError) as problem:
        raise ValueError(f"{shown(root)} holds a damaged archive, or cannot be read ({problem})") from None


def _jpegs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))


def _counts(path: Path) -> dict[str, int]:
    """Return the number of pictures of each class in the archive of archives."""
    found = {}
    with tarfile.open(path) as outer:
        for member in outer:
            if member.isfile():
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    found[_stem(member.name)] = sum(one.isfile() for one in inner)
    return found


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _of_tars(path: Path, wnids: tuple[str, ...]) -> Iterator[Item]:
    with tarfile.open(path) as outer:
        members = {_stem(member.name): member for member in outer if member.isfile()}
        for label, wnid in enumerate(wnids):
            with tarfile.open(fileobj=outer.extractfile(members[wnid])) as inner:
                for member in _sorted_files(inner):
                    yield member.name, _content(inner, member), label


def _sorted_files(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    return sorted((one for one in archive if one.isfile()), key=lambda one: one.name)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file
    return io.BytesIO(file.read())


def _test(root: Path, wnids: tuple[str, ...]) -> Part:
    """Return the official validation images, in the order of their files' names."""
    numbers = {wnid: i for i, wnid in enumerate(wnids)}
    if (root / VAL).is_file():
        with tarfile.open(root / VAL) as archive:
            names = [member.name for member in _sorted_files(archive)]
        labels = _answers(root, numbers, len(names))
        return Part(len(names), lambda: _of_tar(root / VAL, labels))
    if not (root / "val").is_dir():
        raise ValueError(f"{shown(root)} lacks {VAL}, or a folder val")
    if flat := _jpegs(root / "val"):
        labels = _answers(root, numbers, len(flat))
        return Part(len(flat), lambda: ((shown(p), p, label) for p, label in zip(flat, labels, strict=True)))
    folders = sorted(entry.name for entry in os.scandir(root / "val") if entry.is_dir())
    if odd := [name for name in folders if name not in numbers]:
        raise ValueError(f"{shown(root)}: val/ has a class folder {odd[0]!r} that train/ lacks")
    found = sorted(((p, numbers[f]) for f in folders for p in _jpegs(root / "val" / f)), key=lambda one: one[0].name)
    return Part(len(found), lambda: ((shown(path), path, label) for path, label in found))


def _of_tar(path: Path, labels: list[int]) -> Iterator[Item]:
    with tarfile.open(path) as archive:
        for member, label in zip(_sorted_files(archive), labels, strict=True):
            yield member.name, _content(archive, member), label


def _answers(root: Path, numbers: dict[str, int], count: int) -> list[int]:
    """Return the labels of the validation images, as the development kit has them."""
    wnids = _wnids(_kit(root, META))
    lines = _kit(root, ANSWERS).decode().split()
    if len(lines) != count:
        raise ValueError(f"{shown(root)}: {len(lines):,} answers for {count:,} validation images")
    try:
        return [numbers[wnids[int(line)]] for line in lines]
    except (KeyError, ValueError) as problem:
        raise ValueError(f"{shown(root)}: the development kit names a class {problem} that train lacks") from None


def _kit(root: Path, name: str) -> bytes:
    """Return a file of the development kit, unpacked or not."""
    if (plain := root / KIT / name).is_file():
        return plain.read_bytes()
    if not (root / f"{KIT}.tar.gz").is_file():
        raise ValueError(f"{shown(root)} lacks {KIT}.tar.gz, which says what the validation images show")
    with tarfile.open(root / f"{KIT}.tar.gz") as archive:
        try:
            return _content(archive, archive.getmember(f"{KIT}/{name}")).read()
        except KeyError:
            raise ValueError(f"{shown(root)}: {KIT}.tar.gz lacks {name}") from None


def _wnids(meta: bytes) -> dict[int, str]:
    """Return the wnids of the classes by their numbers in the development kit; those above them are left out."""
    from scipy.io import loadmat

    table: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    rows = zip(table["ILSVRC2012_ID"], table["WNID"], table["num_children"], strict=True)
    return {int(number): str(wnid) for number, wnid, children in rows if not int(children)}
