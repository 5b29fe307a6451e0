"""What experiments read: data sets by name, as an experiment sees them, and their fingerprints. The last are kept."""

from dataclasses import replace
from functools import lru_cache

from .. import data as datasets
from ..data import Dataset


@lru_cache(maxsize=4)
def dataset_of(name: str) -> Dataset:
    """Return a data set; the last few are kept."""
    return datasets.load(name)


@lru_cache(maxsize=4)
def as_seen(name: str, official: tuple[str, ...] | None, scoring: bool = False) -> Dataset:
    """Return a data set as an experiment sees it: see `Experiment.official`."""
    data, choices = dataset_of(name), official or ()
    if "cifar100-normalised" in choices:
        mean, std = datasets.CIFAR100_STATISTICS
        parts = {n: replace(getattr(data, n), mean=mean, std=std) for n in ("train", "validation", "test")}
        data = replace(data, **parts)
    return replace(data, validation=data.test) if scoring and "test-selected" in choices else data


@lru_cache(maxsize=16)
def prints_of(name: str) -> tuple[str, ...]:
    """The fingerprints of a data set's three parts."""
    data = dataset_of(name)
    return tuple(part.fingerprint() for part in (data.train, data.validation, data.test))


def forget() -> None:
    """Let go of what is kept: the next call reads anew."""
    for kept in (dataset_of, as_seen, prints_of):
        kept.cache_clear()
