"""What of a network is its head, what is prunable, what a pass costs; and exact head surgery."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from ..seeding import drawing
from ..settings import first_line
from .architecture import architecture, has_a_name
from .gather import Gather
from .zoo import NETWORKS

if TYPE_CHECKING:
    import pandas as pd

UNSAID: Any = "unsaid"  # a part of the anatomy that nobody has declared: it is guessed
Gives = Literal["scores", "images", "any"]
Prunable = Sequence[str] | Callable[[str, torch.Tensor], bool]
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention


@dataclass(frozen=True)
class Anatomy:
    """The parts of a network that pruning must know, as they were declared, else as they are guessed.

    Attributes
    ----------
    head
        The module name of the classifier, which is made anew for other classes; None: there is none.
    prunable
        The names of the parameters that are pruned, in the network's order, the head's left out.
    """

    head: str | None
    prunable: tuple[str, ...]


def anatomy_of(network: nn.Module) -> Anatomy:
    """Return a network's anatomy.

    It is what the network's attribute `anatomy` says, a mapping with "head" (a module's name or None) and "prunable"
    (names or patterns of parameters), set by the network's own class, by `build(..., head=, prunable=)` or by
    `anatomy(network, head=, prunable=)`. What is not said is guessed. The head is the last linear layer with an output
    a class, else the last convolution that has them, else the last linear layer. Prunable are the weights of all
    convolutions (first, depthwise and 1x1 shortcut convolutions included), of all hidden linear layers, and the
    projections of attention; but for frozen ones, where others learn.

    Raises
    ------
    ValueError
        If the head is no linear layer or convolution, or there are several to choose from; if a pattern fits no
        parameter with two dimensions or more; for a layer whose weight is computed from others, or not yet made.
    """
    architecture(network)  # refuses what is no network
    for name, weight in network.named_parameters():
        if isinstance(weight, UninitializedParameter):
            layer = name.rpartition(".")[0]
            raise ValueError(f"layer {layer} has no weights yet (it is lazy): pass a batch through the network first")
    said: Mapping[str, Any] = getattr(network, "anatomy", {})
    head = _declared_head(network, said["head"]) if "head" in said else _guessed_head(network)
    if "prunable" in said:
        names = _matching(network, said["prunable"])
    else:
        names = [name for name, why in _reasons(network, head).items() if why.startswith("prunable")]
    for name in names:
        _check_weight(network, name)
    return Anatomy(head, tuple(names))


def declare(network: nn.Module, *, head: str | None = UNSAID, prunable: Prunable = UNSAID) -> dict[str, Any]:
    """Say what of a network is its head and what is prunable, over what it says itself; return what was said.

    Raises
    ------
    ValueError
        As `anatomy_of`; then nothing is changed.
    """
    said: dict[str, Any] = {} if head is UNSAID else {"head": head}
    if prunable is not UNSAID:
        if callable(prunable):
            chosen = [n for n, weight in network.named_parameters() if weight.ndim > 1 and prunable(n, weight)]
            if not chosen:
                raise ValueError("prunable, a function, has chosen no weight of the network")
            prunable = chosen
        said["prunable"] = prunable
    before = getattr(network, "anatomy", {})
    vars(network)["anatomy"] = dict(before) | said
    try:
        anatomy_of(network)
    except ValueError:
        vars(network)["anatomy"] = before
        raise
    if (about := vars(network).get("architecture")) is not None:  # copies and tickets are built again as declared
        vars(network)["architecture"] = about | {"arguments": about["arguments"] | said}
    return said


def anatomy(network: nn.Module, *, head: str | None = UNSAID, prunable: Prunable = UNSAID) -> "pd.DataFrame":
    """Return a table of a network's weights: which are prunable, and why or why not.

    Parameters
    ----------
    network
        Any module.
    head, prunable
        As for `build`; what is given is declared on the network, and holds from then on.

    Returns
    -------
    pandas.DataFrame
        A row a parameter with two dimensions or more, by its name: `shape`, `weights`, `prunable`, `why`, and `share`
        of all the network's parameters. The last row is all the rest, biases and normalisation.

    Raises
    ------
    ValueError
        As `anatomy_of`.
    """
    import pandas as pd

    if head is not UNSAID or prunable is not UNSAID:
        declare(network, head=head, prunable=prunable)
    found, declared = anatomy_of(network), "prunable" in getattr(network, "anatomy", {})
    reasons = _reasons(network, found.head)
    rows = []
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            kept = name in found.prunable
            guessed = reasons[name].removeprefix("prunable: ")
            why = "declared" if declared and kept else "left out by what is declared" if declared else guessed
            why = guessed if guessed == "the head" and not kept else why
            rows.append((name, tuple(weight.shape), weight.numel(), kept, why))
    whole = sum(weight.numel() for weight in network.parameters())
    rest = whole - sum(row[2] for row in rows)
    rows.append(("(biases, normalisation)", (), rest, False, "one dimension"))
    table = pd.DataFrame(rows, columns=["layer", "shape", "weights", "prunable", "why"])
    return table.assign(share=table["weights"] / max(1, whole)).set_index("layer")


# --- heads -------------------------------------------------------------------------------------------------------


def outputs_of(module: nn.Module) -> int:
    """Return the outputs of a linear layer or a convolution."""
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]


def _declared_head(network: nn.Module, name: Any) -> str | None:
    heads = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if name is not None and name not in heads:
        linear = [n for n in heads if isinstance(network.get_submodule(n), nn.Linear)] or heads
        raise ValueError(
            f"the head {name!r} is no linear layer or convolution of the network; "
            f"there are: {', '.join(linear) or 'none'}"
        )
    return name  # type: ignore[no-any-return]


def _guessed_head(network: nn.Module) -> str | None:
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    classes = architecture(network)["classes"]
    fit = [name for name, module in linear.items() if module.out_features == classes]
    if fit:
        parent = fit[-1].rpartition(".")[0]
        beside = [name for name in fit if name.rpartition(".")[0] == parent]
        if len(beside) > 1 and isinstance(network.get_submodule(parent), nn.ModuleList | nn.ModuleDict):
            raise ValueError(f"the network has several heads, {', '.join(beside)}: say which classifies, head=...")
        return fit[-1]
    convolutions = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.out_channels == classes]
    if convolutions and not linear:
        return convolutions[-1]
    return next(reversed(linear), None)


# --- prunable parts ----------------------------------------------------------------------------------------------


def _reasons(network: nn.Module, head: str | None) -> dict[str, str]:
    """Say of each parameter with two dimensions or more why it is prunable, or is not, where nothing is declared."""
    told = {name: "no convolution, linear layer or attention" for name, w in network.named_parameters() if w.ndim > 1}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            told |= {prefix + part: "prunable: attention" for part in ATTENTION if prefix + part in told}
        kind = "convolution" if isinstance(module, CONVOLUTIONS) else "linear layer"
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            weight = f"{prefix}weight"
            if weight in told:
                told[weight] = "the head" if name == head else f"prunable: {kind}"
            elif name != head and not _is_shared(network, weight):
                told[weight] = f"prunable: {kind}"  # a weight that is no parameter: refused by `_check_weight`
    guessed = {name for name, why in told.items() if why.startswith("prunable")}
    frozen = {name for name, weight in network.named_parameters() if name in guessed and not weight.requires_grad}
    if frozen < guessed:  # else it is not about to learn at all
        told |= dict.fromkeys(frozen, "frozen")
    return told


def _is_shared(network: nn.Module, name: str) -> bool:
    """Tell whether a parameter is another one under a second name: tied weights have one mask, under the first."""
    return name in dict(network.named_parameters(remove_duplicate=False))


def _check_weight(network: nn.Module, name: str) -> None:
    """Refuse a weight on which a mask would not hold."""
    parameter = dict(network.named_parameters()).get(name)
    layer, _, part = name.rpartition(".")
    module = network.get_submodule(layer)
    if is_parametrized(module, part) or name.startswith("parametrizations.") or ".parametrizations." in name:
        raise ValueError(f"the weight of layer {layer} is computed from others (parametrised); a mask would not hold")
    if parameter is None:
        raise ValueError(
            f"the weight of layer {layer} is no parameter (weight norm, torch.nn.utils.prune): make it one again, or "
            "say what is prunable without it, prunable=[...]"
        )


def _matching(network: nn.Module, patterns: Any) -> list[str]:
    """Return the parameters that any of the patterns fits, in the network's order."""
    names = [name for name, weight in network.named_parameters() if weight.ndim > 1]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not (isinstance(patterns, list | tuple) and all(isinstance(pattern, str) for pattern in patterns)):
        raise ValueError(f"prunable must be names or patterns of parameters, not {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"prunable {pattern!r} fits no weight of the network; there are: {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def prunable(network: nn.Module, stem: bool = True, head: bool = False) -> list[str]:
    """Name the parameters that are pruned, in the network's order: see `anatomy_of`.

    Parameters
    ----------
    stem
        False leaves the first layer out.
    head
        True takes the classifier in (a ticket with a pruned head keeps that part only for the same classes).

    Raises
    ------
    ValueError
        If the head is asked for and there is none.
    """
    parts = anatomy_of(network)
    if head and parts.head is None:
        raise ValueError(f"{architecture(network)['name']} has no head that could be pruned")
    return list(parts.prunable)[0 if stem else 1 :] + ([f"{parts.head}.weight"] if head else [])


def transposed(network: nn.Module) -> frozenset[str]:
    """Return the names of the weights of transposed convolutions: their first dimension is the input channels."""
    return frozenset(f"{name}.weight" for name, module in network.named_modules() if isinstance(module, TRANSPOSED))


def depthwise(network: nn.Module) -> frozenset[str]:
    """Return the names of the weights of convolutions whose filters read one channel each, of several."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return frozenset(f"{name}.weight" for name, layer in layers if 1 < layer.groups == layer.in_channels)


def head_name(network: nn.Module) -> str | None:
    """Return the module name of the classifier; None where there is none."""
    return anatomy_of(network).head


def with_head(network: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Return a copy with a fresh head of `classes` outputs; every other byte is unchanged.

    The head depends on the seed and the number of classes alone, so that all tickets of one comparison share it.

    Raises
    ------
    ValueError
        If the network has no head.
    """
    return replace_head(deepcopy(network), classes, seed)


def replace_head(copy: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Do what `with_head` does to the network itself, and return it."""
    name = head_name(copy)
    if name is None:
        raise ValueError(f"{architecture(copy)['name']} has no head that could be made anew for {classes} classes")
    old = copy.get_submodule(name)
    assert isinstance(old, nn.Linear | nn.Conv2d)
    bias = old.bias is not None
    with drawing(seed, "head", classes):
        if isinstance(old, nn.Linear):
            new: nn.Module = nn.Linear(old.in_features, classes, bias=bias)
        else:
            how = {name: getattr(old, name) for name in ("stride", "padding", "dilation", "padding_mode")}
            new = nn.Conv2d(old.in_channels, classes, old.kernel_size, bias=bias, **how)  # type: ignore[arg-type]
    new = new.to(old.weight.device)
    # Drawn on the CPU, from the seed and the classes alone: two tickets that are compared get the very same head.
    parent, _, leaf = name.rpartition(".")
    setattr(copy.get_submodule(parent), leaf, new)
    vars(copy)["architecture"] = architecture(copy) | {"classes": classes}
    return copy


@torch.no_grad()
def check_output(network: nn.Module, shape: Sequence[int], gives: Gives = "scores", classes: int | None = None) -> None:
    """Refuse a network that cannot take images of a shape (channels, height, width), or gives something else.

    An error of the network's own, of another kind than a shape that does not fit, is raised as it is.

    Raises
    ------
    ValueError
        In one line. What it must give: "scores", one a class, of `classes` where that is given, else of those that it
        says it has; "images", of the same shape; or "any".
    """
    about = architecture(network)
    about = about if classes is None else about | {"classes": classes}
    asked = json.dumps(about, sort_keys=True), str(network), tuple(shape), gives
    if asked in _FITTING and has_a_name(network):  # of others it is not known what they compute
        return
    channels, height, width = shape
    try:
        copy = deepcopy(network).cpu()
    except RuntimeError as problem:
        raise ValueError(f"{about['name']} cannot be copied: {first_line(problem)}") from None
    for training in (False, True):
        with drawing(0, "probe"):
            try:
                given = copy.train(training)(torch.zeros(2, *shape))
            except (RuntimeError, AssertionError, ValueError) as problem:
                seen = f"images of {height} x {width} pixels" + (" with 1 channel" if channels == 1 else "")
                advice = "; say so: channels=1" if channels == 1 and about["name"] in NETWORKS else ""
                raise ValueError(f"{about['name']} cannot take {seen}{advice} ({first_line(problem)})") from None
        if gives == "scores":
            _check_scores(given, about, shape)
        elif gives == "images" and (not isinstance(given, torch.Tensor) or given.shape != (2, *shape)):
            form = list(given.shape) if isinstance(given, torch.Tensor) else f"a {type(given).__name__}"
            raise ValueError(f"{about['name']} gives {form} for 2 images; {[2, *shape]}, images again, is expected")
    _FITTING.add(asked)


_FITTING: set[tuple[Any, ...]] = set()


def _check_scores(given: Any, about: Mapping[str, Any], shape: Sequence[int]) -> None:
    """Refuse outputs that are no tensor of one score a class."""
    name, classes = about["name"], about["classes"]
    if not isinstance(given, torch.Tensor):
        raise ValueError(
            f"{name} gives a {type(given).__name__}; a tensor [N, classes] of scores is expected: wrap the network"
        )
    if given.shape == (2, *shape):
        raise ValueError(
            f"{name} gives images back, no scores of classes: cross-entropy and accuracy need a classifier"
        )
    if given.ndim != 2 or len(given) != 2 or (classes is not None and given.shape[1] != classes):
        raise ValueError(f"{name} gives {list(given.shape)} for 2 images; [2, {classes or 'classes'}] is expected")


@torch.no_grad()
def forward_flops(network: nn.Module, shape: Sequence[int] = (3, 32, 32)) -> int:
    """Return the floating-point operations of one image's dense forward pass; `shape`: channels, height, width.

    A multiply-add is 2. Of a network of convolutions and linear layers they are counted here, and are what PyTorch's
    counter counts, which imports its compiler: two seconds in every process. Attention is left to that.
    """
    about = json.dumps(architecture(network), sort_keys=True), str(network), tuple(shape)
    if (known := _FLOPS.get(about) if has_a_name(network) else None) is None:
        probe, images = deepcopy(network).cpu().eval(), torch.zeros(1, *shape)
        ours = architecture(network)["name"] in NETWORKS
        known = _FLOPS[about] = (_layers_flops if ours else _all_flops)(probe, images)
    return known


_FLOPS: dict[tuple[str, str, tuple[int, ...]], int] = {}  # counted once for each network as it prints itself


def _layers_flops(probe: nn.Module, images: torch.Tensor) -> int:
    """Count the operations of convolutions, transposed ones too, and linear layers."""
    counted = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        # A transposed convolution spreads each of its inputs over a kernel; its weight is [in, out, ...].
        met = given[0] if isinstance(module, TRANSPOSED) else output
        counted += 2 * met.numel() * module.get_parameter("weight")[0].numel()

    for module in probe.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(count)
    probe(images)
    return counted


def _all_flops(probe: nn.Module, images: torch.Tensor) -> int:
    """Count what PyTorch's own counter knows: attention too."""
    from torch.utils.flop_counter import FlopCounterMode

    for module in probe.modules():
        if isinstance(module, Gather):
            module.by_ones = False
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one call that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter:
            probe(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
