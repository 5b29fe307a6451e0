"""Pictures to a prepared tensor file, a few at a time: no more of them than that is ever in memory.

The file holds `train_images` (uint8 [N, C, H, W]), `train_labels` (int64 [N]), `test_images` and `test_labels` where
there is a test set, `held_out` (bool [N]: which of the training images are the validation split) where there is one,
and `train_hashes`, `test_hashes` (int64, one an image), by which copies are found.
"""

import hashlib
import json
import math
import operator
import os
import tarfile
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import TensorWriter, hash_into, sha256_of
from ..progress import bar
from ..settings import first_line, shown
from .pictures import NotGrey, Unreadable, check_shape, fitted, pixels_of, read_picture, reading

Item = tuple[str, Any, Any]  # what a picture is called, the picture, its label

FLOAT = "images must be uint8, 0..255, not {}; of values in 0..1: (255 * images).round() as uint8"
NAMED, EXPLAINED = 20, 5  # unreadable pictures that a message names, and tells why; of more it tells the number
WORKERS = min(8, os.cpu_count() or 1)
AT_ONCE = 8  # pictures that a thread decodes before it is asked again


@dataclass(frozen=True)
class Part:
    """One part of a data set that is not decoded yet.

    Attributes
    ----------
    count
        The number of pictures.
    read
        Begins to yield them, in order: what each is called in errors, the picture, its label. A picture is a path, an
        open binary file, a picture of Pillow's, a tensor or an array of [C, H, W], [H, W, C] or [H, W], or what says
        why it is `Unreadable`.
    arrays
        Images, uint8 [N, C, H, W], and labels, int64 [N], where they are in memory anyway.
    """

    count: int
    read: Callable[[], Iterator[Item]]
    arrays: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class Raw:
    """A data set that is not decoded yet: `test` and `validation` where it has them; classes None: numbered."""

    train: Part
    test: Part | None = None
    validation: Part | None = None
    classes: tuple[str, ...] | None = None
    colour: bool = False  # grey pictures become RGB, even where all are grey
    skipped: Mapping[str, int] = field(default_factory=dict)  # files that are no pictures, by the ending of their names
    root: str = ""  # what all names of pictures begin with


class SetWriter:
    """A prepared file that is filled with images, those of the training set first."""

    def __init__(self, path: Path, counts: Mapping[str, int], shape: Sequence[int], held_out: bool, room: int) -> None:
        kinds = {"images": (torch.uint8, tuple(shape)), "labels": (torch.int64, ()), "hashes": (torch.int64, ())}
        shapes = {f"{p}_{k}": (t, (n, *rest)) for p, n in counts.items() for k, (t, rest) in kinds.items()}
        shapes |= {"held_out": (torch.bool, (counts["train"],))} if held_out else {}
        self.file = TensorWriter(path, shapes, room)
        self.labels = {part: array("q") for part in counts}
        self._digest = hashlib.sha256()

    def add(self, part: str, pixels: torch.Tensor, labels: Iterable[int]) -> None:
        """Write images, uint8 [n, C, H, W], and keep their labels."""
        self.file.append(f"{part}_images", pixels)
        self.file.append(f"{part}_hashes", image_hashes(pixels))
        self.labels[part].extend(labels)
        hash_into(self._digest, pixels)

    def finish(self, about: Mapping[str, str], held_out: torch.Tensor | None = None) -> dict[str, str]:
        """Write labels, the validation split and the metadata, which are returned with the checksums."""
        labels = [torch.tensor(found, dtype=torch.int64) for found in self.labels.values()]
        for part, found in zip(self.labels, labels, strict=True):
            self.file.append(f"{part}_labels", found)
        if held_out is not None:
            self.file.append("held_out", held_out)
        sums = {"sha256": self._digest.hexdigest(), "sha256_labels": sha256_of(*labels)}
        sums |= {"sha256_held_out": sha256_of(held_out)} if held_out is not None else {}
        self.file.finish(dict(about) | sums)
        return dict(about) | sums


def image_hashes(images: torch.Tensor) -> torch.Tensor:
    """Return a hash of each image's pixels, int64 [N]: among a million images no two agree by chance."""
    rows = images.contiguous().numpy()
    found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return torch.from_numpy(np.frombuffer(b"".join(found), dtype="<i8").astype(np.int64))


