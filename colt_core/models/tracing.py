"""A network as a graph of its layers, the same in training and out of it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from inspect import signature
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from ..seeding import alone
from ..settings import first_line
from .anatomy import CONVOLUTIONS
from .architecture import architecture
from .gather import Gather
from .in_place import NORMS, Noting, read_what_is_written

# What gives zero for zero, channel by channel.
KEEPING = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Tanh, nn.Softsign, nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.ZeroPad2d),
)
KEEPING_NAMES = {  # of other libraries
    *("StochasticDepth", "DropPath", "SelectAdaptivePool2d", "FastAdaptiveAvgPool", "FastAdaptiveMaxPool"),
    *("FastAdaptiveAvgMaxPool", "AdaptiveAvgMaxPool2d"),
}
KEEPING_CALLS = {
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "tanh", "dropout"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "contiguous", "mean"),
    *("stochastic_depth", "clone", "detach", "float", "boolean_dispatch"),
}
FORWARDS = ("forward", "_conv_forward")
# Subclasses whose own forward does as their kind's.
AS_THEIR_KIND = {
    *("colt_core._NormPoolReLU", "colt_core.AveragePool", "colt_core.MaxPool"),
    *("timm.BatchNormAct2d", "timm.Conv2dSame", "timm.Linear", "timm.PReLU"),
    *("timm.AvgPool2dSame", "timm.MaxPool2dSame"),
}


class ByMode(nn.Module):
    """A function that is called in another way in training, dropout say; a graph has it as its tracing found it.

    Parameters
    ----------
    function
        What is called with what the module is given.
    training
        By position or keyword, what else it is given in training.
    """

    def __init__(self, function: Callable[..., torch.Tensor], training: dict[int | str, Any]) -> None:
        super().__init__()
        self.function, self.in_training = function, training

    def extra_repr(self) -> str:
        return f"{self.function.__name__}, in training {self.in_training}"

    def forward(self, *given: Any, **named: Any) -> torch.Tensor:
        if self.training:
            given = tuple(self.in_training.get(i, one) for i, one in enumerate(given))
            named = {key: self.in_training.get(key, one) for key, one in named.items()}
        return self.function(*given, **named)


def does_as(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module is of some kinds and does what they do: a forward of its own may do anything else."""
    own = type(module)
    for kind in kinds:
        if isinstance(module, kind) and all(getattr(own, f, 0) is getattr(kind, f, 0) for f in FORWARDS):
            return True
    return isinstance(module, kinds) and f"{own.__module__.partition('.')[0]}.{own.__name__}" in AS_THEIR_KIND


