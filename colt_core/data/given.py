"""What users have at hand, recognised: tensors, arrays, lists of pictures, and whatever yields (picture, label)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..settings import first_line, shown
from .pictures import Unreadable
from .streaming import Item, Part, Raw, as_images, numbered

IMAGE_NAMES, LABEL_NAMES = ("image", "img"), ("label", "labels", "fine_label")  # as the library datasets names them
WANTED = "(images, labels), or something with a length that gives (picture, label) by number"


def raw_of(train: Any, test: Any = None, validation: Any = None, classes: Any = None) -> Raw:
    """Return a data set of what is given; see `Dataset.of`.

    Raises
    ------
    ValueError
        In one line, for what is none.
    """
    given = {"train": train, "test": test, "validation": validation}
    if classes is None and (spelled := _spelled(train)):
        classes = sorted(set(spelled))
    names = _names(classes) if classes is not None else _own_names(train)
    given = {what: _numbers(what, one, names) for what, one in given.items()}
    parts = {what: _part(what, one) for what, one in given.items() if one is not None}
    if "train" not in parts:
        raise ValueError(f"train must be {WANTED}, not None")
    if classes is None and names:
        parts = {what: _by_name(what, part, _own_names(given[what]), names) for what, part in parts.items()}
    return Raw(parts["train"], parts.get("test"), parts.get("validation"), names)


def _spelled(given: Any) -> list[str] | None:
    """Return the labels of (images, labels) where they are names."""
    if not is_pair(given) or given[1] is None or isinstance(given[1], torch.Tensor):
        return None
    labels = given[1].tolist() if isinstance(given[1], np.ndarray) else list(given[1])
    return labels if labels and all(isinstance(one, str) for one in labels) else None


def _numbers(what: str, given: Any, names: tuple[str, ...] | None) -> Any:
    """Return (images, labels) with numbers in place of names."""
    if names is None or (spelled := _spelled(given)) is None:
        return given
    if unknown := [one for one in spelled if one not in names]:
        raise ValueError(f"{what}: {unknown[0]!r} is none of the classes, {', '.join(names)}")
    return given[0], [names.index(one) for one in spelled]


def _by_name(what: str, part: Part, own: tuple[str, ...] | None, names: tuple[str, ...]) -> Part:
    """Return a part whose labels count the classes as train does: a data set object may have others, or another order.

    Raises
    ------
    ValueError
        In one line, where it knows a class that train does not.
    """
    if own is None or own == names:
        return part
    if unknown := [name for name in own if name not in names]:
        raise ValueError(f"{what} has the class {unknown[0]!r}, which train has not: {', '.join(names)}")
    order = [names.index(name) for name in own]

    def read() -> Iterator[Item]:
        for where, picture, label in part.read():
            known = label is not None and _plain(label) and 0 <= int(label) < len(order)
            yield where, picture, order[int(label)] if known else label

    return replace(part, read=read)


def is_pair(given: Any) -> bool:
    """Tell whether something is (images, labels), and not a list of two (picture, label)."""
    return isinstance(given, tuple | list) and len(given) == 2 and not _is_item(given[0])


def _is_item(one: Any) -> bool:
    return isinstance(one, tuple | list) and len(one) == 2 and (np.ndim(one[1]) == 0 if _plain(one[1]) else False)


def _plain(label: Any) -> bool:
    return label is None or isinstance(label, int | float | str | np.generic | np.ndarray | torch.Tensor)


def _part(what: str, given: Any) -> Part:
    if is_pair(given):
        return _of_pair(what, *given)
    if isinstance(given, torch.Tensor | np.ndarray):
        raise ValueError(f"{what}: the labels are missing; it must be {WANTED}")
    if isinstance(given, Mapping) and "train" in given:
        raise ValueError(f"{what} must be {WANTED}, not {type(given).__name__}: give its splits one by one")
    if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")) or isinstance(given, str | bytes | dict):
        raise ValueError(f"{what} must be {WANTED}, not {type(given).__name__}")
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        raise ValueError(f"{what} is a table: give two of its columns, (list(table.image), table.label.to_numpy())")
    _not_empty(what, len(given))
    return Part(len(given), lambda: _items(what, given))


def _of_pair(what: str, images: Any, labels: Any) -> Part:
    if labels is None:
        raise ValueError(f"{what}: the labels are missing; it must be {WANTED}")
    if not hasattr(images, "__len__"):
        raise ValueError(
            f"{what}: images must be a tensor, an array or a list of pictures, not {type(images).__name__}"
        )
    numbers = as_labels(labels, what)
    if len(images) != len(numbers):
        raise ValueError(f"{what} has {len(images):,} images and {len(numbers):,} labels; one label an image is needed")
    _not_empty(what, len(images))
    if not isinstance(images, torch.Tensor | np.ndarray):
        return Part(len(images), lambda: _labelled(what, images, numbers))
    pixels = as_images(images, what)
    return Part(len(pixels), lambda: _labelled(what, pixels, numbers), (pixels, numbers))


def _not_empty(what: str, count: int) -> None:
    if not count:
        raise ValueError(f"{what} has no image")


def as_labels(labels: Any, what: str) -> torch.Tensor:
    """Return labels as int64 [N]; [N, 1] is squeezed.

    Raises
    ------
    ValueError
        In one line, where they are no whole numbers, missing, or not one an image.
    """
    try:
        found = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
    except Exception as problem:  # lists of lists of several lengths, and what else NumPy refuses
        raise ValueError(f"{what}: labels must be whole numbers, one an image ({first_line(problem)})") from None
    if found.dtype == object and any(one is None for one in found.flat):
        raise ValueError(f"{what}: {sum(one is None for one in found.flat)} of {len(found)} labels are missing")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise ValueError(f"{what}: labels must be whole numbers, one an image, not of shape {list(found.shape)}")
    if len(found) and found.dtype.kind not in "iu":
        raise ValueError(f"{what}: labels must be whole numbers, not {found.dtype}")
    if len(found) and (int(found.min()) < 0 or int(found.max()) > 2**31):
        raise ValueError(f"{what}: labels must be 0, 1, ..., not {found.min()}..{found.max()}")
    return torch.from_numpy(found.astype(np.int64))


def check_labels(raw: Raw) -> tuple[str, ...]:
    """Return the class names of a data set in memory; raise a `ValueError` for a label outside of them."""
    labels = {what: part.arrays[1] for what in ("train", "validation", "test") if (part := getattr(raw, what))}
    classes = raw.classes or numbered([int(labels["train"].max())])
    for what, found in labels.items():
        if (most := int(found.max())) >= len(classes):
            raise ValueError(
                f"{what}: labels must lie in 0..{len(classes) - 1}, there are {len(classes)} classes, not {most}"
            )
    return classes


def _labelled(what: str, images: Any, labels: torch.Tensor) -> Iterator[Item]:
    for i, label in enumerate(labels.tolist()):
        yield f"image {i} of {what}", images[i], label


def _items(what: str, given: Any) -> Iterator[Item]:
    for i in range(len(given)):
        where = f"image {i} of {what}"
        try:
            item = given[i]
        except Exception as problem:  # a file that is damaged, or whatever the data set stumbles over
            yield where, Unreadable(where, f"{type(problem).__name__}: {first_line(problem)}"), None
            continue
        if isinstance(item, Mapping):
            item = tuple(item[_column(where, item, usual)] for usual in (IMAGE_NAMES, LABEL_NAMES))
        if not isinstance(item, tuple | list) or len(item) != 2:
            found = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
            raise ValueError(f"{where}: it must be (picture, label), not {found}")
        yield where, item[0], item[1]


def _column(where: str, names: Iterable[str], usual: tuple[str, ...]) -> str:
    """Return the column of pictures or of labels where they have names, as in the library `datasets`."""
    found = next((name for name in usual if name in names), None)
    if found is None:
        has = ", ".join(shown(name) for name in names)
        raise ValueError(f"{where}: it must be (picture, label), or have one of {', '.join(usual)}; it has {has}")
    return found


def _own_names(given: Any) -> tuple[str, ...] | None:
    """Return the names of classes that a data set object, or the one that it is a part of, knows: as torchvision's."""
    whole = getattr(given, "dataset", given)  # of torch.utils.data.Subset
    names = getattr(whole, "classes", None) or getattr(whole, "categories", None)
    if isinstance(features := getattr(whole, "features", None), Mapping):  # of the library datasets
        label = next((name for name in LABEL_NAMES if name in features), None)
        names = names or getattr(features.get(label), "names", None)
    if not isinstance(names, list | tuple) or not names:
        return None
    return tuple(str(name[0]) if isinstance(name, tuple | list) and name else str(name) for name in names)


def _names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray) or len(classes) < 2:
        raise ValueError(f"classes must be the names of at least two classes, not {shown(classes)}")
    found = tuple(str(name) for name in classes)
    if twice := [name for i, name in enumerate(found) if name in found[:i]]:
        raise ValueError(f"classes must be the names of different classes: {twice[0]!r} is there twice")
    return found
