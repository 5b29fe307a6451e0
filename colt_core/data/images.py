"""Labelled images as uint8 tensors: `Images`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from ..files import hash_into, rows_at_once
from ..settings import one_line

Shape = tuple[int, int, int]  # channels, height, width
UNLABELLED = ("unlabelled",)  # the one class of images that have no labels


@dataclass(eq=False)
class Source:
    """Where pixels lie, so that other processes can map the same pages of the same file into their memory.

    Attributes
    ----------
    pixels
        The tensor that it speaks of.
    path, key
        The tensor file and the tensor's name in it; None: in no file yet.
    written
        The file's modification time in nanoseconds: another time, other pixels.
    """

    pixels: torch.Tensor = field(repr=False)
    path: str | None = None
    key: str = "pixels"
    written: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled images that know how to be normalised. Immutable.

    Splits and partitions are views: all of them share the pixels of the data set, which may be memory-mapped.

    Attributes
    ----------
    pixels
        uint8 [M, C, H, W], C 3 (RGB) or 1 (grey): the data set that these images are taken from.
    labels
        int64 [N], in [0, len(classes)).
    classes
        Class names by label.
    mean, std
        Per channel, of pixels in [0, 1], over the whole training set that these images were taken from; where they are
        not given, of these images themselves.
    rows
        int64 [N], which of the pixels are these images; None: all of them, in order.
    source
        The file in which the pixels lie, if any; views share it as they share the pixels.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rows: torch.Tensor | None = None
    source: Source | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.source is None or self.source.pixels is not self.pixels:
            object.__setattr__(self, "source", Source(self.pixels))
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or not min(shape[2:]):
            found = f"{self.pixels.dtype} {list(shape)}"
            raise ValueError(f"images must be uint8 [N, C, H, W] with 1 or 3 channels, not {found}")
        count = shape[0] if self.rows is None else len(self.rows)
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (count,):
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise ValueError(f"labels must be int64 [{count}], one an image, not {found}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}, there are {len(self.classes)} classes")
        if not (self.mean and self.std):
            for name, value in zip(("mean", "std"), channel_statistics(self), strict=True):
                object.__setattr__(self, name, value)
        if not len(self.mean) == len(self.std) == shape[1]:
            found = f"{len(self.mean)} and {len(self.std)}"
            raise ValueError(f"mean and std must have {shape[1]} values, one a channel, not {found}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Images({len(self):,} of {in_words(self.shape)}, {classes_in_words(self.classes)})"

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; else all are of one class, `UNLABELLED`."""
        return self.classes != UNLABELLED

    @property
    def size(self) -> int:
        """The height of the images in pixels."""
        return self.pixels.shape[2]

    @property
    def shape(self) -> Shape:
        """Channels, height and width of every image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> torch.Tensor:
        """The images themselves, uint8 [N, C, H, W]: a copy where these are a part of the data set."""
        return self.pixels if self.rows is None else self.pixels[self.rows]

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Return the pixels at these positions (an int64 tensor [n]): uint8 [n, C, H, W]."""
        return self.pixels[index if self.rows is None else self.rows[index]]

    def take(self, index: torch.Tensor) -> "Images":
        """Return the images at these positions (an int64 tensor [n]), in this order; no pixel is copied."""
        rows = torch.arange(len(self.labels), device=self.labels.device) if self.rows is None else self.rows
        return replace(self, labels=self.labels[index], rows=rows[index])

    def only(self, classes: list[int]) -> "Images":
        """Return the images of these classes alone, labels renumbered in the order given; order of images kept."""
        new = torch.full((len(self.classes),), -1)
        new[classes] = torch.arange(len(classes))
        labels = new[self.labels.cpu()]
        index = (labels >= 0).nonzero().flatten()
        names = tuple(self.classes[c] for c in classes)
        return replace(self.take(index), labels=labels[index].to(self.labels.device), classes=names)

    def to(self, device: torch.device | str) -> "Images":
        """Return the images on another device; there they are a copy without the rest of the data set."""
        if self.pixels.device == torch.device(device):
            return self
        return replace(self, pixels=self.images.to(device), labels=self.labels.to(device), rows=None)

    def counts(self) -> list[int]:
        """Return the number of images of each class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()

    def fingerprint(self) -> str:
        """Return a SHA-256 over pixels, labels and normalisation: the identity of these images in this order."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        shape = (len(self), *self.pixels.shape[1:])
        digest = hashlib.sha256(repr((self.classes, self.mean, self.std, shape)).encode())
        for index in torch.arange(len(self)).split(rows_at_once(self.pixels)):
            hash_into(digest, self.batch(index.to(self.labels.device)))
        hash_into(digest, self.labels)
        return digest.hexdigest()


def in_words(shape: Shape) -> str:
    """Return a shape as "3x32x32": channels, height, width."""
    return "x".join(map(str, shape))


def classes_in_words(classes: Sequence[str]) -> str:
    """Return the number of classes and the first names, in one short line."""
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(one_line, classes)]
    few = names if len(names) <= 10 else [*names[:5], "…", names[-1]]
    return f"{len(names)} classes: {', '.join(few)}"


def channel_statistics(images: Images, chunk: int = 2_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels per channel, as fractions of 255."""
    channels, height, width = images.shape
    counts = torch.zeros(channels, 256, dtype=torch.int64)  # how often each value occurs in each channel
    for index in torch.arange(len(images)).split(min(chunk, rows_at_once(images.pixels))):
        values = images.batch(index).cpu()
        counts += torch.stack([torch.bincount(values[:, i].flatten(), minlength=256) for i in range(channels)])
    level = torch.arange(256)
    total, squares = (counts * level).sum(1), (counts * level**2).sum(1)
    pixels = len(images) * height * width
    mean = total.double() / pixels
    std = (squares.double() / pixels - mean**2).sqrt().clamp(min=1.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def check_images(images: object, what: str = "images", example: str = "dataset.train") -> None:
    """Raise a `ValueError` where something else stands in the place of images, a whole data set for example."""
    if not isinstance(images, Images):
        raise ValueError(f"{what} must be a set of images, {example} for example, not {type(images).__name__}")
