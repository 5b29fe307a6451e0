"""The official downloads: checked, and prepared once as tensor files."""

import json
import tarfile
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch

from ..files import sha256_of, write_tensors
from .imagenet import prepare_imagenet
from .pictures import decode
from .shelf import data_folder

TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

# What ends a download: no network, a connection that ends too early, a file that is not the official one, a full disk.
BROKEN = (RuntimeError, OSError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError, zlib.error)


def prepare(name: str) -> Path:
    """Download a data set with its integrity check and write `$COLT_DATA/<name>.safetensors`, whole or not at all."""
    if name == "imagenet-64":
        return prepare_imagenet(name)
    makers = {"tinyimagenet": _tiny, "fashion-mnist": _fashion, "svhn": _svhn}
    tensors, classes = makers.get(name, _cifar)(name)
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
        found = _downloaded(name, kind, train=part == "train")
        tensors[f"{part}_images"] = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        tensors[f"{part}_labels"] = torch.tensor(found.targets)
    return tensors, tuple(found.classes)


def _fashion(name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """FashionMNIST: 60,000 and 10,000 grey images of 28 pixels."""
    from torchvision.datasets import FashionMNIST

    tensors: dict[str, torch.Tensor] = {}
    for part in ("train", "test"):
        found = _downloaded(name, FashionMNIST, train=part == "train")
        tensors[f"{part}_images"] = found.data[:, None].contiguous()
        tensors[f"{part}_labels"] = found.targets.long()
    return tensors, tuple(found.classes)


def _svhn(name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """SVHN: 73,257 and 26,032 digits; its extra images are left out."""
    from torchvision.datasets import SVHN

    tensors: dict[str, torch.Tensor] = {}
    for part in ("train", "test"):
        found = _downloaded(name, SVHN, split=part)
        tensors[f"{part}_images"] = torch.from_numpy(found.data).contiguous()
        tensors[f"{part}_labels"] = torch.from_numpy(found.labels).long()
    return tensors, tuple("0123456789")


def _downloaded(name: str, kind: Any, **which: Any) -> Any:
    try:
        return kind(str(data_folder() / "downloads"), download=True, **which)
    except BROKEN as problem:
        raise ValueError(_download_advice(name, problem)) from None


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
