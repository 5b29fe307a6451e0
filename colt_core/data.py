"""Images and how they are split: `load()`, `partition()`. Everything is uint8 tensors."""

import hashlib
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch

from .seeding import generator

ASSETS = Path(__file__).parent / "assets"
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images that know how to be normalised. Immutable.

    Splits and partitions are views: all of them share the pixels of the data set, which may be memory-mapped.

    Attributes
    ----------
    pixels
        uint8 [M, 3, H, W], RGB: the data set that these images are taken from.
    labels
        int64 [N], in [0, len(classes)).
    classes
        Class names by label.
    mean, std
        Per channel, of pixels in [0, 1], over the whole training set that these images were taken from.
    rows
        int64 [N], which of the pixels are these images; None: all of them, in order.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    rows: torch.Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images must be uint8 [N, 3, H, W], not {self.pixels.dtype} {list(shape)}")
        count = shape[0] if self.rows is None else len(self.rows)
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (count,):
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise ValueError(f"labels must be int64 [{count}], one an image, not {found}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}, there are {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """The height of the images in pixels."""
        return self.pixels.shape[2]

    @property
    def images(self) -> torch.Tensor:
        """The images themselves, uint8 [N, 3, H, W]: a copy where these are a part of the data set."""
        return self.pixels if self.rows is None else self.pixels[self.rows]

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Return the pixels at these positions (an int64 tensor [n]): uint8 [n, 3, H, W]."""
        return self.pixels[index if self.rows is None else self.rows[index]]

    def take(self, index: torch.Tensor) -> "Images":
        """Return the images at these positions (an int64 tensor [n]), in this order; no pixel is copied."""
        rows = torch.arange(len(self.labels), device=self.labels.device) if self.rows is None else self.rows
        return replace(self, labels=self.labels[index], rows=rows[index])

    def only(self, classes: list[int]) -> "Images":
        """Return the images of these classes alone, labels renumbered in the order given; order of images kept."""
        new = torch.full((len(self.classes),), -1)
        new[classes] = torch.arange(len(classes))
        index = (new[self.labels] >= 0).nonzero().flatten()
        names = tuple(self.classes[c] for c in classes)
        return replace(self.take(index), labels=new[self.labels[index]], classes=names)

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
        if (known := vars(self).get("_fingerprint")) is not None:
            return str(known)
        shape = (len(self), *self.pixels.shape[1:])
        digest = hashlib.sha256(repr((self.classes, self.mean, self.std, shape)).encode())
        for index in torch.arange(len(self)).split(10_000):
            _hash_into(digest, self.batch(index.to(self.labels.device)))
        _hash_into(digest, self.labels)
        vars(self)["_fingerprint"] = digest.hexdigest()
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for experiments: `train`, `validation` (cut from train, for every choice), `test` (reports)."""

    name: str
    train: Images
    validation: Images
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.train.classes

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the training pixels per channel, in [0, 1]."""
        return self.train.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the training pixels per channel, in [0, 1]."""
        return self.train.std


# --- splitting ---------------------------------------------------------------------------------------------------


def partition(images: Images, parts: int = 2, by: str = "class", seed: int = 0) -> list[Images]:
    """Split images for the copies of a COLT round.

    Parameters
    ----------
    images
        What to split.
    parts
        The number of partitions P, at least 2 (1 gives the whole back).
    by
        "class": contiguous class ids, labels shifted to start at 0; where P does not divide C the first partitions
        hold one class more, and no class is dropped. "random": a seeded shuffle. "stratified": every partition gets
        its share of each class. "order": every partition is the whole set in another order (the null of no split).
    seed
        For the shuffles.

    Returns
    -------
    list of Images
        For "class", "random" and "stratified": disjoint, and together all of `images`.

    Raises
    ------
    ValueError
        If P is larger than the number of classes ("class") or images, a partition would be empty, or `by` is unknown.

    References
    ----------
    arXiv 2212.12770, section III (class-wise split).
    """
    if by not in PARTITIONINGS:
        raise ValueError(f"unknown partitioning {by!r}; allowed: {', '.join(PARTITIONINGS)}")
    if parts < 1:
        raise ValueError(f"parts must be at least 1, not {parts}")
    if parts > (limit := len(images.classes) if by == "class" else len(images)):
        what = "classes" if by == "class" else "images"
        raise ValueError(f"parts must be at most {limit}, the number of {what}, not {parts}")
    split = PARTITIONINGS[by](images, parts, generator(seed, "partition", by, parts))
    if empty := [i for i, part in enumerate(split) if not len(part)]:
        raise ValueError(f"partition {empty[0]} of {parts} would be empty: none of its classes has an image")
    return split


def _by_class(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    return [images.only(chunk.tolist()) for chunk in torch.arange(len(images.classes)).tensor_split(parts)]


def _by_chance(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    order = torch.randperm(len(images), generator=rng)
    return [images.take(chunk.sort().values) for chunk in order.tensor_split(parts)]


def _stratified(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    order = torch.randperm(len(images), generator=rng)
    by_class = order[images.labels[order].argsort(stable=True)]
    return [images.take(by_class[i::parts].sort().values) for i in range(parts)]


def _by_order(images: Images, parts: int, rng: torch.Generator) -> list[Images]:
    return [images.take(torch.randperm(len(images), generator=rng)) for _ in range(parts)]


PARTITIONINGS: dict[str, Callable[[Images, int, torch.Generator], list[Images]]] = {
    "class": _by_class,
    "random": _by_chance,
    "stratified": _stratified,
    "order": _by_order,
}


def split_validation(images: Images, share: float, seed: int = 0) -> tuple[Images, Images]:
    """Cut a stratified validation split of `round(share * n)` images, at least one, from each class's n images."""
    rng = generator(seed, "validation")
    order = torch.randperm(len(images), generator=rng)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(images.classes)):
        of_class = order[images.labels[order] == label]
        held_out[of_class[: max(1, round(share * len(of_class)))]] = True
    return images.take((~held_out).nonzero().flatten()), images.take(held_out.nonzero().flatten())


