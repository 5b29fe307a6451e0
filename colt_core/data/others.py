"""Other libraries' data sets by name: torchvision, `datasets` of Hugging Face; and a function's, and those in files.

Each is brought into one form, `Raw`, which is prepared once; see `load`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..foreign import fingerprint, imported, where_in
from ..settings import first_line, shown
from .dataset import Dataset
from .folder import stamp_of_all
from .given import IMAGE_NAMES, LABEL_NAMES, raw_of
from .pictures import Unreadable
from .pictures import shown as path_shown
from .prepare import BROKEN
from .shelf import data_folder
from .stored import part_of_images
from .streaming import Item, Part, Raw

NO_SETS = ("DatasetFolder", "ImageFolder", "VisionDataset")  # they need a folder, which has a name of its own
VALIDATION = ("val", "valid", "validation")
OPTIONS = {"train", "test", "validation", "classes"}  # of `Dataset.of`, those that are data


# --- torchvision -------------------------------------------------------------------------------------------------


def torchvision_class(name: str) -> Any:
    """Return a class of torchvision.datasets; raise a `ValueError` where there is none."""
    from torchvision import datasets

    if name not in datasets.__all__ or name in NO_SETS or not inspect.isclass(getattr(datasets, name)):
        raise ValueError(f"torchvision.datasets has no data set {shown(name)} that is known by its name alone")
    return getattr(datasets, name)


def raw_torchvision(name: str) -> Raw:
    """Return one of torchvision's data sets, downloaded to `$COLT_DATA/downloads` where it can be."""
    kind = torchvision_class(name)
    known = inspect.signature(kind.__init__).parameters
    make = lambda **which: _made(kind, known, which)  # noqa: E731
    if "train" in known:
        return raw_of(make(train=True), make(train=False))
    if "split" not in known:
        return raw_of(make())
    train, test = _first(make, ("train", "trainval")), _first(make, ("test",))
    if train is None:
        raise ValueError(f"torchvision:{name} has no split train; make it yourself and give it to cc.Dataset.of")
    held_out = _first(make, VALIDATION)
    return raw_of(train, test, held_out) if test is not None else raw_of(train, held_out)


def _first(make: Callable[..., Any], splits: tuple[str, ...]) -> Any:
    """Return the first of these splits that a data set has, or None."""
    for split in splits:
        try:
            return make(split=split)
        except _NoSplit:
            continue
    return None


class _NoSplit(ValueError):
    """A data set has no split of this name."""


def _made(kind: Any, known: Mapping[str, Any], which: dict[str, Any]) -> Any:
    place = data_folder() / "downloads"
    given = (
        which | ({"root": str(place)} if "root" in known else {}) | ({"download": True} if "download" in known else {})
    )
    try:
        return kind(**given)
    except (*BROKEN, ImportError) as problem:
        found = first_line(problem)
        raise ValueError(
            f"torchvision:{kind.__name__} could not be downloaded or read ({found}); without a network put its files "
            f"into {place}"
        ) from None
    except ValueError as problem:
        if "split" in which and ("nknown value" in str(problem) or "alid values" in str(problem)):
            raise _NoSplit from None
        raise ValueError(f"torchvision:{kind.__name__}: {first_line(problem)}") from None
    except TypeError as problem:  # it needs more than a place
        raise ValueError(
            f"torchvision:{kind.__name__}: {first_line(problem)}; make it yourself and give it to cc.Dataset.of"
        ) from None


# --- datasets of Hugging Face ------------------------------------------------------------------------------------


def is_local(name: str) -> bool:
    """Tell whether what stands after "hf:" is a folder, not a name on the hub."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).is_dir()


def hub_stamp(name: str) -> str:
    """Return what changes with the files of a folder; of a name on the hub, nothing does."""
    return stamp_of_all(Path(name).expanduser()) if is_local(name) else ""


def raw_hub(name: str) -> Raw:
    """Return a data set of the library `datasets`: by its name on the hub, or from a folder."""
    splits = _splits(name)
    train = next((splits[key] for key in splits if key.startswith("train")), None)
    if train is None and len(splits) == 1:
        (train,) = splits.values()
    if train is None:
        raise ValueError(f"hf:{name} has no split train, but {', '.join(splits) or 'none'}")
    image, label = _columns(name, train.features)
    found = {what: split for what in ("train", "test", *VALIDATION) if (split := splits.get(what)) is not None}
    found = {what: one for what, one in (found | {"train": train}).items() if _has_labels(one, label)}
    held_out = next((found[key] for key in VALIDATION if key in found), None)
    test = found.get("test", held_out)
    if test is held_out:
        held_out = None
    if "train" not in found:
        raise ValueError(f"hf:{name}: the labels of the training set are missing")
    names = getattr(train.features[label], "names", None)
    parts = {"train": train, "test": test, "validation": held_out}
    given = {what: _hub_part(what, one, image, label) for what, one in parts.items() if one is not None}
    classes = tuple(map(str, names)) if names else None
    return Raw(given["train"], given.get("test"), given.get("validation"), classes)


def _splits(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"hf:{name} needs the library datasets: pip install 'colt-workbook[data]'") from None
    place = str(Path(name).expanduser().resolve()) if is_local(name) else name
    parts = [] if is_local(name) else name.split("/")[2:]  # user/name/configuration
    source = place if not parts else "/".join(name.split("/")[:2])
    try:
        if is_local(name) and any((Path(place) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(place)
        else:
            cache = str(data_folder() / "downloads" / "huggingface")
            found = datasets.load_dataset(source, *parts, cache_dir=cache)
    except Exception as problem:  # no network, no such set, a file that is damaged, a script that is needed
        raise ValueError(f"hf:{name} cannot be loaded: {type(problem).__name__}: {first_line(problem)}") from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _columns(name: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Return the columns of images and of labels, by their types; of several, the one with the usual name."""
    import datasets

    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    whole = [key for key in LABEL_NAMES if "int" in str(getattr(features.get(key), "dtype", ""))]
    chosen = [_one(images, IMAGE_NAMES), _one(labels or whole[:1], LABEL_NAMES)]
    if None in chosen:
        kinds = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in features.items())
        raise ValueError(f"hf:{name}: one column of type Image and one of type ClassLabel are needed, not {kinds}")
    return chosen[0] or "", chosen[1] or ""


