"""A data set's three parts: `Dataset`. One is made of what users have at hand, saved, and known by a name."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..files import part_of, rows_at_once, sweep, write_whole
from ..settings import check_fraction, one_line, shown
from .given import check_labels, raw_of
from .images import Images, Shape, channel_statistics, classes_in_words, in_words
from .names import OWN
from .pictures import RESIZE, check_size, resized
from .shelf import data_folder, label, make_once
from .stored import Parts, Stored, parts_of, read_stored
from .streaming import Raw, SetWriter, image_hashes, write_raw

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set ready for experiments: `train`, `validation` (cut from train, for every choice), `test` (reports).

    Attributes
    ----------
    name
        What it is called.
    train, validation, test
        Its parts; all have the same classes, and are normalised by the training images.
    notes
        What is worth knowing of it, a line each: files left out, uneven classes, images that occur twice.
    kept
        The name by which `load` gives just these parts, and the parts; None: it gives them by none.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    notes: tuple[str, ...] = ()
    kept: tuple[str, Parts] | None = None

    @classmethod
    def of(
        cls,
        train: Any,
        test: Any = None,
        classes: Sequence[str] | None = None,
        validation: Any = 0.1,
        seed: int = 0,
        name: str | None = None,
        size: int | None = None,
    ) -> "Dataset":
        """Make a data set of tensors, arrays, or pictures with labels.

        Parameters
        ----------
        train, test
            Each is (images, labels), or anything with a length that gives (picture, label) by number, for example a
            data set of torchvision's; where it gives rows with names, as those of the library `datasets` do, "image" or
            "img" is the picture and "label", "labels" or "fine_label" the label. Images are uint8 [N, C, H, W] with one
            or three channels, as a tensor or an array ([N, H, W] and [N, H, W, C] are recognised), or a list of
            Pillow's pictures; where all pictures are grey, images have one channel. Labels are whole numbers [N].
            Without `test` a fifth of each class of train is it. Arrays stay in memory, uncopied where their shape
            allows it; pictures are decoded once, a few at a time, into a file that is mapped into memory
            (`colt_core.data.prepared` shows it).
        classes
            Names by label; None: those that `train` knows (`train.classes`), else numbers.
        validation
            The share of each class of train held out for choices, or images and labels of their own, as for train.
        seed
            For the splits.
        name
            What it is called.
        size
            Bring all images to this square: the short side is resized, then the centre is cut out.

        Raises
        ------
        ValueError
            In one line, for images or labels that are missing, of another length, type or shape than said; images of
            different sizes, without a size; labels of no class; a class without a training image.
        """
        own = not isinstance(validation, int | float)
        if not own:
            check_fraction("validation", validation)
        size = check_size(size) if size is not None else None
        called = one_line(name or "data")
        raw = raw_of(train, test, validation if own else None, classes)
        share = 0.1 if own else float(validation)
        if all(part is None or part.arrays is not None for part in (raw.train, raw.validation, raw.test)):
            parts, notes = parts_of(_in_memory(raw, size), called, share, seed)
            return cls(called, *parts, notes)
        return cls._decoded(raw, called, size, share, seed)

    @classmethod
    def _decoded(cls, raw: Raw, name: str, size: int | None, share: float, seed: int) -> "Dataset":
        """Decode pictures into a file of their own: first in their order, then as they are split."""
        folder = data_folder() / "own"
        sweep(folder)
        aside = part_of(folder / label(name))
        try:
            write_whole(aside, lambda part: write_raw(part, raw, name, size))
            parts, notes = parts_of(read_stored(aside, "try again"), name, share, seed)
            known = cls(name, *parts, notes).named()
        finally:
            aside.unlink(missing_ok=True)
        parts, notes = parts_of(read_stored(own_path(known), "try again"), name, share, seed)
        return cls(name, *parts, notes, (known, parts))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, part)):,} {part}" for part in ("train", "validation", "test"))
        told = "".join(f"\n  {note}" for note in self.notes)
        shape: Shape = self.train.shape
        return f"Dataset({one_line(self.name)}: {counts} of {in_words(shape)}, {classes_in_words(self.classes)}){told}"

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

    def save(self, path: str | Path) -> Path:
        """Write the data set as one tensor file, whole or not at all; `load` gives the same parts back by its path.

        The file holds `train_images` (uint8 [N, C, H, W], those of the validation split among them), `train_labels`
        (int64 [N]), `held_out` (bool [N]: the validation split), `test_images`, `test_labels`, and the class names in
        its metadata.

        Raises
        ------
        ValueError
            If the path does not end with ".safetensors".
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"a data set's file must end with .safetensors, not {shown(str(path))}")
        return write_whole(path, self._write)

    def named(self) -> str:
        """Return a name by which `load` gives this data set in any process on this machine, as experiments need it.

        A data set that was loaded has one. Any other is written, once, to `$COLT_DATA/own/`, and named by its content:
        the name says nothing of the machine, and two data sets with the same name are the same.
        """
        parts = self.train, self.validation, self.test
        if self.kept and all(a is b for a, b in zip(self.kept[1], parts, strict=True)) and _is_there(self.kept[0]):
            return self.kept[0]
        prints = json.dumps([part.fingerprint() for part in parts])
        name = f"{OWN}{label(self.name)}-{hashlib.sha256(prints.encode()).hexdigest()[:16]}"
        make_once(own_path(name), lambda: self._write)
        object.__setattr__(self, "kept", (name, parts))
        return name

    def _write(self, path: Path) -> None:
        training, held_out = _together(self.train, self.validation)
        counts = {"train": len(held_out), "test": len(self.test)}
        writer = SetWriter(path, counts, self.train.shape, True, 2**16 + len(json.dumps(self.classes)))
        try:
            for part, images in [*(("train", one) for one in training), ("test", self.test)]:
                for index in torch.arange(len(images)).split(rows_at_once(images.pixels)):
                    writer.add(part, images.batch(index).cpu(), images.labels[index].tolist())
            about = {"classes": json.dumps(self.classes), "name": self.name}
            if (self.mean, self.std) != channel_statistics(self.train):
                about["statistics"] = json.dumps([self.mean, self.std])
            writer.finish(about, held_out)
        finally:
            writer.file.close()


