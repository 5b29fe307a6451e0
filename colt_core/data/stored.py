"""Prepared tensor files: read back, mapped into memory and verified; and how their images become a data set's parts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..files import Damaged, read_tensors, sha256_of
from .images import Images, Source, channel_statistics
from .notes import notes_of, warn_of_leaks
from .partition import split_validation
from .pictures import resized, shown
from .streaming import Item, Part, Raw

TEST_SHARE = 0.2  # of a data set that brings no test set

Parts = tuple[Images, Images, Images]  # train, validation, test


@dataclass
class Stored:
    """A data set's tensors (see `streaming`), its class names, where the tensors lie, and the file's metadata."""

    tensors: dict[str, torch.Tensor]
    classes: tuple[str, ...]
    sources: dict[str, Source] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def images(self, part: str) -> Images:
        """Return the images of "train" or "test", not normalised yet."""
        pixels, key = self.tensors[f"{part}_images"], f"{part}_images"
        plain = (0.0,) * pixels.shape[1], (1.0,) * pixels.shape[1]
        return Images(pixels, self.tensors[f"{part}_labels"], self.classes, *plain, source=self.sources.get(key))

    def resized(self, size: int | None) -> "Stored":
        """Return the same at another size, in memory."""
        keys = [key for key in self.tensors if key.endswith("_images")]
        if size is None or all(self.tensors[key].shape[2:] == (size, size) for key in keys):
            return self
        images = {key: resized(self.tensors[key], size) for key in keys}
        kept = {key: tensor for key, tensor in self.tensors.items() if not key.endswith("_hashes")}
        about = {key: text for key, text in self.about.items() if key != "statistics"}
        return Stored(kept | images, self.classes, {}, about)


def read_stored(path: Path, advice: str, foreign: bool = False) -> Stored:
    """Read a prepared file, memory-mapped and verified; one that is `foreign` may have no checksums.

    Raises
    ------
    ValueError
        In one line that ends with `advice`, for a file that is none, is truncated or altered.
    """
    try:
        tensors, about = read_tensors(path)
        written = path.stat().st_mtime_ns
        sources = {key: Source(tensor, str(path), key, written) for key, tensor in tensors.items()}
        classes = tuple(map(str, json.loads(about["classes"])))
        images, labels = ([tensors[k] for k in _keys(tensors, kind)] for kind in ("images", "labels"))
        whole = (foreign and "sha256" not in about) or about["sha256"] == sha256_of(*images)
        whole &= about.get("sha256_labels") in (None, sha256_of(*labels))
        if "held_out" in tensors:
            whole &= about.get("sha256_held_out") in (None, sha256_of(tensors["held_out"]))
    except (Damaged, KeyError, TypeError, OSError, json.JSONDecodeError) as problem:
        raise ValueError(f"{shown(path)} is no prepared data set or is truncated ({problem}); {advice}") from None
    if not whole:
        raise ValueError(f"{shown(path)} is altered: its checksum differs; {advice}")
    return Stored(tensors, classes, sources, about)


def _keys(tensors: dict[str, torch.Tensor], kind: str) -> list[str]:
    return [f"train_{kind}"] + ([f"test_{kind}"] if f"test_{kind}" in tensors else [])


def parts_of(
    stored: Stored, name: str, validation: float, seed: int, chosen: Sequence[int] = (), strict: bool = True
) -> tuple[Parts, tuple[str, ...]]:
    """Split a data set, and normalise its parts by the training images.

    Parameters
    ----------
    stored
        The data set. A validation split or a test set of its own is taken; else they are cut from the training set.
    name
        What it is called, in errors.
    validation, seed
        See `load`.
    chosen
        These classes alone; empty: all.
    strict
        Refuse classes without a training image, and count images that occur twice.

    Returns
    -------
    tuple
        The three parts, and what is worth saying of them.
    """
    train, held_out, test = _three(stored, seed)
    if chosen:
        train, test = train.only(list(chosen)), test.only(list(chosen))
        held_out = held_out.only(list(chosen)) if held_out else None
    if strict and (empty := [i for i, count in enumerate(train.counts()) if not count]):
        others = "; name the others by their numbers, for example :0-4" if len(train.classes) > 2 else ""
        others = "; labels count from 0: subtract 1" if empty == [0] and train.classes[0] == "0" else others
        raise ValueError(f"{name}: class {train.classes[empty[0]]!r} has no training image{others}")
    if held_out is None:
        train, held_out = split_validation(train, validation, seed)
    mean, std = _statistics(stored, train, bool(chosen))
    train, held_out, test = (replace(part, mean=mean, std=std) for part in (train, held_out, test))
    parts = train, held_out, test
    hashes = [_hashes(stored, part) if strict else None for part in parts]
    warn_of_leaks(name, parts, hashes)
    return parts, tuple(notes_of(parts, hashes, json.loads(stored.about.get("skipped", "{}"))))


def raw_stored(stored: Stored) -> Raw:
    """Return a data set as one that is to be decoded, to be written at another size."""
    train, held_out = _training(stored)
    test = part_of_images("test", stored.images("test")) if "test_images" in stored.tensors else None
    validation = part_of_images("validation", held_out) if held_out else None
    return Raw(part_of_images("train", train), test, validation, stored.classes, colour=train.shape[0] == 3)


def part_of_images(what: str, images: Images) -> Part:
    """Return images as a part that is to be decoded, image by image."""

    def read() -> Iterator[Item]:
        for i, label in enumerate(images.labels.tolist()):
            yield f"image {i} of {what}", images.batch(torch.tensor([i]))[0], label

    return Part(len(images), read)


def _training(stored: Stored) -> tuple[Images, Images | None]:
    """Return the training images, and the validation split if the data set brings one."""
    train, mask = stored.images("train"), stored.tensors.get("held_out")
    if mask is None:
        return train, None
    return train.take((~mask).nonzero().flatten()), train.take(mask.nonzero().flatten())


def _three(stored: Stored, seed: int) -> tuple[Images, Images | None, Images]:
    """Return the training images, the validation split if the data set brings one, and the test images."""
    train, held_out = _training(stored)
    if "test_images" in stored.tensors:
        return train, held_out, stored.images("test")
    train, test = split_validation(train, TEST_SHARE, seed)
    return train, held_out, test


def _statistics(stored: Stored, train: Images, some: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation: those of the training images, unless the file says others."""
    if some or "statistics" not in stored.about:
        return channel_statistics(train)
    mean, std = json.loads(stored.about["statistics"])
    return tuple(mean), tuple(std)


def _hashes(stored: Stored, part: Images) -> torch.Tensor | None:
    of_test = part.pixels is stored.tensors.get("test_images")
    return stored.tensors.get("test_hashes" if of_test else "train_hashes")
