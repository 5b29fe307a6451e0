"""Names of data sets: what kind a name is of, and what its suffixes say."""

import os
import re
from collections.abc import Sequence
from itertools import groupby

COUNTS = {"cifar10-mini": 10, "cifar10": 10, "cifar100": 100, "tinyimagenet": 200}  # classes
COUNTS |= {"fashion-mnist": 10, "svhn": 10, "imagenet-64": 1000}

BUILT_IN = tuple(COUNTS)

OWN = "own:"  # what the names of data sets begin with that were made here, and kept by their content

KINDS = {OWN: "own", "torchvision:": "torchvision", "hf:": "hf"}  # by the beginning of a name

ELSE = "or a folder of class folders, a .npz or .safetensors file, torchvision:<class>, hf:<user/name>, module:function"

Name = str | os.PathLike[str]


def kind_of(base: str) -> str:
    """Return what kind of name this is: "built in", "own", "torchvision", "hf", "folder", "file", "function" or ""."""
    if base in BUILT_IN:
        return "built in"
    if known := next((kind for start, kind in KINDS.items() if base.startswith(start) and base != start), ""):
        return known
    if base and os.path.isdir(base):
        return "folder"
    if base.endswith((".npz", ".safetensors")) and os.path.isfile(base):
        return "file"
    return "function" if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", base) else ""


def class_list(classes: Sequence[int]) -> str:
    """Return "0-4", or "0,2,5-9": three in a row or more are written as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(classes), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def split_name(name: Name) -> tuple[str, str, str]:
    """Split "pictures@32:0-4" into name, classes and size, or "" for what it lacks; a path may hold colons itself."""
    if not isinstance(name, str | os.PathLike):
        found, own = type(name).__name__, hasattr(name, "__getitem__") and hasattr(name, "__len__")
        advice = "; of what you have in hand make one: cc.Dataset.of(train=..., test=...)" if own else ""
        raise ValueError(f"a data set's name must be text or a path, not {found}{advice}")
    match = re.fullmatch(r"(.*?)(?:@(\d+))?(?::([\d,\-]+))?", os.fspath(name), re.DOTALL)
    assert match
    return match[1], match[3] or "", match[2] or ""


def parse_classes(text: str, available: int, name: str) -> list[int]:
    """Return the numbers of "0-4" or "0,2,8" below `available`; raise a `ValueError` that names the data set."""
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
