"""The ways to find a ticket, one file each. `METHODS` is the one place that lists them for experiments."""

from .at_init import GRASP, SNIP, SYNFLOW, grasp, snip, synflow
from .colt import COLT, UNION, VOTE, colt
from .consensus import CONSENSUS, consensus
from .controls import RANDOM, REINIT, random, reinit
from .imp import DENSE, IMP, MATCHED, ONESHOT, imp, oneshot
from .method import Look, Method, Setting, find_method

_ALL = (DENSE, COLT, IMP, MATCHED, UNION, VOTE, CONSENSUS, ONESHOT, SNIP, GRASP, SYNFLOW, RANDOM, REINIT)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_of(name: str) -> Method:
    """Return the method of this name: one of `METHODS`, or "package.module:NAME" of a `Method` elsewhere.

    Raises
    ------
    ValueError
        If there is none.
    """
    return find_method(name, METHODS)


__all__ = [
    "METHODS",
    "Look",
    "Method",
    "Setting",
    "colt",
    "consensus",
    "grasp",
    "imp",
    "method_of",
    "oneshot",
    "random",
    "reinit",
    "snip",
    "synflow",
]
