"""Names to data: `load()`."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch

from ..files import Damaged, read_tensors, sha256_of
from ..settings import check_fraction
from ..settings import shown as shortened
from .folder import read_folder, stamp_of
from .images import Dataset, Images, Source, channel_statistics
from .partition import split_validation
from .pictures import check_size, resized, shown
from .prepare import data_folder, prepare

COUNTS = {"cifar10-mini": 10, "cifar10": 10, "cifar100": 100, "tinyimagenet": 200}  # classes

BUILT_IN = tuple(COUNTS)

Name = str | os.PathLike[str]

Read = tuple[dict[str, torch.Tensor], tuple[str, ...], dict[str, Source]]  # tensors, class names, where they lie

NOT_YET = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean, std: those of the training set are known later
CIFAR100_STATISTICS = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # mean, std: its training set's, rounded

ASSETS = Path(__file__).parent.parent / "assets"


def load(name: Name, validation: float = 0.1, seed: int = 0, size: int | None = None) -> Dataset:
    """Load a data set by name, or a folder of class folders by its path.

    Parameters
    ----------
    name
        "cifar10-mini" (in the package), "cifar10", "cifar100", "tinyimagenet" (read from
        `$COLT_DATA/<name>.safetensors`, else downloaded once and prepared there), or a folder: class folders directly
        (a fifth becomes the test set) or below `train/` and `test/`. A suffix takes some of the classes:
        "cifar10:0-4", "cifar10:0,2,8". A size before them resizes all images: "tinyimagenet@32",
        "pictures@32:0-4"; a folder whose images differ in size or are not square needs one.
    validation
        The share of each class of the training set held out for choices; at least one image must be left to train on.
    seed
        For the validation split (and the test split of a plain folder).
    size
        The same as the suffix "@size", where the name has none.

    Raises
    ------
    ValueError
        For an unknown name, unknown classes, a damaged file, a folder with fewer than two classes or without images.
    """
    check_fraction("validation", validation)
    check_name(name)
    base, chosen, edge = _split_name(name)
    tensors, classes, sources = _read(base, check_size(edge or size) if edge or size is not None else None, seed)
    train, test = (
        Images(
            tensors[f"{part}_images"],
            tensors[f"{part}_labels"],
            classes,
            *NOT_YET,
            source=sources.get(f"{part}_images"),
        )
        for part in ("train", "test")
    )
    if chosen:
        wanted = _parse_classes(chosen, len(classes), str(name))
        train, test = train.only(wanted), test.only(wanted)
    train, held_out = split_validation(train, validation, seed)
    mean, std = channel_statistics(train)
    return Dataset(str(name), *(replace(part, mean=mean, std=std) for part in (train, held_out, test)))


def _read(base: str, size: int | None, seed: int) -> Read:
    """Read a whole data set, resized if asked."""
    if base not in BUILT_IN:
        return *read_folder(Path(base), size, seed), {}
    tensors, classes, sources = (*_embedded(), {}) if base == "cifar10-mini" else read_prepared(base)
    if size:
        tensors |= {key: resized(tensors[key], size) for key in ("train_images", "test_images")}
    return tensors, classes, sources


def check_name(name: Name) -> None:
    """Raise a `ValueError` if no data set could have this name; reads nothing."""
    base, chosen, edge = _split_name(name)
    if base not in BUILT_IN and not (base and os.path.isdir(base)):
        raise ValueError(
            f"unknown data set {shortened(base)}; allowed: {', '.join(BUILT_IN)}, or a folder of class folders"
        )
    if edge:
        check_size(edge)
    if chosen and base in COUNTS:
        _parse_classes(chosen, COUNTS[base], str(name))


def is_built_in(name: Name) -> bool:
    """Tell whether a data set's pixels are fixed by a checksum, unlike a user's folder."""
    return _split_name(name)[0] in BUILT_IN


def is_code(name: Name) -> bool:
    """Tell whether a data set is made by code of a user's, "package.module:name"."""
    base = _split_name(name)[0]
    own = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", base) is not None
    return own and base.partition(":")[0] not in ("torchvision", "hf", "own") and not os.path.exists(base)


def stamp(name: Name) -> str:
    """Return what changes whenever a data set's files do: cheap, as it opens none of them.

    For a folder it speaks of the paths, sizes and times of all its pictures, for a prepared set of its one file's; the
    embedded set never changes.

    Raises
    ------
    ValueError
        For a name that `check_name` refuses, and for a folder that cannot be read.
    """
    check_name(name)
    base, _, _ = _split_name(name)
    if base not in BUILT_IN:
        return stamp_of(Path(base))
    path = data_folder() / f"{base}.safetensors"
    if base == "cifar10-mini" or not path.exists():
        return base
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


