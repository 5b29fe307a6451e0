"""Which channels of a network are always zero, followed through its graph.

A convolution's row of zeros is no dead channel by itself: batch normalisation still adds its shift, and ReLU lets that
through. A channel is dead where scale and shift of what normalises it are zero too (RELATED: section 0); then nothing
that reads it changes when it is removed.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from .anatomy import CONVOLUTIONS, anatomy_of
from .gather import Gather
from .in_place import NORMS, name_of
from .tracing import KEEPING_CALLS, does_as, is_layer, keeps, traced

Rows = Mapping[str, torch.Tensor]  # by layer, bool [outputs]: the rows that are there
LAYERS = (nn.Linear, nn.Conv2d)  # whose rows are followed
ADDING, MULTIPLYING = {"add", "iadd", "add_", "__add__"}, {"mul", "imul", "mul_", "__mul__"}
# What gives each number of a tensor, zero too, another.
EACH = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid, nn.Hardtanh)
EACH_CALLS = {
    *("sub", "isub", "neg", "truediv", "div", "pow", "sqrt", "rsqrt", "exp", "abs", "clamp"),
    *("sigmoid", "sigmoid_", "hardsigmoid", "softplus", "logsigmoid", "hardtanh"),
}
# What changes no tensor's number of dimensions.
AS_MANY = EACH_CALLS | {
    *("cat", "concat", "pad", "permute", "transpose", "interpolate", "linear", "layer_norm", "group_norm"),
    *("batch_norm", "normalize", "to", "softmax", "log_softmax", "type_as"),
}
AS_MANY_MODULES = {"activation", "dropout", "normalization", "instancenorm", "padding", "pooling", "upsampling"}
REDUCING = {"mean", "sum", "amax", "amin"}
TO_ONE = (1, (1, 1), [1, 1])


@dataclass(frozen=True)
class Channels:
    """Of one tensor of the graph: how wide it is in channels, and which of them may be other than zero.

    Attributes
    ----------
    alive
        bool [width]; None: not known, its channels are not followed, or it has none. They are dimension 1.
    dims
        How many dimensions it has; None: not known.
    pooled
        It has one place a channel: [N, C] or [N, C, 1, 1].
    """

    alive: torch.Tensor | None = None
    dims: int | None = None
    pooled: bool = False

    @property
    def flat(self) -> bool:
        """Images that were flattened: dimension 1 has several places a channel, nobody knows how many."""
        return self.dims == 2 and not self.pooled


def alive_after(
    node: fx.Node,
    graph: fx.GraphModule,
    known: Mapping[fx.Node, Channels],
    rows: Rows,
    shared: Collection[str],
) -> Channels:
    """Return the channels of what a node gives, from those of what it reads.

    `rows` says of each layer which of its rows hold a weight; a layer that it does not name has all. Those of `shared`
    layers are not followed.
    """
    if node.op == "placeholder":  # images
        return Channels(dims=4)
    if node.op == "get_attr":
        return Channels(dims=getattr(attrgetter(str(node.target))(graph), "ndim", None))
    read = [known[one] for one in node.all_input_nodes]
    if node.op == "output" or not read:
        return Channels()
    if node.op == "call_module":
        name = str(node.target)
        return _after_module(graph.get_submodule(name), name, read[0], rows, name in shared)
    return _after_call(node, name_of(node), read, known)


def _after_module(module: nn.Module, name: str, read: Channels, rows: Rows, shared: bool) -> Channels:
    if is_layer(module, (nn.Linear, *CONVOLUTIONS)):
        return _after_layer(module, name, read, rows, shared)
    if is_layer(module, NORMS):
        return replace(read, alive=None if shared else _normalised(module, read.alive))
    if isinstance(module, Gather):
        return replace(read, alive=None if read.alive is None else module.of_channels(read.alive))
    if keeps(module):
        return _after_keeping(module, read)
    if does_as(module, EACH):
        return _with_values(read)
    kind = type(module)
    simple = kind.__module__.rpartition(".")[2] in AS_MANY_MODULES and kind is not nn.MultiheadAttention
    return Channels(dims=read.dims) if simple and kind.__module__.startswith("torch.nn.") else Channels()


def _after_layer(module: nn.Module, name: str, read: Channels, rows: Rows, shared: bool) -> Channels:
    """A linear layer's outputs are dimension 1 where it reads [N, C]; of tokens or images [N, H, W, C] the last."""
    weight, linear = module.get_parameter("weight"), isinstance(module, nn.Linear)
    dims = read.dims if linear else weight.ndim
    given = Channels(None, dims, linear and dims == 2)
    if shared or not isinstance(module, LAYERS) or (linear and dims != 2):
        return given
    own = rows.get(name, torch.ones(len(weight), dtype=torch.bool))
    if isinstance(module, nn.Conv2d) and module.groups > 1:  # depthwise: a channel that reads nothing but zeros is zero
        depthwise = module.groups == module.in_channels == module.out_channels
        return replace(given, alive=own & read.alive if depthwise and read.alive is not None else None)
    return replace(given, alive=own.clone())


