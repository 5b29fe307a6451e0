"""Names to data: `load()`."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..files import Damaged, open_tensors, sha256_of
from ..settings import check_fraction, meant
from ..settings import shown as shortened
from .dataset import Dataset, own_path
from .folder import raw_folder, stamp_of
from .images import Source
from .names import BUILT_IN, COUNTS, ELSE, Name, class_list, kind_of, parse_classes, split_name
from .others import hub_stamp, raw_file, raw_function, raw_hub, raw_torchvision, source_stamp, torchvision_class
from .pictures import check_size, shown
from .prepare import prepare
from .shelf import data_folder, make_once, prepared_path, touch
from .stored import Stored, parts_of, raw_stored, read_stored
from .streaming import Raw, write_raw

Read = tuple[dict[str, torch.Tensor], tuple[str, ...], dict[str, Source]]  # tensors, class names, where they lie

CIFAR100_STATISTICS = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # mean, std: its training set's, rounded

LARGE = 2**30  # bytes: pixels that come to more are resized into a file

FORMAT = 1  # of prepared files: raise it when they would hold other pixels
ASSETS = Path(__file__).parent.parent / "assets"


def load(name: Name, validation: float = 0.1, seed: int = 0, size: int | None = None) -> Dataset:
    """Load a data set by name, or a folder of class folders by its path.

    All but arrays in files are decoded once, with a progress bar, into a file in `$COLT_DATA/prepared` that is mapped
    into memory, and found again by every process until what it was made from changes: `colt_core.data.prepared()`
    shows these files, `colt_core.data.forget(name)` removes one.

    Parameters
    ----------
    name
        One of these; where a data set brings no test set, a fifth of each class becomes it.

        - "cifar10-mini" (in the package); "cifar10", "cifar100", "tinyimagenet", "fashion-mnist" (one channel), "svhn":
          read from `$COLT_DATA/<name>.safetensors`, else downloaded once and prepared there; "imagenet-64": prepared
          from the official archives or folders in `$COLT_DATA/downloads/imagenet`, never downloaded.
        - A folder: class folders directly, or below `train/`, `test/` and `val/` (see `folder.raw_folder`).
        - "torchvision:Flowers102": a class of torchvision.datasets, in `$COLT_DATA/downloads`.
        - "hf:user/name", "hf:user/name/configuration" or "hf:./folder": a data set of the library `datasets` (the extra
          `data`), with a column of type Image and one of type ClassLabel.
        - "mypackage.sets:make": a function without arguments that returns a `Dataset`, or what `Dataset.of` takes; it
          is called again when its file has changed.
        - "arrays.npz", "tensors.safetensors": `train_images` and `train_labels`, `test_...`, `val_...`, or `x_train`
          and `y_train`, ...; or what `Dataset.save` wrote.
        - "own:...": what `Dataset.named` returned.

        A suffix takes some of the classes: "cifar10:0-4", "cifar10:0,2,8". A size before them brings all images to
        that square: the short side is resized, then the centre is cut out ("tinyimagenet@32", "pictures@32:0-4"); what
        has images of several sizes needs one.
    validation
        The share of each class of the training set held out for choices; at least one image must be left to train on.
        A data set that brings a validation split of its own keeps it.
    seed
        For the validation split (and a test split that is cut).
    size
        The same as the suffix "@size", where the name has none.

    Raises
    ------
    ValueError
        For an unknown name, unknown classes, a damaged file, a folder with fewer than two classes or without images,
        pictures that cannot be read, a download that fails, a class without a training image.
    """
    check_fraction("validation", validation)
    check_name(name)
    base, chosen, edge = split_name(name)
    stored = _read(base, check_size(edge or size) if edge or size is not None else None)
    wanted = parse_classes(chosen, len(stored.classes), str(name)) if chosen else []
    parts, notes = parts_of(stored, str(name), validation, seed, wanted, strict=base not in BUILT_IN)
    usual = (validation, seed) == (0.1, 0) and (size is None or bool(edge))
    return Dataset(str(name), *parts, notes, (str(name), parts) if usual else None)


def _read(base: str, size: int | None) -> Stored:
    """Read a whole data set, resized if asked."""
    if base == "cifar10-mini":
        return Stored(*_embedded()).resized(size)
    if base in BUILT_IN:
        return _at(Stored(*read_prepared(base)), base, size)
    kind, path = kind_of(base), Path(base)
    if kind == "own":
        path = own_path(base)
        if not path.is_file():
            raise ValueError(f"{base} is not on this machine: give it again (cc.Dataset.of(...).named())")
        touch(path)
    if kind == "own" or (kind == "file" and _is_ours(path)):
        return _at(read_stored(path, "make it anew", foreign=kind == "file"), base, size)
    return _prepared(base, size, lambda: _raw(base, kind))


def _at(stored: Stored, base: str, size: int | None) -> Stored:
    """Return a data set at another size: a large one from a file of its own, as its pixels may not fit into memory."""
    images = [tensor for key, tensor in stored.tensors.items() if key.endswith("_images")]
    if size is None or sum(len(one) * one.shape[1] for one in images) * size**2 < LARGE:
        return stored.resized(size)
    return _prepared(base, size, lambda: raw_stored(stored))


def _prepared(base: str, size: int | None, raw: Callable[[], Raw]) -> Stored:
    """Return a data set that is decoded, once, into a file that is found again until its source changes."""
    kind = kind_of(base)
    path = prepared_path(base, (FORMAT, kind, _source(base, kind), _stamp(base, kind), size))
    called = f"{base}@{size}" if size else base
    make_once(path, lambda: partial(write_raw, raw=raw(), name=called, size=size))
    touch(path)
    return read_stored(path, "delete it to prepare it anew")


def _raw(base: str, kind: str) -> Raw:
    """Return a data set that is to be decoded."""
    rest = base.partition(":")[2]
    if kind == "folder":
        return raw_folder(Path(base))
    if kind == "file":
        return raw_file(Path(base))
    return {"torchvision": raw_torchvision, "hf": raw_hub, "function": raw_function}[kind](
        base if kind == "function" else rest
    )


def _is_ours(path: Path) -> bool:
    """Tell whether a file can be mapped as it is: its images are uint8 [N, C, H, W], and it names its classes."""
    if path.suffix != ".safetensors":
        return False
    try:
        with open_tensors(path) as file:
            kinds = [file.get_slice(f"{part}_{kind}") for part in ("train", "test") for kind in ("images", "labels")]
            types, shapes = [one.get_dtype() for one in kinds], [one.get_shape() for one in kinds]
            named = "classes" in (file.metadata() or {})
    except Damaged:  # which is told when it is read as a file of arrays
        return False
    return named and types == ["U8", "I64"] * 2 and all(len(shapes[i]) == 4 and shapes[i][1] in (1, 3) for i in (0, 2))


def _source(base: str, kind: str) -> str:
    """Return what a name means, from whatever folder it is said."""
    if kind in ("folder", "file"):
        return os.path.abspath(base)
    local = kind == "hf" and _stamp(base, kind)
    return "hf:" + os.path.abspath(os.path.expanduser(base.removeprefix("hf:"))) if local else base


def _stamp(base: str, kind: str) -> str:
    """Return what changes with what a data set is prepared from."""
    if kind == "folder":
        return stamp_of(Path(base))
    if kind == "function":
        return source_stamp(base)
    if kind == "hf":
        return hub_stamp(base.removeprefix("hf:"))
    path = own_path(base) if kind == "own" else Path(base) if kind == "file" else data_folder() / f"{base}.safetensors"
    if kind == "torchvision" or base == "cifar10-mini" or not path.exists():
        return base
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


def check_name(name: Name) -> None:
    """Raise a `ValueError` if no data set could have this name; reads nothing, and imports no module of a user's."""
    base, chosen, edge = split_name(name)
    if not (kind := kind_of(base)):
        if base.startswith((".", "/", "~")) or base.endswith((".npz", ".safetensors")):
            about = "" if os.path.isabs(base) else f" in {os.getcwd()}"
            raise ValueError(f"there is no folder, and no file, {shortened(base)}{about}: no data set")
        allowed = f"{', '.join(BUILT_IN)}, {ELSE}"
        raise ValueError(f"unknown data set {shortened(base)}; allowed: {allowed}{meant(base, BUILT_IN)}")
    if kind == "torchvision":
        torchvision_class(base.partition(":")[2])
    if edge:
        check_size(edge)
    if chosen and base in COUNTS:
        parse_classes(chosen, COUNTS[base], str(name))


