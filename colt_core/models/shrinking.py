"""The same function in a smaller network: its own layers without the channels that are always zero."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn

from .channels import ADDING, MULTIPLYING, Rows, follow, parts_of
from .gather import Gather
from .in_place import NORMS, name_of
from .tracing import traced


class Compact(fx.GraphModule):
    """A graph of layers that, copied or pickled, still knows what it was built from."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compact":
        """Copy it with all that is said of it."""
        return _told_as(super().__deepcopy__(memo), self)  # type: ignore[no-untyped-call]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it as what it is: a graph alone, copied later, would not say what it was built from."""
        return _unpickled, super().__reduce__()


def _unpickled(make: Callable[..., fx.GraphModule], given: tuple[Any, ...]) -> Compact:
    graph = make(*given)
    return _told_as(Compact(graph, graph.graph), graph)


def _told_as(copied: Any, network: nn.Module) -> Any:
    """Say of a copy what is said of a network."""
    for name in ("architecture", "anatomy"):
        if name in vars(network):
            vars(copied)[name] = deepcopy(vars(network)[name])
    return copied


def rounded(rows: Rows, multiple: int) -> dict[str, torch.Tensor]:
    """Return rows with some that are dead kept, so that a layer has a multiple of so many, or all that it has."""
    found = {}
    for name, alive in rows.items():
        wanted = min(len(alive), -(-int(alive.sum()) // multiple) * multiple)
        order = torch.argsort(~alive, stable=True)  # the living first, each in its order
        found[name] = torch.zeros_like(alive)
        found[name][order[:wanted]] = True
    return found


def shrunk(network: nn.Module, rows: Rows, multiple: int = 1) -> fx.GraphModule:
    """Return the network without the rows that are not there, and without all that reads them.

    It is the network's own layers, of their own names, smaller; what its graph adds, multiplies or concatenates is
    brought to one set of channels first. Its outputs are those of the network in which those rows, their normalisation
    and their biases are zero. Rows that are `rounded` to a multiple stay one where blocks are added or read by channel:
    channels of zeros fill them up.

    Raises
    ------
    ValueError
        For a layer without a row, forward hooks of the network itself (a graph has none), and as `traced`.
    """
    for name, alive in rows.items():
        if not bool(alive.any()):
            raise ValueError(f"the mask leaves layer {name} without a channel")
    if network._forward_hooks or network._forward_pre_hooks:
        raise ValueError("the network has forward hooks, which its compact form would not call: remove them first")
    graph = traced(deepcopy(network))
    small = _Shrinking(graph, rows, multiple).run()
    modes = {name: module.training for name, module in network.named_modules()}
    for name, module in small.named_modules():
        module.training = modes.get(name, module.training)
    return small


class _Shrinking:
    """Goes through a graph once and makes every layer as small as what it reads and gives."""

    def __init__(self, graph: fx.GraphModule, rows: Rows, multiple: int) -> None:
        self.graph, self.rows, self.multiple = graph, rows, multiple
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
        if alive is None:
            self._whole(node)
            return None
        if node.op == "call_module":
            return self._module(node, self.graph.get_submodule(str(node.target)), alive)
        name, read = name_of(node), node.all_input_nodes
        if name in ADDING | MULTIPLYING and len(read) == 2:
            return self._join(node, read, alive, name in ADDING)
        if name in ("cat", "concat"):
            return self._concatenated(parts_of(node))
        if name == "pad":
            return self._pad(node, read[0], alive)
        return self._read(node, read[0], alive)

    def _read(self, node: fx.Node, read: fx.Node, alive: torch.Tensor) -> torch.Tensor | None:
        """Return the channels that a node has from what it reads: all, where it gives one that is gone a value."""
        have = self.there[read]
        if have is not None and bool(alive.index_fill(0, have, False).any()):
            self._whole(node)
            return None
        return have

    def _whole(self, node: fx.Node) -> None:
        """Give a node all channels of what it reads."""
        for one in node.all_input_nodes:
            self._bring(node, one, None)

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
        if not len(wanted):
            raise ValueError(f"the mask leaves {node.name}, a product, without a channel")
        wanted = self._filled(wanted, torch.arange(wide))
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

    def _module(self, node: fx.Node, module: nn.Module, alive: torch.Tensor) -> torch.Tensor | None:
        [read] = node.all_input_nodes[:1]
        have, name = self.there[read], str(node.target)
        if isinstance(module, nn.Linear):
            return self._layer(module, name, self._columns(module, read, have), alive)
        if isinstance(module, nn.Conv2d):
            whole = module.groups == 1
            return self._layer(module, name, have, alive) if whole else self._depthwise(node, read, module, alive)
        if isinstance(module, (nn.PReLU, Gather)):
            self._whole(node)
            return None
        have = self._read(node, read, alive)
        if isinstance(module, NORMS):
            _keep_features(module, have)
        return have

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
        module.weight = nn.Parameter(weight.clone(), module.get_parameter("weight").requires_grad)
        if isinstance(bias := module.bias, nn.Parameter) and rows is not None:
            module.bias = _some(bias, rows)
        names = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("out_channels", "in_channels")
        for which, count in zip(names, weight.shape[:2], strict=True):
            setattr(module, which, count)
        return rows

    def _depthwise(self, node: fx.Node, read: fx.Node, module: nn.Conv2d, alive: torch.Tensor) -> torch.Tensor | None:
        have = self.there[read]
        wanted = alive.nonzero().flatten() if have is None else have[alive[have]]
        if not len(wanted):
            raise ValueError(f"the mask leaves layer {node.target} without a channel")
        wanted = self._filled(wanted, torch.arange(len(alive)) if have is None else have)
        if len(wanted) == len(alive):
            return None
        self._bring(node, read, wanted)
        module.weight = _some(module.get_parameter("weight"), wanted)
        if isinstance(bias := module.bias, nn.Parameter):
            module.bias = _some(bias, wanted)
        module.in_channels = module.out_channels = module.groups = len(wanted)
        return wanted

    def _filled(self, wanted: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return channels with some of others, that are zero, so that they are a multiple, or as many as there are."""
        lacking = -len(wanted) % self.multiple
        return torch.cat([wanted, others[~torch.isin(others, wanted)][:lacking]]).sort().values

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
        change = Gather(where[targets], len(sources)).train(self.graph.training)
        name = f"gather_{len([n for n in self.graph._modules if n.startswith('gather_')])}"
        self.graph.add_submodule(name, change)
        with self.graph.graph.inserting_before(node):
            new = self.graph.graph.call_module(name, (read,))
        node.replace_input_with(read, new)


def _some(parameter: nn.Parameter, index: torch.Tensor) -> nn.Parameter:
    """Return some rows of a parameter, frozen where it is."""
    return nn.Parameter(parameter.detach()[index].clone(), parameter.requires_grad)


def _keep_features(module: nn.Module, index: torch.Tensor | None) -> None:
    """Leave a normalisation the channels that are there."""
    if index is None:
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(module, name, None)
        if isinstance(value, nn.Parameter):
            setattr(module, name, _some(value, index))
        elif isinstance(value, torch.Tensor):
            setattr(module, name, value[index].clone())
    module.num_features = len(index)  # type: ignore[assignment]
