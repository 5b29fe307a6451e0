"""The networks, what of them is prunable, and exact head surgery."""

from .anatomy import (
    Anatomy,
    anatomy_of,
    forward_flops,
    head_name,
    prunable,
    replace_head,
    with_head,
)
from .build import architecture, build, check_network, in_words
from .zoo import NETWORKS

__all__ = [
    "NETWORKS",
    "Anatomy",
    "anatomy_of",
    "architecture",
    "build",
    "check_network",
    "forward_flops",
    "head_name",
    "in_words",
    "prunable",
    "replace_head",
    "with_head",
]
