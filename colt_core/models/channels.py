"""Which channels of a network are always zero, followed through its graph; and the same function without them.

A convolution's row of zeros is no dead channel by itself: batch normalisation still adds its shift, and ReLU lets that
through. A channel is dead where scale and shift of what normalises it are zero too (RELATED: section 0); then nothing
that reads it changes when it is removed.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .anatomy import CONVOLUTIONS, anatomy_of
from .architecture import architecture

Rows = Mapping[str, torch.Tensor]  # by layer, bool [outputs]: the rows that are there
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What gives zero for zero, channel by channel.
KEEPING = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Tanh, nn.Softsign, nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.ZeroPad2d),
)
KEEPING_NAMES = {"StochasticDepth", "DropPath", "SelectAdaptivePool2d", "FastAdaptiveAvgPool"}  # of other libraries
KEEPING_CALLS = {
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "tanh", "dropout"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "contiguous", "mean"),
    *("stochastic_depth", "clone", "detach", "float", "boolean_dispatch"),
}
ADDING, MULTIPLYING = {"add", "iadd", "add_", "__add__"}, {"mul", "imul", "mul_", "__mul__"}


class _Tracer(fx.Tracer):
    """Takes every layer that this package knows how to read as it stands."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        known = isinstance(module, (nn.Linear, *CONVOLUTIONS, *NORMS)) or _keeps(module)
        return known or super().is_leaf_module(module, qualified_name)


def traced(network: nn.Module) -> fx.GraphModule:
    """Return a network as a graph of its layers.

    Raises
    ------
    ValueError
        In one line that names the module, where its forward pass depends on what it is given.
    """
    try:
        return fx.GraphModule(network, _Tracer().trace(network))
    except Exception as problem:  # of a forward pass that branches on values, or uses what the tracer cannot follow
        from ..settings import first_line

        name = architecture(network)["name"]
        raise ValueError(f"the channels of {name} cannot be followed ({first_line(problem)})") from None