# --- loading -----------------------------------------------------------------------------------------------------


def load(name: str, validation: float = 0.1, seed: int = 0, size: int | None = None) -> Dataset:
    """Load a data set by name, or a folder of class folders by its path.

    Parameters
    ----------
    name
        "cifar10-mini" (in the package), "cifar10", "cifar100", "tinyimagenet" (read from
        `$COLT_DATA/<name>.safetensors`, else downloaded once and prepared there), or a folder: class folders directly
        (a fifth becomes the test set) or below `train/` and `test/`. A suffix takes some of the classes:
        "cifar10:0-4", "cifar10:0,2,8". A folder whose images differ in size or are not square is resized by another:
        "pictures@32", "pictures@32:0-4".
    validation
        The share of each class of the training set held out for choices.
    seed
        For the validation split (and the test split of a plain folder).
    size
        The same as the suffix "@size", for folders alone.

    Raises
    ------
    ValueError
        For an unknown name, unknown classes, a damaged file, a folder with fewer than two classes or without images.
    """
    check_fraction("validation", validation)
    base, chosen, wanted_size = _split_name(name)
    size = wanted_size or size
    if base in BUILT_IN:
        tensors, classes = _embedded() if base == "cifar10-mini" else _read_prepared(base)
    elif Path(base).is_dir():
        tensors, classes = _read_folder(Path(base), size, seed)
    else:
        raise ValueError(f"unknown data set {base!r}; allowed: {', '.join(BUILT_IN)}, or a folder of class folders")
    train = Images(tensors["train_images"], tensors["train_labels"], classes)
    test = Images(tensors["test_images"], tensors["test_labels"], classes)
    if chosen:
        wanted = _parse_classes(chosen, len(classes), name)
        train, test = train.only(wanted), test.only(wanted)
    train, held_out = split_validation(train, validation, seed)
    mean, std = channel_statistics(train)
    return Dataset(name, *(replace(part, mean=mean, std=std) for part in (train, held_out, test)))


RESIZE = "to resize all, add a size to the folder's name, for example pictures@32"
CIFAR100_STATISTICS = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # mean, std: its training set's, rounded
BUILT_IN = ("cifar10-mini", "cifar10", "cifar100", "tinyimagenet")


def check_name(name: str) -> None:
    """Raise a `ValueError` if no data set could have this name; reads nothing."""
    base, _, _ = _split_name(name)
    if base not in BUILT_IN and not Path(base).is_dir():
        raise ValueError(f"unknown data set {base!r}; allowed: {', '.join(BUILT_IN)}, or a folder of class folders")


def check_fraction(name: str, value: float) -> None:
    """Raise a `ValueError` unless `value` lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value}")


def data_folder() -> Path:
    """Return where prepared data lies: `$COLT_DATA`, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("COLT_DATA") or Path(cache) / "colt")


