"""What a network says of itself: the name, classes and arguments that `build` made it of."""

from typing import Any

from torch import nn

from ..settings import shown
from .zoo import NETWORKS


def architecture(network: nn.Module) -> dict[str, Any]:
    """Return {"name", "classes", "arguments"} of a network that `build` made; of any other, what can be known."""
    if not isinstance(network, nn.Module):
        example = "cc.build('conv3', 10) for example"
        raise ValueError(f"network must be a torch.nn.Module, {example}, not {shown(network)}")
    known = vars(network).get("architecture")
    if known is not None:
        return dict(known)
    outputs = [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]
    return {"name": type(network).__name__, "classes": outputs[-1] if outputs else None, "arguments": {}}


def has_a_name(network: nn.Module) -> bool:
    """Tell whether a network was made by `build`, hence can be made again from what its ticket says."""
    return is_a_name(architecture(network)["name"])


def is_a_name(name: str) -> bool:
    """Tell whether `build` may know a network of this name."""
    return name in NETWORKS or ":" in name


def in_words(name: str, arguments: dict[str, Any]) -> str:
    """Return a network and its arguments as people write them: "conv3 width 16"."""
    return " ".join([name, *(f"{key} {value}" for key, value in arguments.items())])