class Compact(fx.GraphModule):
    """A graph of layers that, copied, still knows what it was built from."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compact":
        """Copy it with all that is said of it."""
        copied: Any = super().__deepcopy__(memo)  # type: ignore[no-untyped-call]
        for name in ("architecture", "anatomy"):
            if name in vars(self):
                vars(copied)[name] = deepcopy(vars(self)[name])
        return copied  # type: ignore[no-any-return]


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
    return read if _keeps(module) else Channels()


def _keeps(module: nn.Module) -> bool:
    """Tell whether a module gives zero for zero, channel by channel."""
    return isinstance(module, KEEPING) or type(module).__name__ in KEEPING_NAMES


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


# --- the same function in a smaller network ----------------------------------------------------------------------


def rounded(rows: Rows, multiple: int) -> dict[str, torch.Tensor]:
    """Return rows with some that are dead kept, so that a layer has a multiple of so many, or all that it has."""
    found = {}
    for name, alive in rows.items():
        wanted = min(len(alive), -(-int(alive.sum()) // multiple) * multiple)
        order = torch.argsort(~alive, stable=True)  # the living first, each in its order
        found[name] = torch.zeros_like(alive)
        found[name][order[:wanted]] = True
    return found


def shrunk(network: nn.Module, rows: Rows) -> fx.GraphModule:
    """Return the network without the rows that are not there, and without all that reads them.

    It is the network's own layers, of their own names, smaller; what its graph adds, multiplies or concatenates is
    brought to one set of channels first. Its outputs are those of the network in which those rows, their normalisation
    and their biases are zero.

    Raises
    ------
    ValueError
        For a layer without a row, and as `traced`.
    """
    for name, alive in rows.items():
        if not bool(alive.any()):
            raise ValueError(f"the mask leaves layer {name} without a channel")
    graph = traced(deepcopy(network))
    return _Shrinking(graph, rows).run()


class _Shrinking:
    """Goes through a graph once and makes every layer as small as what it reads and gives."""

    def __init__(self, graph: fx.GraphModule, rows: Rows) -> None:
        self.graph, self.rows = graph, rows
        self.known = follow(graph, rows)
        self.there: dict[fx.Node, torch.Tensor | None] = {}  # the channels that a tensor has; None: all of them

    def run(self) -> fx.GraphModule:
        for node in list(self.graph.graph.nodes):
            self.there[node] = self._of(node)
        self.graph.graph.lint()
        self.graph.recompile()
        self.graph.delete_all_unused_submodules()
        return Compact(self.graph, self.graph.graph)

    def _of(self, node: fx.Node) -> torch.Tensor | None:
        """Change what a node does; return the channels that its result has."""
        alive = self.known[node].alive
        if node.op == "call_module":
            return self._module(node, self.graph.get_submodule(str(node.target)), alive)
        if alive is None or node.op not in ("call_function", "call_method"):
            for one in node.all_input_nodes:
                self._bring(node, one, None)
            return None
        name, read = name_of(node), node.all_input_nodes
        if name in ADDING | MULTIPLYING and len(read) == 2:
            return self._join(node, read, alive, name in ADDING)
        if name in ("cat", "concat"):
            return self._concatenated(read)
        if name == "pad":
            return self._pad(node, read[0], alive)
        return self.there[read[0]]

    def _join(self, node: fx.Node, read: list[fx.Node], alive: torch.Tensor, adding: bool) -> torch.Tensor | None:
        have = [self.there[one] for one in read]
        if all(one is None for one in have):
            return None
        wide = len(alive)
        sets = [torch.arange(wide) if one is None else one for one in have]
        if torch.equal(sets[0], sets[1]):
            return have[0]
        shared = torch.isin(sets[0], sets[1])
        wanted = torch.cat(sets).unique() if adding else sets[0][shared]
        whole = len(wanted) == wide
        for one in read:
            self._bring(node, one, None if whole else wanted)
        return None if whole else wanted

    def _concatenated(self, read: list[fx.Node]) -> torch.Tensor | None:
        if all(self.there[one] is None for one in read):
            return None
        places, start = [], 0
        for one in read:
            alive = self.known[one].alive
            assert alive is not None
            have = self.there[one]
            places.append((torch.arange(len(alive)) if have is None else have) + start)
            start += len(alive)
        return torch.cat(places)

    def _pad(self, node: fx.Node, read: fx.Node, alive: torch.Tensor) -> torch.Tensor | None:
        """Zeros beside the channels are not put there at all: what adds to them knows where the others belong."""
        inner = self.known[read].alive
        assert inner is not None
        widths = list(node.args[1] if len(node.args) > 1 else node.kwargs["pad"])  # type: ignore[arg-type]
        if len(widths) < 6 or not (widths[4] or widths[5]):
            return self.there[read]
        have = self.there[read]
        node.args = (read, (*widths[:4], 0, 0))
        node.kwargs = {}
        return (torch.arange(len(inner)) if have is None else have) + int(widths[4])

    def _module(self, node: fx.Node, module: nn.Module, alive: torch.Tensor | None) -> torch.Tensor | None:
        [read] = node.all_input_nodes[:1]
        have, name = self.there[read], str(node.target)
        if isinstance(module, nn.Linear):
            return self._layer(module, name, self._columns(module, read, have), alive)
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._layer(module, name, have, alive)
        if isinstance(module, nn.Conv2d) and alive is not None:
            return self._depthwise(node, read, module, alive)
        if isinstance(module, NORMS) and alive is not None:
            _keep_features(module, have)
            return have
        if _keeps(module) and not isinstance(module, nn.PReLU):
            return have
        for one in node.all_input_nodes:
            self._bring(node, one, None)
        return None

    def _columns(self, module: nn.Linear, read: fx.Node, have: torch.Tensor | None) -> torch.Tensor | None:
        """Return the columns of a linear layer that are read: of flattened images several a channel."""
        alive = self.known[read].alive
        if have is None or alive is None:
            return None
        places = module.in_features // len(alive)
        return (have[:, None] * places + torch.arange(places)).flatten()

    def _layer(
        self, module: nn.Module, name: str, columns: torch.Tensor | None, alive: torch.Tensor | None
    ) -> torch.Tensor | None:
        rows = self.rows[name].nonzero().flatten() if name in self.rows and not bool(self.rows[name].all()) else None
        weight = module.get_parameter("weight").detach()
        weight = weight if columns is None else weight[:, columns]
        weight = weight if rows is None else weight[rows]
        module.weight = nn.Parameter(weight.clone())
        if isinstance(bias := module.bias, nn.Parameter) and rows is not None:
            module.bias = nn.Parameter(bias.detach()[rows].clone())
        names = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("out_channels", "in_channels")
        for which, count in zip(names, weight.shape[:2], strict=True):
            setattr(module, which, count)
        return rows

    def _depthwise(self, node: fx.Node, read: fx.Node, module: nn.Conv2d, alive: torch.Tensor) -> torch.Tensor | None:
        have = self.there[read]
        wanted = alive.nonzero().flatten() if have is None else have[alive[have]]
        if len(wanted) == len(alive):
            return None
        self._bring(node, read, wanted)
        module.weight = nn.Parameter(module.weight.detach()[wanted].clone())
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.detach()[wanted].clone())
        module.in_channels = module.out_channels = module.groups = len(wanted)
        return wanted

    def _bring(self, node: fx.Node, read: fx.Node, wanted: torch.Tensor | None) -> None:
        """Give a node what it reads with other channels: fewer, or with zeros where there are none."""
        have = self.there[read]
        alive = self.known[read].alive
        if have is None and wanted is None:
            return
        assert alive is not None
        wide = len(alive)
        sources = torch.arange(wide) if have is None else have
        targets = torch.arange(wide) if wanted is None else wanted
        if torch.equal(sources, targets):
            return
        where = torch.full((wide,), -1)
        where[sources] = torch.arange(len(sources))
        change = _Gather(where[targets], len(sources))
        name = f"gather_{len([n for n in self.graph._modules if n.startswith('gather_')])}"
        self.graph.add_submodule(name, change)
        with self.graph.graph.inserting_before(node):
            new = self.graph.graph.call_module(name, (read,))
        node.replace_input_with(read, new)


class _Gather(nn.Module):
    """Brings a tensor [N, C, ...] to other channels; those that it has not are zero."""

    def __init__(self, places: torch.Tensor, width: int) -> None:
        super().__init__()
        self.width = width
        whole = bool((places >= 0).all())
        self.spread = not whole
        kept = (places >= 0).nonzero().flatten()
        self.register_buffer("index", places if whole else kept, persistent=False)
        self.channels = len(places)

    def extra_repr(self) -> str:
        return f"{self.width} -> {self.channels}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take channels, or put them among zeros."""
        assert isinstance(self.index, torch.Tensor)
        if not self.spread:
            return x.index_select(1, self.index)
        shape = (x.shape[0], self.channels, *x.shape[2:])
        return x.new_zeros(shape).index_copy(1, self.index, x)


def _keep_features(module: nn.Module, index: torch.Tensor | None) -> None:
    """Leave a normalisation the channels that are there."""
    if index is None:
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(module, name, None)
        if isinstance(value, nn.Parameter):
            setattr(module, name, nn.Parameter(value.detach()[index].clone()))
        elif isinstance(value, torch.Tensor):
            setattr(module, name, value[index].clone())
    module.num_features = len(index)  # type: ignore[assignment]
