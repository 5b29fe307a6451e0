"""Names to networks: `build()`."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from torch import nn

from ..seeding import drawing
from ..settings import first_line, imported
from .zoo import NETWORKS

UNSAID: Any = "unsaid"  # a part of the anatomy that nobody has declared: it is guessed


def build(
    name: str,
    classes: int = 10,
    seed: int = 0,
    *,
    head: str | None = UNSAID,
    prunable: Sequence[str] = UNSAID,
    **arguments: Any,
) -> nn.Module:
    """Build a freshly initialised network.

    Parameters
    ----------
    name
        One of `NETWORKS`: conv3, resnet18, mobilenetv2, shufflenetv2, densenet121, alexnet, lenet5, fc1 (the official
        code's eight, with stems for small images), resnet20, resnet32, resnet44, resnet56 (for CIFAR). Or
        "package.module:name": anything that takes the number of classes and returns a module.
    classes
        Outputs of the head.
    seed
        Of the initialisation: the same seed gives the same weights on every device.
    head
        The module name of the classifier, or None where the network has none. By default as the network itself says in
        an attribute `anatomy` ({"head": ..., "prunable": ...}), else the last linear layer.
    prunable
        Names of parameters, or patterns ("block*.weight"). By default as the network says, else see `prunable`.
    **arguments
        Of the network: `width` for conv3 (channels width, 2 width, 4 width; 64 is the paper's), `image_size` for fc1.

    Returns
    -------
    torch.nn.Module
        In float32 on the CPU, with an attribute `architecture` = {"name", "classes", "arguments"}. Input [N, 3, H, W],
        output [N, classes]. Any image size of 32 or more works; adaptive pooling takes up the difference.

    Raises
    ------
    ValueError
        For an unknown name, an argument that it does not take, or fewer than one class.
    """
    make = check_network(name)
    if classes < 1:
        raise ValueError(f"classes must be at least 1, not {classes}")
    try:
        signature(make).bind(classes, **arguments)
    except TypeError:
        raise ValueError(f"{name} does not take the arguments {sorted(arguments)}") from None
    with drawing(seed, "init", name):
        try:
            network = make(classes, **arguments)
        except Exception as problem:  # of an argument's kind or size: each network has its own
            raise ValueError(f"{name} cannot be built with {arguments}: {first_line(problem)}") from problem
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} must give a torch.nn.Module, not a {type(network).__name__}")
    said = {"head": head, "prunable": prunable}
    said = {part: value for part, value in said.items() if value is not UNSAID}
    if said:
        vars(network)["anatomy"] = dict(getattr(network, "anatomy", {})) | said
    vars(network)["architecture"] = {"name": name, "classes": classes, "arguments": arguments | said}
    return network


def check_network(name: str) -> Callable[..., nn.Module]:
    """Return what makes the network of this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" not in name:
        raise ValueError(f"unknown network {name!r}; allowed: {', '.join(NETWORKS)}, or package.module:name")
    make = imported(name, "the network")
    if not callable(make):
        raise ValueError(f"the network {name} must be callable, not a {type(make).__name__}")
    return make  # type: ignore[no-any-return]


def architecture(network: nn.Module) -> dict[str, Any]:
    """Return {"name", "classes", "arguments"} of a network that `build` made; of any other, what can be known."""
    known = vars(network).get("architecture")
    if known is not None:
        return dict(known)
    outputs = [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]
    return {"name": type(network).__name__, "classes": outputs[-1] if outputs else None, "arguments": {}}


def in_words(name: str, arguments: dict[str, Any]) -> str:
    """Return a network and its arguments as people write them: "conv3 width 16"."""
    return " ".join([name, *(f"{key} {value}" for key, value in arguments.items())])