def is_built_in(name: Name) -> bool:
    """Tell whether a data set's pixels are fixed by a checksum, unlike a user's folder."""
    return kind_of(split_name(name)[0]) in ("built in", "own")


def count_classes(name: Name) -> int | None:
    """Return how many classes a data set has where its name tells; None where it would have to be read."""
    base, chosen, _ = split_name(name)
    if base not in COUNTS:
        return None
    return len(parse_classes(chosen, COUNTS[base], str(name))) if chosen else COUNTS[base]


def is_code(name: Name) -> bool:
    """Tell whether a data set is made by code of a user's, "package.module:name"."""
    return kind_of(split_name(name)[0]) == "function"


def stamp(name: Name) -> str:
    """Return what changes whenever a data set's files do: cheap, as it opens none of them.

    For a folder it speaks of the paths, sizes and times of all its pictures, for a prepared set of its one file's, for
    a function of the file in which it stands; the embedded set never changes.

    Raises
    ------
    ValueError
        For a name that `check_name` refuses, and for a folder that cannot be read.
    """
    check_name(name)
    base, _, _ = split_name(name)
    return _stamp(base, kind_of(base))


def halves(name: Name) -> tuple[str, str]:
    """Return the names of the first and the second half of a data set's classes: "cifar10:0-4" and "cifar10:5-9"."""
    base, chosen, edge = split_name(name)
    base += f"@{edge}" if edge else ""
    count = len(load(base).classes)
    wanted = parse_classes(chosen, count, str(name)) if chosen else list(range(count))
    if len(wanted) < 4:
        raise ValueError(f"data set {str(name)!r} has {len(wanted)} classes; to be split in two halves it needs four")
    first, second = wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]
    return f"{base}:{class_list(first)}", f"{base}:{class_list(second)}"


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
    stored = read_stored(path, "delete it to prepare it anew")
    known, classes = stored.about.get("name"), stored.classes
    if known not in (None, name) or (known is None and len(classes) != COUNTS[name]):
        found = known or "another data set"
        raise ValueError(f"{shown(path)} holds {found} ({len(classes)} classes), not {name}; delete or rename it")
    return stored.tensors, classes, stored.sources