def _one(columns: list[str], usual: tuple[str, ...]) -> str | None:
    if len(columns) == 1:
        return columns[0]
    return next((column for column in usual if column in columns), None)


def _has_labels(split: Any, label: str) -> bool:
    """Tell whether a split has labels: of a test set that is kept secret all are -1, or none is there."""
    if label not in split.column_names or not len(split):
        return False
    return any(one is not None and one >= 0 for one in split[label][:100])


def _hub_part(what: str, split: Any, image: str, label: str) -> Part:
    def read() -> Iterator[Item]:
        for i in range(len(split)):
            where = f"image {i} of {what}"
            try:
                row = split[i]
            except Exception as problem:  # of a picture that is damaged
                row = {image: Unreadable(where, first_line(problem)), label: None}
            yield where, row[image], row[label]

    return Part(len(split), read)


# --- a function of one's own -------------------------------------------------------------------------------------


def source_stamp(name: str) -> str:
    """Return the version of the code in which a function "package.module:function" stands; it is not run.

    Raises
    ------
    ValueError
        In one line, where there is no such module.
    """
    return fingerprint(name, "data set")


def raw_function(name: str) -> Raw:
    """Return what a function "package.module:function" gives: a `Dataset`, or what `Dataset.of` takes."""
    make = imported(name, "data set")
    try:
        given = make() if callable(make) else make
    except Exception as problem:  # whatever a user's function stumbles over
        told = f"{type(problem).__name__}: {first_line(problem)}{where_in(problem)}"
        raise ValueError(f"data set {name!r} cannot be made: {told}") from problem
    if isinstance(given, tuple) and not isinstance(given, Dataset):
        given = dict(zip(("train", "test", "classes"), given, strict=False))
    if isinstance(given, Mapping):
        allowed = list(inspect.signature(Dataset.of).parameters)
        if odd := [key for key in given if key not in allowed]:
            raise ValueError(f"data set {name!r} gives {shown(odd[0])}; allowed: {', '.join(allowed)}")
        if "train" not in given:
            raise ValueError(f"data set {name!r} gives {', '.join(map(shown, given)) or 'nothing'}, and no train")
        if set(given) <= OPTIONS and not isinstance(given.get("validation"), int | float):
            return raw_of(**given)
        given = Dataset.of(**given)
    if not isinstance(given, Dataset):
        wanted = "a Dataset, or the arguments of Dataset.of as a mapping"
        raise ValueError(f"data set {name!r} must give {wanted}, not {type(given).__name__}")
    train, test, held_out = (part_of_images(what, getattr(given, what)) for what in ("train", "test", "validation"))
    return Raw(train, test, held_out, given.classes)


# --- files -------------------------------------------------------------------------------------------------------


def raw_file(path: Path) -> Raw:
    """Return the arrays of a .npz or .safetensors file: train_images, train_labels, ..., or x_train, y_train, ..."""
    arrays = _arrays(path)
    found: dict[str, Any] = {}
    for what, names in {"train": ("train",), "test": ("test",), "validation": VALIDATION}.items():
        for name in names:
            for images, labels in ((f"{name}_images", f"{name}_labels"), (f"x_{name}", f"y_{name}")):
                if images in arrays:
                    found.setdefault(what, (arrays[images], arrays.get(labels)))
    if "train" not in found:
        held = ", ".join(sorted(arrays)[:8]) or "nothing"
        raise ValueError(
            f"{path_shown(path)} must hold train_images and train_labels, or x_train and y_train; it holds {held}"
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    try:
        return raw_of(**found)
    except ValueError as problem:
        raise ValueError(f"{path_shown(path)}: {problem}") from None


def _arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    from ..files import Damaged, read_tensors

    try:
        if path.suffix == ".safetensors":
            return dict(read_tensors(path)[0])
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (Damaged, OSError, EOFError, ValueError, *BROKEN) as problem:
        raise ValueError(f"{path_shown(path)} cannot be read ({first_line(problem)})") from None
