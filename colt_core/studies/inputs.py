"""What experiments read: data sets by name, as an experiment sees them, and their fingerprints. The last are kept.

A user's folder may change while a process lives: what is kept is kept for the files as they are (`data.stamp`).
"""

from dataclasses import replace
from functools import lru_cache

from .. import data as datasets
from ..data import Dataset


def dataset_of(name: str) -> Dataset:
    """Return a data set."""
    return _loaded(name, datasets.stamp(name))


def as_seen(name: str, official: tuple[str, ...] | None, scoring: bool = False) -> Dataset:
    """Return a data set as an experiment sees it: see `Experiment.official`."""
    return _seen(name, datasets.stamp(name), official or (), scoring)


def prints_of(name: str) -> tuple[str, ...]:
    """Return the fingerprints of a data set's three parts."""
    return _prints(name, datasets.stamp(name))


@lru_cache(maxsize=4)
def _loaded(name: str, _: str) -> Dataset:
    return datasets.load(name)


@lru_cache(maxsize=4)
def _seen(name: str, stamp: str, choices: tuple[str, ...], scoring: bool) -> Dataset:
    data = _loaded(name, stamp)
    if "cifar100-normalised" in choices:
        mean, std = datasets.CIFAR100_STATISTICS
        parts = {n: replace(getattr(data, n), mean=mean, std=std) for n in ("train", "validation", "test")}
        data = replace(data, **parts)
    return replace(data, validation=data.test) if scoring and "test-selected" in choices else data


@lru_cache(maxsize=16)
def _prints(name: str, stamp: str) -> tuple[str, ...]:
    data = _loaded(name, stamp)
    return tuple(part.fingerprint() for part in (data.train, data.validation, data.test))