def halves(name: str) -> tuple[str, str]:
    """Return the names of the first and the second half of a data set's classes: "cifar10:0-4" and "cifar10:5-9"."""
    base, chosen, size = _split_name(name)
    base += f"@{size}" if size else ""
    count = len(load(base).classes)
    wanted = _parse_classes(chosen, count, name) if chosen else list(range(count))
    if len(wanted) < 4:
        raise ValueError(f"data set {name!r} has {len(wanted)} classes; to be split in two halves it needs four")
    first, second = wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]
    return f"{base}:{_class_list(first)}", f"{base}:{_class_list(second)}"


def _class_list(classes: Sequence[int]) -> str:
    """Return "0-4", or "0,2,5-9": three in a row or more are written as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(classes), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def channel_statistics(images: Images, chunk: int = 2_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels per channel, as fractions of 255."""
    counts = torch.zeros(3, 256, dtype=torch.int64)  # how often each value occurs in each channel
    for index in torch.arange(len(images)).split(chunk):
        values = images.batch(index)
        counts += torch.stack([torch.bincount(values[:, i].flatten(), minlength=256) for i in range(3)])
    level = torch.arange(256)
    total, squares = (counts * level).sum(1), (counts * level**2).sum(1)
    pixels = len(images) * images.size**2
    mean = total.double() / pixels
    std = (squares.double() / pixels - mean**2).sqrt().clamp(min=1.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def is_built_in(name: str) -> bool:
    """Tell whether a data set's pixels are fixed by a checksum, unlike a user's folder."""
    return _split_name(name)[0] in BUILT_IN


def _split_name(name: str) -> tuple[str, str, int | None]:
    """Split "pictures@32:0-4" into name, classes and size; a path may hold colons of its own."""
    match = re.fullmatch(r"(.*?)(?:@(\d+))?(?::([\d,\-]+))?", name)
    assert match
    return match[1], match[3] or "", int(match[2]) if match[2] else None


def _parse_classes(text: str, available: int, name: str) -> list[int]:
    wanted: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError(f"data set {name!r}: {text!r} names no classes; write for example 0-4 or 0,2,8")
        wanted += range(int(first), int(last or first) + 1)
    if not wanted or len(set(wanted)) != len(wanted) or max(wanted) >= available:
        raise ValueError(f"data set {name!r}: classes must be different numbers in 0..{available - 1}")
    if len(wanted) < 2:
        raise ValueError(f"data set {name!r}: at least two classes are needed")
    return wanted


def _hash_into(digest: Any, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        for part in tensor.cpu().split(10_000):
            digest.update(memoryview(part.contiguous().numpy()).cast("B"))


def _sha256(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    _hash_into(digest, *tensors)
    return digest.hexdigest()


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
    if _sha256(tensors["train_images"], tensors["test_images"]) != about["sha256"]:
        raise ValueError(
            "the embedded data set cifar10-mini is altered: its checksum differs; install the package anew"
        )
    return tensors, tuple(about["classes"])


def _read_prepared(name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Read `$COLT_DATA/<name>.safetensors` memory-mapped and verified; prepare it first where it is missing."""
    from safetensors import SafetensorError, safe_open

    path = data_folder() / f"{name}.safetensors"
    if not path.exists():
        prepare(name)
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        for key, tensor in tensors.items():
            vars(tensor)["lies_in"] = str(path), key, path.stat().st_mtime_ns  # other processes map the same pages
        classes = tuple(json.loads(about["classes"]))
        whole = _sha256(tensors["train_images"], tensors["test_images"]) == about["sha256"]
        labels = _sha256(tensors["train_labels"], tensors["test_labels"])
        whole &= about.get("sha256_labels", labels) == labels
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as problem:
        raise ValueError(
            f"{path} is no prepared data set or is truncated ({problem}); delete it to prepare it anew"
        ) from None
    if not whole:
        raise ValueError(f"{path} is altered: its checksum differs; delete it to prepare it anew")
    return tensors, classes


def prepare(name: str) -> Path:
    """Download a data set with its integrity check and write `$COLT_DATA/<name>.safetensors`, whole or not at all."""
    from safetensors.torch import save_file

    from .files import write_whole

    tensors, classes = {"cifar10": _cifar, "cifar100": _cifar, "tinyimagenet": _tiny}[name](name)
    checks = {
        "sha256": _sha256(tensors["train_images"], tensors["test_images"]),
        "sha256_labels": _sha256(tensors["train_labels"], tensors["test_labels"]),
    }
    about = {"classes": json.dumps(classes), "name": name, **checks}
    path = data_folder() / f"{name}.safetensors"
    write_whole(path, lambda part: save_file(tensors, part, about))
    return path


def _cifar(name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    tensors: dict[str, torch.Tensor] = {}
    for part in ("train", "test"):
        try:
            found = kind(str(data_folder() / "downloads"), train=part == "train", download=True)
        except BROKEN as problem:
            raise ValueError(_download_advice(name, problem)) from None
        tensors[f"{part}_images"] = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        tensors[f"{part}_labels"] = torch.tensor(found.targets)
    return tensors, tuple(found.classes)


# Of a download: no network, a connection that ends too early, a file that is not the official one, a full disk.
BROKEN = (RuntimeError, OSError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError, zlib.error)


def _download_advice(name: str, problem: Exception) -> str:
    place = data_folder() / f"{name}.safetensors"
    if isinstance(problem, HTTPError):
        problem.close()  # it holds the connection
    return f"{name} could not be downloaded ({problem}); without a network put the prepared file at {place}"


def _tiny(name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """TinyImageNet from the official archive: classes in sorted wnid order; its validation set is the test set."""
    from torchvision.datasets.utils import download_url

    folder = data_folder() / "downloads"
    try:
        download_url(TINY_URL, str(folder), md5=TINY_MD5)
        with zipfile.ZipFile(folder / TINY_URL.rsplit("/", 1)[1]) as archive:
            return _read_tiny(archive)
    except BROKEN as problem:
        raise ValueError(_download_advice(name, problem)) from None


def _read_tiny(archive: Any) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    root = "tiny-imagenet-200/"
    names = sorted(archive.namelist())
    classes = tuple(sorted(archive.read(root + "wnids.txt").decode().split()))
    train = [n for n in names if n.startswith(root + "train/") and n.endswith(".JPEG")]
    lines = archive.read(root + "val/val_annotations.txt").decode().splitlines()
    test = {f"{root}val/images/{line.split()[0]}": line.split()[1] for line in sorted(lines) if line.strip()}
    labels = [classes.index(n.removeprefix(root).split("/")[1]) for n in train]
    return {
        "train_images": _decode(len(train), (archive.open(n) for n in train)),
        "train_labels": torch.tensor(labels),
        "test_images": _decode(len(test), (archive.open(n) for n in test)),
        "test_labels": torch.tensor([classes.index(wnid) for wnid in test.values()]),
    }, classes


def _decode(count: int, files: Any, size: int | None = None) -> torch.Tensor:
    """Decode image files into uint8 [N, 3, H, W]: RGB (grey images converted), one size, or resized to `size`."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    pixels = torch.empty(0, dtype=torch.uint8)
    for i, file in enumerate(files):
        path = file if isinstance(file, Path) else file.name
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError):
            raise ValueError(f"{path} is no image that can be read") from None
        picture = picture.resize((size, size)) if size else picture
        one = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
        pixels = torch.empty((count, *one.shape), dtype=torch.uint8) if i == 0 else pixels
        if one.shape != pixels.shape[1:]:
            found = f"{one.shape[2]}x{one.shape[1]} after {pixels.shape[3]}x{pixels.shape[2]}"
            raise ValueError(f"{path} has another size than those before it ({found}); {RESIZE}")
        if one.shape[1] != one.shape[2]:
            raise ValueError(f"{path} is not square ({one.shape[2]}x{one.shape[1]}); {RESIZE}")
        pixels[i] = one
    return pixels


def _read_folder(root: Path, size: int | None, seed: int) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """A user's folder of class folders; classes in sorted order of their folder names."""
    split = (root / "train").is_dir() and (root / "test").is_dir()
    train, classes = _read_classes(root / "train" if split else root, size)
    if split:
        test, other = _read_classes(root / "test", size)
        if other != classes:
            raise ValueError(f"{root}: train/ and test/ have different class folders")
        if test.size != train.size:
            raise ValueError(f"{root}: train/ and test/ have images of different sizes; {RESIZE}")
    else:
        train, test = split_validation(train, 0.2, seed)
    return {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }, classes


def _read_classes(root: Path, size: int | None) -> tuple[Images, tuple[str, ...]]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{root} holds {len(folders)} class folder(s); at least two are needed")
    files = {f: sorted(p for p in f.rglob("*") if p.is_file() and not p.name.startswith(".")) for f in folders}
    if empty := [f.name for f, inside in files.items() if len(inside) < 3]:
        raise ValueError(f"{root}: class folder {empty[0]!r} holds fewer than three images")
    paths = [p for inside in files.values() for p in inside]
    labels = torch.tensor([i for i, inside in enumerate(files.values()) for _ in inside])
    classes = tuple(f.name for f in folders)
    return Images(_decode(len(paths), paths, size), labels, classes), classes
