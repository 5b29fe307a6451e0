"""What is worth saying of a data set: files left out, classes of very different sizes, images that occur twice."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from ..settings import one_line
from .images import Images

UNEVEN = 1.5  # times the smallest class: of a larger class it is said

_said: set[str] = set()  # warnings of this process


def notes_of(parts: Sequence[Images], hashes: Sequence[torch.Tensor | None], skipped: Mapping[str, int]) -> list[str]:
    """Return what to say of training, validation and test images, a line each.

    Parameters
    ----------
    parts
        The three.
    hashes
        A hash of every pixel of each part, int64 [M] (see `Images.pixels`); None: not known, nothing is said of it.
    skipped
        The number of files that are no pictures, by the ending of their names.
    """
    told = [_left_out(skipped), _uneven(parts[0]), _missing(parts[2])]
    return [line for line in told if line] + _copies(parts, hashes)


def warn_of_leaks(name: str, parts: Sequence[Images], hashes: Sequence[torch.Tensor | None]) -> None:
    """Warn, once in a process, where test images are among the training images too."""
    if (line := _leaked(parts, hashes)) and (told := f"{one_line(name)}: {line}") not in _said:
        _said.add(told)
        warnings.warn(told, stacklevel=4)  # the line that loads


def _left_out(skipped: Mapping[str, int]) -> str:
    if not skipped:
        return ""
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(skipped.items()))
    count = sum(skipped.values())
    return f"{'1 file is no picture' if count == 1 else f'{count:,} files are no pictures'} and left out: {kinds}"


def _uneven(train: Images) -> str:
    counts = train.counts()
    least, most = min(counts), max(counts)
    if not least or most / least <= UNEVEN:
        return ""
    small, large = (one_line(train.classes[counts.index(n)]) for n in (least, most))
    return f"classes are uneven: {large!r} has {most:,} training images, {small!r} has {least:,}"


def _missing(test: Images) -> str:
    missing = [one_line(name) for name, count in zip(test.classes, test.counts(), strict=True) if not count]
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"no test image of {', '.join(map(repr, missing[:5]))}{more}" if missing else ""


def _copies(parts: Sequence[Images], hashes: Sequence[torch.Tensor | None]) -> list[str]:
    known = _known(parts, hashes)
    if known is None:
        return []
    train, _ = known
    twice = len(train) - len(train.unique())
    told = [f"{twice:,} of {len(train):,} training images are copies of others"] if twice else []
    return told + ([leaked] if (leaked := _leaked(parts, hashes)) else [])


def _leaked(parts: Sequence[Images], hashes: Sequence[torch.Tensor | None]) -> str:
    known = _known(parts, hashes)
    both = int(torch.isin(known[1], known[0]).sum()) if known else 0
    return f"{both:,} of {len(parts[2]):,} test images are among the training images too" if both else ""


def _known(parts: Sequence[Images], hashes: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the hashes of all images to train on or to choose by, and of those to test on."""
    of_part = [h if h is None or p.rows is None else h[p.rows] for p, h in zip(parts, hashes, strict=True)]
    train, validation, test = of_part
    return None if train is None or validation is None or test is None else (torch.cat([train, validation]), test)


def endings_of(names: Sequence[str]) -> dict[str, int]:
    """Count files by the ending of their names; one without is counted by its name."""
    return dict(Counter("." + name.rpartition(".")[2].lower() if "." in name[1:] else name for name in names))
