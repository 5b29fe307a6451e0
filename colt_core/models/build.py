"""Names to networks: `build()`."""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ..foreign import fingerprint, imported, where_in
from ..seeding import drawing
from ..settings import check_whole, first_line, meant, plain_value, shown
from .anatomy import UNSAID, Prunable, anatomy_of, declare, outputs_of
from .architecture import architecture, has_a_name
from .compacted import PREFIX, maker
from .pretrained import Weights, load_weights
from .zoo import NETWORKS

CLASSES = ("num_classes", "classes", "n_classes")  # the keywords under which factories take the number of classes


def build(
    name: str,
    classes: int = 10,
    seed: int = 0,
    *,
    head: str | None = UNSAID,
    prunable: Prunable = UNSAID,
    classes_as: str | None = None,
    weights: Weights | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a freshly initialised network.

    Parameters
    ----------
    name
        One of `NETWORKS`: conv3, resnet18, mobilenetv2, shufflenetv2, densenet121, alexnet, lenet5, fc1 (the official
        code's eight, with stems for small images), resnet14, resnet20, resnet32, resnet44, resnet56 (for CIFAR);
        autoencoder, vae, dcgan, which give images. Or "torchvision:resnet50", "timm:resnet26" (the extra `models`): any
        classifier of these libraries, as it is there.
        Or "compact:" before any of these, as `compact` left it.
        Or "package.module:name": anything that takes the number of classes and returns a module.
    classes
        Outputs of the head.
    seed
        Of the initialisation: the same seed gives the same weights on every device.
    head
        The module name of the classifier, a linear layer or a convolution, or None where the network has none. By
        default as the network itself says in an attribute `anatomy` ({"head": ..., "prunable": ...}), else it is
        guessed: see `anatomy_of`.
    prunable
        Names of parameters, patterns ("block*.weight"), or a function of a name and its parameter. By default as the
        network says, else it is guessed.
    classes_as
        The keyword under which the factory takes the number of classes; by default `num_classes`, where it has that.
    weights
        Pretrained weights in place of the initialisation: a file (safetensors, or what `torch.save` wrote) or a state
        dict. The head is fresh where theirs has other outputs. Of `torchvision:` networks the name of its published
        weights too ("DEFAULT"), which are downloaded; nothing else is.
    **arguments
        Of the network: `width` for conv3 (channels width, 2 width, 4 width; 64 is the paper's), autoencoder, vae (16)
        and dcgan (64), `image_size` for fc1, `latent` and `side` for autoencoder, vae and dcgan, `channels` of the
        images for all of `NETWORKS` (3; 1 is grey).

    Returns
    -------
    torch.nn.Module
        In float32 on the CPU, with an attribute `architecture` = {"name", "classes", "arguments"} and, where its code
        is not this package's, "code", that code's version. Input [N, C, H, W], output [N, classes]. Of `NETWORKS` any
        image size of 32 or more works; adaptive pooling takes up the difference.

    Raises
    ------
    ValueError
        For an unknown name, an argument that it does not take, fewer than one class, weights that do not fit.
    """
    if not isinstance(name, str):
        about = "'conv3' or 'package.module:name'; a module that you have is taken as it is, by cc.colt(module, ...)"
        raise ValueError(f"name must be a network's name, {about}, not {shown(name)}")
    make, arguments = check_network(name), {key: plain_value(value) for key, value in arguments.items()}
    classes = plain_value(classes)
    check_whole("classes", classes, 1)
    given, named = _with_classes(name, make, classes, classes_as, arguments)
    with drawing(seed, "init", name):
        try:
            network = make(*given, **named)
        except Exception as problem:  # of an argument's kind or size: each network has its own
            raise ValueError(
                f"{name} cannot be built with {arguments}: {first_line(problem)}{where_in(problem)}"
            ) from problem
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} must give a torch.nn.Module, not a {type(network).__name__}")
    said: dict[str, Any] = {} if head is UNSAID else {"head": head}
    said |= {} if prunable is UNSAID else {"prunable": prunable}
    if said:
        said = declare(network, **said)
    recorded = {key: value for key, value in arguments.items() if key != "pretrained"} | said  # theta0 tells the rest
    for key, value in recorded.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            advice = f"a ticket can name numbers, text, lists and mappings, not {shown(value)}"
            raise ValueError(f"{name} cannot be built with {key} like this: {advice}") from None
    about = {
        "name": name,
        "classes": classes,
        "arguments": recorded | ({"classes_as": classes_as} if classes_as else {}),
    }
    whole = name.removeprefix(PREFIX)
    vars(network)["architecture"] = about | ({"code": fingerprint(whole)} if ":" in whole else {})
    _check_outputs(network, name, classes)
    if weights is not None:
        load_weights(network, anatomy_of(network).head, name, weights)
    return network


def _check_outputs(network: nn.Module, name: str, classes: int) -> None:
    """Refuse a network whose head has not an output a class: its factory does not take the number."""
    if ":" not in name or (head := anatomy_of(network).head) is None:
        return
    if (found := outputs_of(network.get_submodule(head))) != classes:
        advice = "name the keyword of the number of classes, classes_as=..., or the head, head=..."
        raise ValueError(f"{name} has a head {head!r} of {found} outputs, not {classes}: {advice}")


def is_as_built(network: nn.Module) -> bool:
    """Tell whether `build` makes this network again from what it says of itself: nothing in it was changed since."""
    return has_a_name(network) and str(network) == _printed(json.dumps(architecture(network), sort_keys=True))


def computes(network: nn.Module) -> dict[str, Any]:
    """Return what tells apart networks that may have the same weights: name, arguments, code and modules.

    Of the workbook's own, whose weights and names say all, nothing.
    """
    about = architecture(network)
    if about["name"].removeprefix(PREFIX) in NETWORKS:
        return {}
    told, kind = about | {"modules": str(network)}, type(network)
    if not has_a_name(network) and kind.__module__ != "__main__":  # a notebook's class has no file
        with suppress(ValueError):
            told["code"] = fingerprint(f"{kind.__module__}:{kind.__qualname__}")
    return told


@lru_cache(maxsize=16)
def _printed(about: str) -> str:
    told = json.loads(about)
    return str(skeleton(told["name"], told["classes"], told["arguments"]))


def skeleton(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Return a network whose weights are to be overwritten; those of `NETWORKS` are not even drawn."""
    # Foreign code may compute with what it makes, and buffers that are in no state dict must be there.
    own = {key: value for key, value in arguments.items() if key not in ("weights", "pretrained")}  # nothing is fetched
    with torch.device("meta") if name in NETWORKS else nullcontext():
        return build(name, classes, **own)


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], **how: Any) -> None:
    """Load weights and buffers that say nothing of their modules' versions, as files do: they are of this network.

    Some modules refuse a state without one (torchvision's MNASNet). `how`: see `nn.Module.load_state_dict`.
    """
    whole: Any = OrderedDict(state)
    whole._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(whole, **how)


def check_network(name: str) -> Callable[..., nn.Module]:
    """Return what makes the network of this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    library, _, model = name.partition(":")
    if not model:
        others = "torchvision:name, timm:name or package.module:name"
        raise ValueError(f"unknown network {name!r}; allowed: {', '.join(NETWORKS)}, {others}{meant(name, NETWORKS)}")
    if library in LIBRARIES:
        return LIBRARIES[library](model)
    make = imported(name, "the network")
    if not callable(make):
        raise ValueError(f"the network {name} must be callable, not a {type(make).__name__}")
    return make  # type: ignore[no-any-return]


# --- other libraries' networks -----------------------------------------------------------------------------------


def _torchvision(model: str) -> Callable[..., nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise ValueError(f"torchvision has no classifier {model!r}{meant(model, known, most=4)}")
    make: Callable[..., nn.Module] = models.get_model_builder(model)
    return make


def _timm(model: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError:
        raise ValueError("networks of timm need it: pip install 'colt-workbook[models]'") from None
    if not timm.is_model(model):  # a name with a colon would be downloaded and run
        raise ValueError(f"timm has no network {model!r}{meant(model, timm.list_models(), most=4)}")

    def make(num_classes: int, **arguments: Any) -> nn.Module:
        return timm.create_model(model, num_classes=num_classes, **arguments)  # type: ignore[no-any-return]

    return make


def _compact(model: str) -> Callable[..., nn.Module]:
    if model.startswith(PREFIX):
        raise ValueError(f"{PREFIX}{model}: a compact network's rows are counted in the whole one; say {model}")
    make = check_network(model)

    def whole(classes: int, keyword: str | None, arguments: Mapping[str, Any]) -> nn.Module:
        given, named = _with_classes(model, make, classes, keyword, arguments)
        return make(*given, **named)

    return maker(whole)


LIBRARIES: dict[str, Callable[[str], Callable[..., nn.Module]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "compact": _compact,
}


def code_of(name: str) -> str | None:
    """Return the name of a user's own code, "package.module:name", that a network's name stands for; None: of none."""
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name if ":" in name and name.partition(":")[0] not in LIBRARIES else None


def declared_objective(network: str | nn.Module) -> str | None:
    """Return the objective that a network, or the network of a name, declares: what it learns unless told otherwise.

    It is the attribute `objective` of what makes it, its class or its function: "reconstruction", or "package.module:
    Class". None: none is declared, and it learns cross-entropy.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if isinstance(network, nn.Module):
        own: Any = getattr(network, "objective", None)
        if isinstance(own, str) or not has_a_name(network):
            return own if isinstance(own, str) else None
    name = architecture(network)["name"] if isinstance(network, nn.Module) else network
    own = getattr(check_network(name.removeprefix(PREFIX)), "objective", None)
    return own if isinstance(own, str) else None


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise a `ValueError`, in one line, where a network does not take these arguments; nothing is built."""
    own = {key: value for key, value in arguments.items() if key not in ("head", "prunable", "weights", "classes_as")}
    _with_classes(name, check_network(name), 10, arguments.get("classes_as"), own)


def arguments_of(name: str) -> tuple[dict[str, Any], bool]:
    """Return the arguments that a network takes beside the number of classes, with their defaults (None: it has none),
    and whether it takes others that its signature does not name.
    """
    make = check_network(name)
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return {}, True
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    plain = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    taken = next((n for n in CLASSES if n in plain), None)
    if taken is None and not name.startswith("torchvision:"):
        taken = next((n for n, p in plain.items() if p.kind is p.POSITIONAL_OR_KEYWORD), None)
    left = {n: p for n, p in plain.items() if n not in (taken, "weights", "progress", "pretrained")}
    return {n: None if p.default is p.empty else p.default for n, p in left.items()}, open_ended


# --- factories ---------------------------------------------------------------------------------------------------


def _with_classes(
    name: str, make: Callable[..., nn.Module], classes: int, keyword: str | None, arguments: Mapping[str, Any]
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return what a factory is called with: the number of classes by its keyword, else as the first argument."""
    try:
        taken = inspect.signature(make)
    except (TypeError, ValueError):  # of a callable that is written in C
        return (classes,), dict(arguments)
    parameters = taken.parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if keyword is not None and keyword not in parameters and not open_ended:
        raise ValueError(f"{name} has no keyword {keyword!r} for the number of classes; it takes {taken}")
    if keyword is None:
        keyword = next((k for k in CLASSES if k in parameters), None)
    if keyword is None:
        first = next((p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)), None)
        plain = first is not None and first.name not in arguments
        keyword = CLASSES[0] if open_ended and not plain else None
    given = () if keyword else (classes,)
    named = ({keyword: classes} if keyword else {}) | dict(arguments)
    try:
        taken.bind(*given, **named)
    except TypeError:
        if not parameters:
            raise ValueError(f"{name} takes no number of classes; name the keyword for it: classes_as=...") from None
        allowed = [k for k, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        allowed = [k for k in allowed if k not in ([keyword] if keyword else allowed[:1])]
        about = f"allowed: {', '.join(allowed)}" if allowed else "it takes none"
        raise ValueError(f"{name} does not take the arguments {sorted(arguments)}; {about}") from None
    return given, named