def is_layer(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module does what these kinds do, with a weight that is its own: not computed from others."""
    return "weight" in module._parameters and does_as(module, kinds)


def keeps(module: nn.Module) -> bool:
    """Tell whether a module gives zero for zero, channel by channel."""
    if isinstance(module, ByMode):
        return module.function.__name__ in KEEPING_CALLS
    if getattr(module, "return_indices", False):
        return False
    if isinstance(module, nn.Hardtanh) and not module.min_val <= 0 <= module.max_val:
        return False
    return does_as(module, KEEPING) or type(module).__name__ in KEEPING_NAMES


class _Tracer(fx.Tracer):
    """Takes every layer that this package knows how to read as it stands, and modules by name."""

    def __init__(self, whole: Collection[str] = ()) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        known = isinstance(module, (nn.Linear, Gather, ByMode, *CONVOLUTIONS, *NORMS)) or keeps(module)
        return known or qualified_name in self.whole or super().is_leaf_module(module, qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Noting(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Leave what has a default at that: `if mask is None` is not to be asked of a proxy."""
        function, given = super().create_args_for_root(root_fn, is_module, concrete_args)
        defaults = {p.name: p.default for p in signature(root_fn).parameters.values() if p.default is not p.empty}
        for i, one in enumerate(given):
            if isinstance(one, fx.Proxy) and (name := str(one.node.target)) in defaults:
                given[i] = defaults[name]
                self.graph.erase_node(one.node)
        return function, given


def traced(network: nn.Module) -> fx.GraphModule:
    """Return a network as a graph of its layers, which follows `train()` and `eval()` as the network does.

    A function that takes another constant in training (`dropout(x, training=self.training)`) is a module there; a
    module that computes something else in training is taken as it stands. What the forward pass may be given beside
    images is left at its defaults.

    Raises
    ------
    ValueError
        In one line that names the module, where a forward pass depends on what it is given, or the network's own
        computes something else in training; where it writes into what a view of it is read for later.
    """
    whole: set[str] = set()
    while True:
        with alone(), _without_constants(network):
            evaluated, trained = (_graph_of(network, training, whole) for training in (False, True))
            apart = _computing_else(evaluated, trained)
            changes = {} if apart else _called_else(network, evaluated, trained, apart)
            if not apart:
                if (late := read_what_is_written(network, evaluated)) is not None:
                    raise _refusal(network, f"{late.name} writes into a tensor of which a view is read later")
                return _following_the_mode(network, evaluated, changes)
        if "" in apart:
            raise _refusal(network, "it computes something else in training")
        whole |= apart


@contextmanager
def _without_constants(network: nn.Module) -> Iterator[None]:
    """Take out of a network again what the tracer puts into it: the constants of its forward pass."""
    own = set(vars(network))
    try:
        yield
    finally:
        for name in vars(network).keys() - own:
            delattr(network, name)


def _refusal(network: nn.Module, problem: str, place: str = "") -> ValueError:
    return ValueError(f"the channels of {architecture(network)['name']} cannot be followed{place} ({problem})")


def _graph_of(network: nn.Module, training: bool, whole: Collection[str]) -> fx.Graph:
    tracer = _Tracer(whole)
    modes = {module: module.training for module in network.modules()}
    try:
        for module in modes:
            module.training = training
        return tracer.trace(network)
    except Exception as problem:  # of a forward pass that branches on values, or uses what the tracer cannot follow
        inside = list(tracer.module_stack.values())  # where it was
        place = f" in {inside[-1][0]}, a {inside[-1][1].__name__}" if inside else ""
        raise _refusal(network, first_line(problem), place) from None
    finally:
        for module, was in modes.items():
            module.training = was


def _owner(node: fx.Node) -> str:
    """Return the name of the module whose forward pass a node is of; the network's own is ""."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return ["", *stack][-2 if node.op == "call_module" else -1]


def _computing_else(evaluated: fx.Graph, trained: fx.Graph) -> set[str]:
    """Return the modules that call other things in training."""
    calls: list[dict[str, list[Any]]] = []
    for graph in (evaluated, trained):
        calls.append(defaultdict(list))
        for node in graph.nodes:
            calls[-1][_owner(node)].append("a constant" if node.op == "get_attr" else node.target)
    return {place for place in calls[0].keys() | calls[1].keys() if calls[0][place] != calls[1][place]}


def _called_else(
    network: nn.Module, evaluated: fx.Graph, trained: fx.Graph, apart: set[str]
) -> dict[fx.Node, dict[int | str, Any]]:
    """Return by function what else it is given in training; `apart` takes the modules of all other differences."""
    found: dict[fx.Node, dict[int | str, Any]] = {}
    twins: dict[fx.Node, fx.Node] = {}
    for node, twin in zip(evaluated.nodes, trained.nodes, strict=True):
        twins[twin] = node
        args, named = fx.map_arg((twin.args, twin.kwargs), twins.__getitem__)
        given, then = ({**dict(enumerate(a)), **k} for a, k in ((node.args, node.kwargs), (args, named)))
        other = {key: then.get(key) for key in given if then.get(key) != given[key]}
        nodes: list[fx.Node] = []
        fx.map_arg((tuple(other.values()), tuple(given[key] for key in other)), nodes.append)
        if given.keys() != then.keys() or nodes or (other and node.op != "call_function"):
            apart.add(_owner(node))
        elif other:
            found[node] = other
        elif node.op == "get_attr" and not _same(network, str(node.target), str(twin.target)):
            apart.add(_owner(node))
    return found


def _same(network: nn.Module, name: str, other: str) -> bool:
    """Tell whether two attributes of a network are one, or equal: what a forward pass makes anew has two names."""
    first, second = (attrgetter(one)(network) for one in (name, other))
    return first is second or (isinstance(first, torch.Tensor) and torch.equal(first, second))


def _following_the_mode(
    network: nn.Module, evaluated: fx.Graph, changes: dict[fx.Node, dict[int | str, Any]]
) -> fx.GraphModule:
    """Return the graph with modules in place of functions that are called in another way in training."""
    graph = fx.GraphModule(network, evaluated)
    for node, other in changes.items():
        assert callable(node.target)
        name = f"by_mode_{sum(one.startswith('by_mode_') for one in graph._modules)}"
        module = ByMode(node.target, other).train(network.get_submodule(_owner(node)).training)
        graph.add_submodule(name, module)
        with evaluated.inserting_before(node):
            node.replace_all_uses_with(evaluated.call_module(name, node.args, dict(node.kwargs)))
        evaluated.erase_node(node)
    graph.recompile()
    return graph
