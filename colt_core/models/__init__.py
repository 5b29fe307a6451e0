"""The networks, what of them is prunable, and exact head surgery."""

from .anatomy import (
    Anatomy,
    Gives,
    anatomy,
    anatomy_of,
    check_output,
    declare,
    depthwise,
    forward_flops,
    head_name,
    prunable,
    replace_head,
    transposed,
    with_head,
)
from .architecture import architecture, has_a_name, in_words, is_a_name
from .build import (
    LIBRARIES,
    arguments_of,
    build,
    check_arguments,
    check_network,
    code_of,
    declared_objective,
    fill,
    is_as_built,
    skeleton,
)
from .compacted import PREFIX
from .zoo import NETWORKS

__all__ = [
    "LIBRARIES",
    "NETWORKS",
    "PREFIX",
    "Anatomy",
    "Gives",
    "anatomy",
    "anatomy_of",
    "architecture",
    "arguments_of",
    "build",
    "check_arguments",
    "check_network",
    "check_output",
    "code_of",
    "declare",
    "declared_objective",
    "depthwise",
    "fill",
    "forward_flops",
    "has_a_name",
    "head_name",
    "in_words",
    "is_a_name",
    "is_as_built",
    "prunable",
    "replace_head",
    "skeleton",
    "transposed",
    "with_head",
]
