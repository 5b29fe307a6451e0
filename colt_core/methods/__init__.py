"""The ways to find a ticket, one file each. `METHODS` is the one place that lists them for experiments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from ..data import Dataset, Images, partition
from ..tickets import Round
from ..training import Recipe
from .at_init import grasp, snip, synflow
from .colt import colt
from .consensus import Pooling, consensus
from .controls import random, reinit
from .cycles import Options, check_inputs, first_round
from .imp import imp, oneshot


@dataclass(frozen=True, eq=False)
class Setting:
    """What an experiment hands to a method.

    Attributes
    ----------
    network, data, recipe, rate, target, parts, by, seed, pooling
        The experiment's.
    options
        For the finder: seed, device, threads, scope, rewind, resume, provenance, ...
    reference
        Gives the rounds of the COLT run with the same settings, for methods that follow it.
    """

    network: nn.Module
    data: Dataset
    recipe: Recipe
    rate: float
    target: float
    parts: int
    by: str
    seed: int
    pooling: Pooling = "geometric"
    options: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[], list[Round]] = list

    def split(self, images: Images) -> list[Images]:
        """Return the partitions of some images."""
        return partition(images, self.parts, self.by, self.seed)

    def trajectory(self) -> list[float]:
        """Return the densities of the reference's rounds after the dense one."""
        return [found.density for found in self.reference() if found.number]


def _dense(s: Setting) -> Iterator[Round]:
    given: dict[str, Any] = {"whole": s.data.train, "validation": [s.data.validation]}
    options = Options(**(given | s.options))
    check_inputs(s.network, [s.data.train], s.recipe, options)
    return iter([] if options.resume else [first_round(s.network, s.recipe, options)])


def _colt(s: Setting, finder: Callable[..., Iterator[Round]] = colt, **chosen: Any) -> Iterator[Round]:
    parts, held_out = s.split(s.data.train), s.split(s.data.validation)
    options = s.options | {"whole": s.data.train, "validation": held_out} | chosen
    return finder(s.network, parts, s.recipe, s.rate, s.target, **options)


def _imp(s: Setting, **chosen: Any) -> Iterator[Round]:
    options = s.options | {"validation": [s.data.validation]} | chosen
    return imp(s.network, s.data.train, s.recipe, s.rate, s.target, **options)


def _at_densities(finder: Callable[..., Iterator[Round]], s: Setting) -> Iterator[Round]:
    options = s.options | {"validation": [s.data.validation]}
    return finder(s.network, s.data.train, s.recipe, s.trajectory(), **options)


def _consensus(s: Setting) -> Iterator[Round]:
    return _colt(s, consensus, pooling=s.pooling, densities=s.trajectory())


def _remaining(s: Setting) -> list[Round]:
    done = s.options["resume"].number if s.options.get("resume") else -1
    return [found for found in s.reference() if found.number > done]


METHODS: dict[str, Callable[[Setting], Iterator[Round]]] = {
    "dense": _dense,
    "colt": _colt,
    "imp": _imp,
    "matched": lambda s: _imp(s, densities=s.trajectory()),
    "union": lambda s: _colt(s, combine="or", densities=s.trajectory()),
    "vote": lambda s: _colt(s, combine=s.parts // 2 + 1, densities=s.trajectory()),
    "consensus": _consensus,
    "oneshot": partial(_at_densities, oneshot),
    "snip": partial(_at_densities, snip),
    "grasp": partial(_at_densities, grasp),
    "synflow": partial(_at_densities, synflow),
    "random": lambda s: random(_remaining(s), s.seed, s.options["provenance"]),
    "reinit": lambda s: reinit(_remaining(s), s.seed, s.options["provenance"]),
}
FOLLOW_COLT = tuple(name for name in METHODS if name not in ("dense", "colt", "imp"))

__all__ = [
    "FOLLOW_COLT",
    "METHODS",
    "Setting",
    "colt",
    "consensus",
    "grasp",
    "imp",
    "oneshot",
    "random",
    "reinit",
    "snip",
    "synflow",
]