def write_raw(path: Path, raw: Raw, name: str, size: int | None) -> None:
    """Decode a data set into a prepared file, with a progress bar where somebody looks.

    Parameters
    ----------
    path
        The file; usually the one that `write_whole` gives.
    raw
        What to decode. Where all pictures are grey the images have one channel, unless `raw.colour`.
    name
        What the data set is called.
    size
        See `decode`.

    Raises
    ------
    ValueError
        In one line: pictures that cannot be read, all of them counted; pictures of several sizes; a label that is
        missing, no whole number, or of no class; a class without a training image.
    """
    with reading(), ThreadPoolExecutor(WORKERS) as pool:
        for channels in (3,) if raw.colour else (1, 3):
            writing = _Writing(raw, name, size, channels, pool)
            try:
                return writing.write(path)
            except NotGrey:  # found out at the first picture with colours: usually the very first
                continue


class _Writing:
    """One pass over a data set's pictures."""

    def __init__(self, raw: Raw, name: str, size: int | None, channels: int, pool: ThreadPoolExecutor) -> None:
        self.raw, self.name, self.pool = raw, name, pool
        self.pixels = partial(_pixels, size=size, channels=channels)
        self.classes = raw.classes
        self.unreadable: list[Unreadable] = []

    def write(self, path: Path) -> None:
        raw = self.raw
        held_out = raw.validation.count if raw.validation else 0
        counts = {"train": raw.train.count + held_out} | ({"test": raw.test.count} if raw.test else {})
        room = 2**18 if raw.classes is None else 2**16 + len(json.dumps(raw.classes))
        self.shape = self._first_shape()
        writer = SetWriter(path, counts, self.shape, bool(held_out), room)
        try:
            total, done = sum(counts.values()), 0
            with bar() as shown:
                for name, part in (("train", raw.train), ("train", raw.validation), ("test", raw.test)):
                    for chunk in _chunks(part):
                        self._add(writer, name, chunk)
                        done += len(chunk)
                        shown.say(f"preparing {self.name}: {done:,} of {total:,} images", done / max(1, total))
            self._check(writer, sum(counts.values()))
            mask = torch.arange(counts["train"]) >= raw.train.count if held_out else None
            about = {"classes": json.dumps(self.classes), "name": self.name}
            writer.finish(about | ({"skipped": json.dumps(dict(raw.skipped))} if raw.skipped else {}), mask)
        finally:
            writer.file.close()

    def _first_shape(self) -> tuple[int, ...]:
        """Return the shape of the first picture that can be read."""
        for where, picture, _ in self.raw.train.read():
            one = self.pixels(picture, where)
            if isinstance(one, torch.Tensor):
                return tuple(one.shape)
        return 3, 1, 1  # there is none, which is told with the others

    def _add(self, writer: SetWriter, name: str, chunk: list[Item]) -> None:
        done = []
        some = [chunk[i : i + AT_ONCE] for i in range(0, len(chunk), AT_ONCE)]
        decoded = chain.from_iterable(self.pool.map(self._decoded, some))
        for (where, _, label), one in zip(chunk, decoded, strict=True):
            if isinstance(one, Unreadable):
                self.unreadable.append(one)
                continue
            number = _number(label, where, self.classes)
            check_shape(where, one.shape, self.shape)
            done.append((one, number))
        if done:
            writer.add(name, torch.stack([one for one, _ in done]), [number for _, number in done])

    def _decoded(self, items: list[Item]) -> list[torch.Tensor | Unreadable]:
        return [self.pixels(picture, where) for where, picture, _ in items]

    def _check(self, writer: SetWriter, total: int) -> None:
        if self.unreadable:
            raise ValueError(_told(self.unreadable, total, self.raw.root))
        if self.classes is None:
            self.classes = numbered(writer.labels["train"])
        for part in ("train", "test"):
            if (most := max(writer.labels.get(part, ()), default=0)) >= len(self.classes):
                raise ValueError(f"{part} has a label {most}, and there are {len(self.classes)} classes")


def numbered(labels: Sequence[int] | Sequence[bool]) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers, up to the largest label's."""
    return tuple(map(str, range(max(map(int, labels), default=-1) + 1)))