def _together(train: Images, validation: Images) -> tuple[list[Images], torch.Tensor]:
    """Return all training images in the order of a file, and which of them are the validation split.

    Where one was cut from the other they are put back in the order that they had.
    """
    if train.pixels is validation.pixels and train.rows is not None and validation.rows is not None:
        rows = torch.cat([train.rows, validation.rows])
        order = rows.argsort(stable=True)
        if all(bool((part.rows.diff() > 0).all()) for part in (train, validation) if part.rows is not None):
            labels = torch.cat([train.labels, validation.labels])
            return [replace(train, labels=labels[order], rows=rows[order])], order >= len(train)
    return [train, validation], torch.arange(len(train) + len(validation)) >= len(train)


def _in_memory(raw: Raw, size: int | None) -> Stored:
    """Return the tensors of a data set that is given as arrays."""
    classes, arrays = check_labels(raw), {w: p.arrays for w in PARTS if (p := getattr(raw, w)) and p.arrays}
    images = {what: resized(pixels, size) if size else pixels for what, (pixels, _) in arrays.items()}
    for what, pixels in images.items():
        if pixels.shape[1:] != images["train"].shape[1:]:
            found = f"{in_words(tuple(pixels.shape[1:]))}, those of train {in_words(tuple(images['train'].shape[1:]))}"
            raise ValueError(f"the images of {what} are {found}; all must have one shape; {RESIZE}")
    tensors = {f"{what}_images": pixels for what, pixels in images.items()}
    tensors |= {f"{what}_labels": labels for what, (_, labels) in arrays.items()}
    if "validation" in arrays:
        count = len(images["train"])
        for kind in ("images", "labels"):
            tensors[f"train_{kind}"] = torch.cat([tensors[f"train_{kind}"], tensors.pop(f"validation_{kind}")])
        tensors["held_out"] = torch.arange(len(tensors["train_labels"])) >= count
    for what in ("train", "test"):
        if f"{what}_images" in tensors:
            tensors[f"{what}_hashes"] = image_hashes(tensors[f"{what}_images"])
    return Stored(tensors, classes)


def own_path(name: str) -> Path:
    """Return where the data set of a name that begins with "own:" lies."""
    return data_folder() / "own" / f"{name.removeprefix(OWN)}.safetensors"


def _is_there(name: str) -> bool:
    return not name.startswith(OWN) or own_path(name).exists()