def halves(name: Name) -> tuple[str, str]:
    """Return the names of the first and the second half of a data set's classes: "cifar10:0-4" and "cifar10:5-9"."""
    base, chosen, edge = _split_name(name)
    base += f"@{edge}" if edge else ""
    count = len(load(base).classes)
    wanted = _parse_classes(chosen, count, str(name)) if chosen else list(range(count))
    if len(wanted) < 4:
        raise ValueError(f"data set {str(name)!r} has {len(wanted)} classes; to be split in two halves it needs four")
    first, second = wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]
    return f"{base}:{_class_list(first)}", f"{base}:{_class_list(second)}"


def _class_list(classes: Sequence[int]) -> str:
    """Return "0-4", or "0,2,5-9": three in a row or more are written as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(classes), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _split_name(name: Name) -> tuple[str, str, str]:
    """Split "pictures@32:0-4" into name, classes and size, or "" for what it lacks; a path may hold colons itself."""
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"a data set's name must be text or a path, not {type(name).__name__}")
    match = re.fullmatch(r"(.*?)(?:@(\d+))?(?::([\d,\-]+))?", os.fspath(name), re.DOTALL)
    assert match
    return match[1], match[3] or "", match[2] or ""


def _parse_classes(text: str, available: int, name: str) -> list[int]:
    wanted: list[int] = []
    outside = f"data set {name!r}: classes must be different numbers in 0..{available - 1}"
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError(f"data set {name!r}: {text!r} names no classes; write for example 0-4 or 0,2,8")
        if len(piece) > 20 or int(last or first) >= available:  # before any list is as long as its numbers say
            raise ValueError(outside)
        wanted += range(int(first), int(last or first) + 1)
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(outside)
    if len(wanted) < 2:
        raise ValueError(f"data set {name!r}: at least two classes are needed")
    return wanted


def _embedded() -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The data set in the package: lossless WebP sheets, images in class order (see assets/README.md)."""
    import numpy as np
    from PIL import Image

    about = json.loads((ASSETS / "cifar10-mini.json").read_text())
    tensors: dict[str, torch.Tensor] = {}
    for part in ("train", "test"):
        path = ASSETS / f"cifar10-mini-{part}.webp"
        try:
            sheet = np.asarray(Image.open(path).convert("RGB"))
        except OSError as problem:
            raise ValueError(f"the embedded data file {path.name} cannot be read: {problem}") from None
        rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
        tiles = sheet.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
        tensors[f"{part}_images"] = torch.from_numpy(tiles.copy())
        tensors[f"{part}_labels"] = torch.arange(10).repeat_interleave(len(tiles) // 10)
    if sha256_of(tensors["train_images"], tensors["test_images"]) != about["sha256"]:
        raise ValueError(
            "the embedded data set cifar10-mini is altered: its checksum differs; install the package anew"
        )
    return tensors, tuple(about["classes"])


def read_prepared(name: str) -> Read:
    """Read `$COLT_DATA/<name>.safetensors` memory-mapped and verified; prepare it first where it is missing.

    Returns
    -------
    tuple
        The tensors, the class names, and for each tensor where it lies.
    """
    path = data_folder() / f"{name}.safetensors"
    if not path.exists():
        prepare(name)
    try:
        tensors, about = read_tensors(path)
        written = path.stat().st_mtime_ns
        sources = {key: Source(tensor, str(path), key, written) for key, tensor in tensors.items()}
        classes = tuple(json.loads(about["classes"]))
        whole = sha256_of(tensors["train_images"], tensors["test_images"]) == about["sha256"]
        labels = sha256_of(tensors["train_labels"], tensors["test_labels"])
        whole &= about.get("sha256_labels", labels) == labels
    except (Damaged, KeyError, TypeError, OSError, json.JSONDecodeError) as problem:
        raise ValueError(
            f"{shown(path)} is no prepared data set or is truncated ({problem}); delete it to prepare it anew"
        ) from None
    if not whole:
        raise ValueError(f"{shown(path)} is altered: its checksum differs; delete it to prepare it anew")
    if about.get("name", name) != name or ("name" not in about and len(classes) != COUNTS[name]):
        found = about.get("name", "another data set")
        raise ValueError(f"{shown(path)} holds {found} ({len(classes)} classes), not {name}; delete or rename it")
    return tensors, classes, sources