def _normalised(module: nn.Module, alive: torch.Tensor | None) -> torch.Tensor | None:
    """Without a scale and a shift that could be zero, a channel of zeros becomes a constant: it is not dead."""
    if alive is None or len(alive) != module.num_features:
        return None
    zeros = torch.zeros(1, len(alive), 1, 1)
    with torch.no_grad():  # what another library's does after it
        still = all(bool((after(zeros) == 0).all()) for after in module.children())
    return alive if still and module.weight is not None else torch.ones_like(alive)


def _after_keeping(module: nn.Module, read: Channels) -> Channels:
    if isinstance(module, nn.Flatten):
        return _flattened(read, module.start_dim, module.end_dim)
    for child in module.children():  # another library's choice of pooling
        read = _after_module(child, "", read, {}, False)
    if "Pool" in type(module).__name__ and not list(module.children()):
        fast = type(module).__name__.startswith("Fast")  # always to one place
        dims = 2 if fast and module.flatten else read.dims
        return replace(read, dims=dims, pooled=fast or getattr(module, "output_size", None) in TO_ONE)
    return replace(read, pooled=False) if isinstance(module, nn.ZeroPad2d) else read


def _after_call(node: fx.Node, name: str, read: list[Channels], known: Mapping[fx.Node, Channels]) -> Channels:
    first = read[0]
    if name == "flatten":
        return _flattened(first, _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
    if name in REDUCING:
        return _reduced(node, name, first)
    if name in ("view", "reshape"):
        sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], tuple | list) else node.args[1:]
        return Channels(dims=len(sizes) or None)  # type: ignore[arg-type]
    if name in ("squeeze", "unsqueeze"):
        return _squeezed(node, name, first)
    if name == "getitem":
        return _indexed(node, first)
    if name in KEEPING_CALLS or (name in MULTIPLYING and len(read) == 1):  # by a number
        pools = "pool" in name or name == "boolean_dispatch"
        one = name.startswith("adaptive") and _argument(node, 1, "output_size", None) in TO_ONE
        return replace(first, pooled=one) if pools else first
    if name in ("cat", "concat"):
        return _concatenated(node, known)
    if name == "pad" and first.alive is not None and first.dims == 4:
        return Channels(_padded(node, first.alive), 4)
    if name in ADDING | EACH_CALLS and len(read) == 1:  # with a number
        return _with_values(first)
    if name not in ADDING | MULTIPLYING | AS_MANY:
        return Channels(dims=4 if name == "conv2d" else None)
    dims = [one.dims for one in read if one.dims is not None]
    given = Channels(None, max(dims) if len(dims) == len(read) else None, all(one.pooled for one in read))
    if name in ADDING | MULTIPLYING and len(read) == 2 and dims[:1] * 2 == dims:
        return replace(given, alive=_joined(read[0].alive, read[1].alive, name in ADDING))
    return given


def _with_values(read: Channels) -> Channels:
    """Its channels are known, and none is zero."""
    return replace(read, alive=None if read.alive is None else torch.ones_like(read.alive))


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _flattened(read: Channels, start: int, end: int) -> Channels:
    if read.dims is None:
        return Channels(dims=2 if (start, end) == (1, -1) else None)
    start, end = start % read.dims, end % read.dims
    apart = start > 1 or start == end or (start == 1 and end == read.dims - 1)  # one channel's from another's
    alive = read.alive if apart else None
    return Channels(alive, read.dims - max(0, end - start), read.pooled and apart)


def _axes(node: fx.Node, dims: int | None) -> set[int] | None:
    """Return the dimensions that a node names, counted from the first; None: all of them, or they are not known."""
    axes = _argument(node, 1, "dim", None)
    axes = (axes,) if isinstance(axes, int) else axes
    known = dims is not None and isinstance(axes, tuple | list) and all(isinstance(axis, int) for axis in axes)
    return {axis % dims for axis in axes} if known else None  # type: ignore[operator]


def _reduced(node: fx.Node, name: str, read: Channels) -> Channels:
    """A mean over height and width alone keeps the channels."""
    axes = _axes(node, read.dims)
    if axes is None or read.dims is None:
        return Channels()
    apart, keepdim = axes.isdisjoint({0, 1}), _argument(node, 2, "keepdim", False)
    return Channels(
        read.alive if name == "mean" and apart else None,
        read.dims if keepdim else read.dims - len(axes),
        apart and (read.pooled or axes == set(range(2, read.dims))),
    )


def _squeezed(node: fx.Node, name: str, read: Channels) -> Channels:
    axes = _axes(node, read.dims)
    if read.dims is None:
        return Channels()
    if name == "unsqueeze":
        return Channels(dims=read.dims + 1)
    if not read.pooled or (axes is not None and not axes.isdisjoint({0, 1})):
        return Channels()
    return Channels(dims=2 if axes is None else read.dims - len(axes), pooled=True)


