"""The official downloads: checked, and prepared once as tensor files."""

import json
import os
import tarfile
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch

from ..files import sha256_of, write_tensors
from .pictures import decode

TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

# What ends a download: no network, a connection that ends too early, a file that is not the official one, a full disk.
BROKEN = (RuntimeError, OSError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError, zlib.error)


def data_folder() -> Path:
    """Return where prepared data lies: `$COLT_DATA`, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("COLT_DATA") or Path(cache) / "colt")


def prepare(name: str) -> Path:
    """Download a data set with its integrity check and write `$COLT_DATA/<name>.safetensors`, whole or not at all."""
    tensors, classes = {"cifar10": _cifar, "cifar100": _cifar, "tinyimagenet": _tiny}[name](name)
    checks = {
        "sha256": sha256_of(tensors["train_images"], tensors["test_images"]),
        "sha256_labels": sha256_of(tensors["train_labels"], tensors["test_labels"]),
    }
    about = {"classes": json.dumps(classes), "name": name, **checks}
    return write_tensors(data_folder() / f"{name}.safetensors", tensors, about)


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
        "train_images": decode(len(train), (archive.open(n) for n in train)),
        "train_labels": torch.tensor(labels),
        "test_images": decode(len(test), (archive.open(n) for n in test)),
        "test_labels": torch.tensor([classes.index(wnid) for wnid in test.values()]),
    }, classes
