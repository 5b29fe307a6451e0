"""What a network writes into tensors that it has, as edges of its graph: a graph knows nothing of memory."""

import operator
from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import fx, nn

from .anatomy import CONVOLUTIONS
from .gather import Gather

# What may give the very memory that it reads.
VIEWS = {
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"),
    *("expand_as", "permute", "transpose", "t", "movedim", "swapaxes", "getattr", "getitem", "select", "narrow"),
    *("chunk", "split", "unbind", "tensor_split", "contiguous", "to", "type_as", "float", "detach", "dropout"),
    "stochastic_depth",
}
VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NUMBERS = {"size", "dim", "numel", "len"}


class Noting(fx.Proxy):
    """Notes of `x += y`, which a graph has as x + y, that it changes x itself."""


def _noting(act: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def noted(self: fx.Proxy, other: Any) -> fx.Proxy:
        result: fx.Proxy = act(self, other)
        result.node.meta["in place"] = True
        return result

    return noted


for _act in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow):
    setattr(Noting, f"__i{_act.__name__}__", _noting(_act))


def name_of(node: fx.Node) -> str:
    """Return what a node calls: a function's or a method's plain name."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def read_what_is_written(network: nn.Module, graph: fx.Graph) -> fx.Node | None:
    """Let what reads a tensor after something was written into it read what wrote it.

    Returns
    -------
    torch.fx.Node or None
        What cannot be told so: it writes into a tensor of which another view is read later.
    """
    place = {node: i for i, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}  # the first tensor that lies, or may lie, where a node's does
    for node in graph.nodes:
        written = _written(network, node)
        source = written or (node.all_input_nodes[0] if _may_be_a_view(network, node) else None)
        memory[node] = node if source is None else memory[source]
        if written is None:
            continue
        for user in [user for user in written.users if place[user] > place[node]]:
            user.replace_input_with(written, node)
        others = [one for one in memory if one is not node and memory[one] is memory[node]]
        if any(place[user] > place[node] for one in others for user in one.users):
            return node
    return None


def _written(network: nn.Module, node: fx.Node) -> fx.Node | None:
    """Return what a node writes its result into; None: it makes a tensor of its own."""
    if isinstance(out := node.kwargs.get("out"), fx.Node):
        return out
    if node.op not in ("call_module", "call_function", "call_method") or not node.all_input_nodes:
        return None
    first, name = node.all_input_nodes[0], name_of(node)
    if node.op == "call_module":
        return first if getattr(network.get_submodule(name), "inplace", False) else None
    named = name.endswith("_") and not name.endswith("__")
    return first if named or _is_asked_to(node) or ("in place" in node.meta and not _is_a_number(first)) else None


def _is_asked_to(node: fx.Node) -> bool:
    """Tell whether a call says `inplace=True`, or gives it by its place."""
    if "inplace" in node.kwargs or isinstance(node.target, str):  # a method of tensors
        return node.kwargs.get("inplace") is True
    try:  # built-in functions have no signature, nor such an argument
        return signature(node.target).bind(*node.args, **node.kwargs).arguments.get("inplace") is True
    except (TypeError, ValueError):
        return False


def _is_a_number(node: fx.Node) -> bool:
    """Tell whether a node gives sizes, not a tensor."""
    if name_of(node) in NUMBERS or (name_of(node) == "getattr" and node.args[1] in ("shape", "ndim")):
        return True
    computed = node.op == "call_function" and getattr(node.target, "__module__", "") == "_operator"
    return computed and bool(node.all_input_nodes) and all(_is_a_number(one) for one in node.all_input_nodes)


def _may_be_a_view(network: nn.Module, node: fx.Node) -> bool:
    if node.op != "call_module" or not node.all_input_nodes:
        return bool(node.all_input_nodes) and name_of(node) in VIEWS and not _is_a_number(node)
    module = network.get_submodule(str(node.target))
    known = isinstance(module, (nn.Linear, Gather, *CONVOLUTIONS, *NORMS))
    return isinstance(module, VIEW_MODULES) or not (known or type(module).__module__.startswith("torch.nn."))
