"""The ways to find a ticket, one file each. `METHODS` is the one place that lists them for experiments."""

from ..foreign import named_by_a_file
from .at_init import GRASP, INITIAL, SNIP, SYNFLOW, grasp, initial, snip, synflow
from .averaged import AVERAGED, averaged
from .bound import BOUND, bound
from .carried import CARRIED
from .colt import COLT, UNION, VOTE, colt
from .consensus import CONSENSUS, consensus
from .controls import RANDOM, REINIT, random, reinit
from .crossfit import CROSSFIT, crossfit
from .displacement import DISPLACEMENT, displacement
from .dual import DUAL
from .elastic import ELASTIC
from .imp import DENSE, IMP, MATCHED, ONESHOT, imp, oneshot
from .method import Look, Method, Setting, find_method
from .refill_controls import CHANNELS, EFFECTIVE, NARROW, narrow, random_channels
from .soup import SOUP, soup
from .structured import REFILL, REGROUP, structured
from .super import SUPER, super_tickets

_ALL = (
    *(DENSE, COLT, IMP, MATCHED, UNION, VOTE, CONSENSUS, ONESHOT, INITIAL, SNIP, GRASP, SYNFLOW, RANDOM, REINIT),
    *(DISPLACEMENT, SOUP, AVERAGED, BOUND, CROSSFIT),  # variants of ours
    *(DUAL, ELASTIC, CARRIED),  # transformed, stretched, laid over another network
    *(REFILL, REGROUP, SUPER, CHANNELS, NARROW, EFFECTIVE),  # of whole channels and blocks, and their controls
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_of(name: str) -> Method:
    """Return the method of this name: one of `METHODS`, or "package.module:NAME" of a `Method` elsewhere.

    Raises
    ------
    ValueError
        If there is none.
    """
    return find_method(name, METHODS)


def recorded(name: str) -> Method:
    """Return the method that a record names.

    One that this process does not know, or whose code is not trusted, trains in rounds, is no control and looks plain.
    """
    try:
        with named_by_a_file():
            return method_of(name)
    except ValueError:
        return Method(name, "unknown here", find=lambda setting: iter(()), look=Look(name, "#666666", "."))


__all__ = [
    "METHODS",
    "Look",
    "Method",
    "Setting",
    "averaged",
    "bound",
    "colt",
    "consensus",
    "crossfit",
    "displacement",
    "grasp",
    "imp",
    "initial",
    "method_of",
    "narrow",
    "oneshot",
    "random",
    "random_channels",
    "recorded",
    "reinit",
    "snip",
    "soup",
    "structured",
    "super_tickets",
    "synflow",
]