def _indexed(node: fx.Node, read: Channels) -> Channels:
    """An index of all images and channels keeps them: x[:, :, ::2, ::2]."""
    index = node.args[1]
    plain = isinstance(index, tuple) and all(isinstance(one, slice | int | None) for one in index)
    if read.dims is None or not plain:
        return Channels()
    assert isinstance(index, tuple)
    dims = read.dims + sum((one is None) - isinstance(one, int) for one in index)
    apart = len(index) == 4 and all(one == slice(None) for one in index[:2]) and not read.flat
    return Channels(read.alive if apart else None, dims, apart and (read.pooled or dims == 2))


def _concatenated(node: fx.Node, known: Mapping[fx.Node, Channels]) -> Channels:
    """Flattened images of several sizes have not the same number of places a channel: those are not followed."""
    parts = [known[one] for one in parts_of(node)]
    dims = {one.dims for one in parts}
    shape = Channels(None, parts[0].dims if len(dims) == 1 else None, all(one.pooled for one in parts))
    alive = [one.alive for one in parts if one.alive is not None and not one.flat]
    along = _argument(node, 1, "dim", 0) == 1
    return replace(shape, alive=torch.cat(alive)) if along and len(dims) == 1 and len(alive) == len(parts) else shape


def parts_of(node: fx.Node) -> list[fx.Node]:
    """Return what a node concatenates, one as often as it is there."""
    parts = node.args[0] if node.args else node.kwargs["tensors"]
    return list(parts) if isinstance(parts, tuple | list) else node.all_input_nodes  # type: ignore[arg-type]


def _joined(first: torch.Tensor | None, second: torch.Tensor | None, either: bool) -> torch.Tensor | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return first | second if either else first & second


def _padded(node: fx.Node, alive: torch.Tensor) -> torch.Tensor | None:
    """Return the channels after zeros were put beside them, as the shortcut of CIFAR's residual networks does."""
    widths, mode = _argument(node, 1, "pad", None), _argument(node, 2, "mode", "constant")
    if mode != "constant" or _argument(node, 3, "value", None) not in (None, 0, 0.0):
        return None
    if not isinstance(widths, tuple | list):
        return None
    before, after, *images = (*widths, 0, 0, 0, 0, 0, 0)[4:8]
    if before < 0 or after < 0 or any(images):  # channels are cut off, or images joined
        return None
    return torch.cat([torch.zeros(before).bool(), alive, torch.zeros(after).bool()])


def follow(graph: fx.GraphModule, rows: Rows) -> dict[fx.Node, Channels]:
    """Return the channels of every tensor of a graph."""
    known: dict[fx.Node, Channels] = {}
    shared = _shared(graph)
    for node in graph.graph.nodes:
        known[node] = alive_after(node, graph, known, rows, shared)
    return known


def _shared(graph: fx.GraphModule) -> set[str]:
    """Return the modules that are called more than once, or whose parameters something else reads too."""
    nodes = graph.graph.nodes
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    read = [attrgetter(str(node.target))(graph) for node in nodes if node.op == "get_attr"]
    own = {name: {id(one) for one in graph.get_submodule(name).parameters()} for name in calls}
    readers = Counter(one for parameters in own.values() for one in parameters)
    readers.update({id(one) for one in read})
    return {name for name, count in calls.items() if count > 1 or any(readers[one] > 1 for one in own[name])}


def losing(network: nn.Module) -> set[str]:
    """Return the names of the layers whose rows may be named to be cut; of them grouped convolutions keep all.

    Raises
    ------
    ValueError
        As `traced`.
    """
    graph = traced(network)
    shared, found = _shared(graph), set()
    for node, channels in follow(graph, {}).items():
        if node.op == "call_module" and (name := str(node.target)) not in shared:
            module = graph.get_submodule(name)
            grouped = getattr(module, "groups", 1) > 1
            if is_layer(module, LAYERS) and (grouped or channels.alive is not None):
                found.add(name)
    return found


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
        grouped = getattr(module, "groups", 1) > 1  # depthwise: what reads zeros would give its bias
        parts = ("weight", "bias") if isinstance(module, NORMS) else ("bias",) if name in rows or grouped else ()
        for part in (f"{name}.{part}" for part in parts):
            if part in parameters:
                found[part] = channels.alive.clone()
    return found


def norms_after(network: nn.Module, layers: Sequence[str]) -> dict[str, str]:
    """Return, by layer, the name of the normalisation that reads it alone; the layer's own name where there is none.

    Raises
    ------
    ValueError
        As `traced`, and for a layer that the forward pass does not call by itself, as those inside attention.
    """
    graph, found = traced(network), {}
    for node in graph.graph.nodes:
        if node.op == "call_module" and (name := str(node.target)) in layers:
            users = [one for one in node.users if one.op == "call_module"]
            after = [str(one.target) for one in users if isinstance(graph.get_submodule(str(one.target)), NORMS)]
            found[name] = after[0] if len(node.users) == len(after) == 1 else name
    if missing := [name for name in layers if name not in found]:
        raise ValueError(f"{missing[0]} is no layer that is called by itself: its channels cannot be gated")
    return found
