"""Which channels of a network are always zero, followed through its graph.

A convolution's row of zeros is no dead channel by itself: batch normalisation still adds its shift, and ReLU lets that
through. A channel is dead where scale and shift of what normalises it are zero too (RELATED: section 0); then nothing
that reads it changes when it is removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from .anatomy import anatomy_of
from .tracing import KEEPING_CALLS, NORMS, keeps, traced

Rows = Mapping[str, torch.Tensor]  # by layer, bool [outputs]: the rows that are there
ADDING, MULTIPLYING = {"add", "iadd", "add_", "__add__"}, {"mul", "imul", "mul_", "__mul__"}


@dataclass
class Channels:
    """Of one tensor of the graph: how wide it is in channels, and which of them may be other than zero.

    Attributes
    ----------
    alive
        bool [width]; None: not known, its channels are not followed, or it has none.
    """

    alive: torch.Tensor | None = None


def name_of(node: fx.Node) -> str:
    """Return what a node calls: a function's or a method's plain name."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def alive_after(node: fx.Node, graph: fx.GraphModule, known: Mapping[fx.Node, Channels], rows: Rows) -> Channels:
    """Return the channels of what a node gives, from those of what it reads.

    `rows` says of each layer which of its rows hold a weight; a layer that it does not name has all.
    """
    read = [known[one] for one in node.all_input_nodes]
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        return _after_module(module, str(node.target), read[0], rows)
    if node.op not in ("call_function", "call_method"):
        return Channels()
    name = name_of(node)
    if name in KEEPING_CALLS and read:
        return read[0] if name != "mean" or _keeps_channels(node) else Channels()
    if name in MULTIPLYING and len(read) == 1:  # by a number
        return read[0]
    if name in ADDING | MULTIPLYING and len(read) == 2:
        return _joined(read, name in ADDING)
    if name in ("cat", "concat") and all(one.alive is not None for one in read) and _along_channels(node):
        return Channels(torch.cat([one.alive for one in read if one.alive is not None]))
    if name == "pad" and read[0].alive is not None:
        return _padded(node, read[0].alive)
    if name == "getitem" and read and read[0].alive is not None and _takes_places(node):
        return read[0]
    return Channels()


def _after_module(module: nn.Module, name: str, read: Channels, rows: Rows) -> Channels:
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
        width = module.weight.shape[0]
        return Channels(rows.get(name, torch.ones(width, dtype=torch.bool)).clone())
    if isinstance(module, nn.Conv2d):  # depthwise: a channel that reads nothing but zeros is zero
        own = rows.get(name, torch.ones(module.out_channels, dtype=torch.bool))
        depthwise = module.groups == module.in_channels == module.out_channels
        return Channels(own & read.alive) if depthwise and read.alive is not None else Channels()
    if isinstance(module, NORMS):
        return read if read.alive is not None and len(read.alive) == module.num_features else Channels()
    return read if keeps(module) else Channels()


def _joined(read: list[Channels], either: bool) -> Channels:
    first, second = read[0].alive, read[1].alive
    if first is None or second is None or len(first) != len(second):
        return Channels()
    return Channels(first | second if either else first & second)


def _keeps_channels(node: fx.Node) -> bool:
    """Tell whether a mean is over height and width alone."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = (dims,) if isinstance(dims, int) else dims
    return isinstance(dims, tuple | list) and set(dims) <= {2, 3, -1, -2}


def _along_channels(node: fx.Node) -> bool:
    return bool(node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0) == 1)


def _padded(node: fx.Node, alive: torch.Tensor) -> Channels:
    """Return the channels after zeros were put beside them, as the shortcut of CIFAR's residual networks does."""
    widths = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    mode = node.kwargs.get("mode", node.args[2] if len(node.args) > 2 else "constant")
    value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else None)
    if mode != "constant" or value not in (None, 0, 0.0) or not isinstance(widths, tuple | list):
        return Channels()
    before, after = (int(n) for n in (*widths, 0, 0, 0, 0, 0, 0)[4:6])  # type: ignore[arg-type]
    return Channels(torch.cat([torch.zeros(before).bool(), alive, torch.zeros(after).bool()]))


def _takes_places(node: fx.Node) -> bool:
    """Tell whether an index takes all images and channels: x[:, :, ::2, ::2]."""
    index = node.args[1]
    return isinstance(index, tuple) and len(index) == 4 and all(one == slice(None) for one in index[:2])


def follow(graph: fx.GraphModule, rows: Rows) -> dict[fx.Node, Channels]:
    """Return the channels of every tensor of a graph."""
    known: dict[fx.Node, Channels] = {}
    for node in graph.graph.nodes:
        known[node] = alive_after(node, graph, known, rows)
    return known


def rows_of(mask: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return which rows of each layer a mask leaves a weight, by the layer's name."""
    return {name.removesuffix(".weight"): kept.cpu().flatten(1).any(1) for name, kept in mask.items() if kept.ndim > 1}


def silenced(network: nn.Module, mask: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a mask over scales and shifts of batch normalisation, and over biases, of channels that a mask has cut.

    Held at zero beside the mask they make those channels zero for every input.

    Parameters
    ----------
    network, mask
        The mask fits the network.

    Returns
    -------
    dict of Tensor
        bool, by parameter name, False where held at zero: of every normalisation after which a channel is dead, and of
        convolutions and hidden linear layers with biases; parameters without any are left out.

    Raises
    ------
    ValueError
        As `traced`.
    """
    graph, found = traced(network), {}
    head = anatomy_of(network).head  # its rows are the classes
    rows = {name: alive for name, alive in rows_of(mask).items() if name != head}
    known, parameters = follow(graph, rows), dict(network.named_parameters())
    for node, channels in known.items():
        if node.op != "call_module" or channels.alive is None or bool(channels.alive.all()):
            continue
        module, name = graph.get_submodule(str(node.target)), str(node.target)
        parts = ("weight", "bias") if isinstance(module, NORMS) else ("bias",) if name in rows else ()
        for part in (f"{name}.{part}" for part in parts):
            if part in parameters:
                found[part] = channels.alive.clone()
    return found


def norms_after(network: nn.Module, layers: Sequence[str]) -> dict[str, str]:
    """Return, by layer, the name of the normalisation that reads it alone; the layer's own name where there is none."""
    graph, found = traced(network), {}
    for node in graph.graph.nodes:
        if node.op == "call_module" and (name := str(node.target)) in layers:
            users = [one for one in node.users if one.op == "call_module"]
            after = [str(one.target) for one in users if isinstance(graph.get_submodule(str(one.target)), NORMS)]
            found[name] = after[0] if len(node.users) == len(after) == 1 else name
    return found