def _chunks(part: Part | None) -> Iterator[list[Item]]:
    """Yield a part's pictures, a few at a time, each time for all threads."""
    items = part.read() if part else iter(())
    try:
        while chunk := list(islice(items, AT_ONCE * WORKERS)):
            yield chunk
    except (OSError, EOFError, LookupError, tarfile.TarError, zlib.error) as problem:  # of the source, not of a picture
        raise ValueError(f"the pictures cannot be read on: {type(problem).__name__}: {first_line(problem)}") from None


def _pixels(picture: Any, where: str, size: int | None, channels: int) -> torch.Tensor | Unreadable:
    """Return any picture's pixels, uint8 [channels, H, W], or what is wrong with it."""
    if isinstance(picture, Unreadable):
        return picture
    try:
        if isinstance(picture, Path) or hasattr(picture, "read"):
            return read_picture(picture, where, size)
        if isinstance(picture, torch.Tensor | np.ndarray):
            return _of_array(picture, where, size, channels)
        if not hasattr(picture, "getchannel"):
            raise ValueError(f"{where} is of type {type(picture).__name__}, not an image")
        try:
            return pixels_of(picture, size, channels)
        except NotGrey:
            raise
        except Exception as problem:  # a picture may be read from its file only now: see `read_picture`
            return Unreadable(where, first_line(problem))
    except Unreadable as problem:
        return problem


def _of_array(picture: torch.Tensor | np.ndarray, where: str, size: int | None, channels: int) -> torch.Tensor:
    image = as_images(picture[None], where)[0]
    if channels == 1 and len(image) != 1:
        raise NotGrey
    return fitted(image.expand(channels, -1, -1), size)


def as_images(images: torch.Tensor | np.ndarray, what: str) -> torch.Tensor:
    """Return an array of images as uint8 [N, C, H, W]; [N, H, W] and [N, H, W, C] are recognised.

    Raises
    ------
    ValueError
        In one line, for another type or shape.
    """
    shape, kind = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise ValueError(f"{what}: {FLOAT.format(kind)}")
    found = _tensor(images) if isinstance(images, np.ndarray) else images.detach().cpu()
    found = found[:, None] if len(shape) == 3 else found
    if found.ndim == 4 and found.shape[1] not in (1, 3) and found.shape[3] in (1, 3):
        found = found.permute(0, 3, 1, 2)
    if found.ndim != 4 or found.shape[1] not in (1, 3) or not min(found.shape[2:]):
        wanted = "[N, C, H, W], [N, H, W, C] or [N, H, W], with 1 or 3 channels"
        raise ValueError(f"{what}: images must be of shape {wanted}, not {list(shape)}")
    return found.contiguous()


def _tensor(images: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor; nothing is copied but what is stored backwards, as channels are swapped."""
    if any(stride < 0 for stride in images.strides):
        images = np.ascontiguousarray(images)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not writable")  # nobody writes to images
        return torch.from_numpy(images)


def _number(label: Any, where: str, classes: Sequence[str] | None) -> int:
    """Return a label as a whole number that some class may have."""
    one = isinstance(label, np.generic | np.ndarray | torch.Tensor) and math.prod(label.shape) == 1
    plain: Any = label.item() if one else label
    if plain is None:
        raise ValueError(f"{where} has no label")
    try:
        number = operator.index(plain)
    except TypeError:
        raise ValueError(f"{where}: a label must be a whole number, not {shown(plain)}") from None
    if isinstance(plain, bool) or number < 0 or (classes is not None and number >= len(classes)):
        allowed = f"0..{len(classes) - 1}" if classes else "0, 1, ..."
        raise ValueError(f"{where}: a label must be one of {allowed}, not {shown(plain)}")
    return number


def _told(unreadable: Sequence[Unreadable], total: int, root: str) -> str:
    """Tell which pictures cannot be read, in one line."""
    if len(unreadable) == 1:
        return str(unreadable[0])
    names = [one.path.removeprefix(root) for one in unreadable[:NAMED]]
    why = [f" ({one.reason})" if one.reason else "" for one in unreadable[:EXPLAINED]] + [""] * NAMED
    names = [name + reason for name, reason in zip(names, why, strict=False)]
    more = f" and {len(unreadable) - NAMED:,} more" if len(unreadable) > NAMED else ""
    place = f"{root}: " if root else ""
    return f"{place}{len(unreadable):,} of {total:,} pictures cannot be read: {', '.join(names)}{more}"
