"""The networks, what of them is prunable, and exact head surgery."""

import json
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .seeding import derive


def build(name: str, classes: int = 10, seed: int = 0, **arguments: Any) -> nn.Module:
    """Build a freshly initialised network.

    Parameters
    ----------
    name
        One of `NETWORKS`: conv3, resnet18, mobilenetv2, shufflenetv2, densenet121, alexnet, lenet5, fc1 (the official
        code's eight, with stems for small images), resnet20, resnet32, resnet44, resnet56 (for CIFAR).
    classes
        Outputs of the head.
    seed
        Of the initialisation: the same seed gives the same weights on every device.
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
        For an unknown name or argument, or fewer than one class.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; allowed: {', '.join(NETWORKS)}")
    if classes < 1:
        raise ValueError(f"classes must be at least 1, not {classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", name))
        try:
            network = NETWORKS[name](classes, **arguments)
        except TypeError:
            raise ValueError(f"{name} does not take the arguments {sorted(arguments)}") from None
    vars(network)["architecture"] = {"name": name, "classes": classes, "arguments": arguments}
    return network


def architecture(network: nn.Module) -> dict[str, Any]:
    """Return {"name", "classes", "arguments"} of a network that `build` made; of any other, what can be known."""
    head = network.get_submodule(head_name(network))
    known: dict[str, Any] = {"name": type(network).__name__, "classes": head.out_features, "arguments": {}}
    return vars(network).get("architecture", known)


def in_words(name: str, arguments: dict[str, Any]) -> str:
    """Return a network and its arguments as people write them: "conv3 width 16"."""
    return " ".join([name, *(f"{key} {value}" for key, value in arguments.items())])


def prunable(network: nn.Module, stem: bool = True, head: bool = False) -> list[str]:
    """Name the parameters that the paper prunes, in the network's order.

    All convolution weights (first, depthwise and 1x1 shortcut convolutions included); where a network has hidden linear
    layers and at most two convolutions (fc1, lenet5) those linear layers too, as the lottery ticket papers do.

    Parameters
    ----------
    stem
        False leaves the first layer out.
    head
        True takes the classifier in (a ticket with a pruned head keeps that part only for the same classes).
    """
    convolutions = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    linear = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    names = convolutions + (linear[:-1] if len(convolutions) <= 2 else [])
    return names[0 if stem else 1 :] + ([f"{head_name(network)}.weight"] if head else [])


def head_name(network: nn.Module) -> str:
    """Return the module name of the classifier: the last linear layer."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def with_head(network: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Return a copy with a fresh head of `classes` outputs; every other byte is unchanged.

    The head depends on the seed and the number of classes alone, so that all tickets of one comparison share it.
    """
    return replace_head(copy_of(network), classes, seed)


def replace_head(copy: nn.Module, classes: int, seed: int = 0) -> nn.Module:
    """Do what `with_head` does to the network itself, and return it."""
    name = head_name(copy)
    old = copy.get_submodule(name)
    assert isinstance(old, nn.Linear)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "head", classes))
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None).to(old.weight.device)
    parent, _, leaf = name.rpartition(".")
    setattr(copy.get_submodule(parent), leaf, new)
    vars(copy)["architecture"] = architecture(copy) | {"classes": classes}
    return copy


def copy_of(network: nn.Module) -> nn.Module:
    """Return an independent copy of a network, without its history."""
    history = vars(network).pop("history", None)
    copy = deepcopy(network)
    if history is not None:
        vars(network)["history"] = history
    return copy


@torch.no_grad()
def forward_flops(network: nn.Module, image_size: int = 32) -> int:
    """Return the floating-point operations of the convolutions and linear layers of one image's dense forward pass.

    A multiply-add is 2. It is what PyTorch's counter counts, which imports its compiler: two seconds in every process.
    """
    about = json.dumps(architecture(network), sort_keys=True)
    if (known := _FLOPS.get((about, str(network), image_size))) is not None:
        return known
    probe, counted = deepcopy(network).cpu().eval(), 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * output.numel() * module.get_parameter("weight")[0].numel()

    for module in probe.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    probe(torch.zeros(1, 3, image_size, image_size))
    _FLOPS[about, str(network), image_size] = counted
    return counted


_FLOPS: dict[tuple[str, str, int], int] = {}  # counted once for each network as it prints itself


# --- the networks ------------------------------------------------------------------------------------------------


def _conv3(classes: int, width: int = 64) -> nn.Module:
    """Three times [conv 3x3, BN, max-pool, ReLU], global average pool, linear: the paper's small network."""
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    channels = [3, width, 2 * width, 4 * width]
    layers: dict[str, nn.Module] = {}
    for i, (into, out) in enumerate(pairwise(channels), 1):
        layers[f"conv{i}"] = nn.Conv2d(into, out, 3, padding=1, bias=False)
        layers[f"norm{i}"] = _NormPoolReLU(out)
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(channels[-1], classes)}
    return nn.Sequential(OrderedDict(layers))


class _NormPoolReLU(nn.BatchNorm2d):
    """Batch normalisation, 2x2 max-pool, ReLU. Training on a CPU pools first: the same, and less memory is touched.

    Where every scale is positive, normalising keeps the order of values: the largest of four normalised values is the
    normalised largest, so three quarters of them need not be normalised at all.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.training and x.device.type == "cpu" and x.dtype == torch.float32
        if not (first and bool((self.weight > 0).all())):
            return nn.functional.relu(nn.functional.max_pool2d(super().forward(x), 2))
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        state = (self.running_mean, self.running_var, self.momentum, self.eps)
        return _PooledNorm.apply(x, self.weight, self.bias, *state)


class _PooledNorm(torch.autograd.Function):
    """max_pool(x), normalised with the mean and variance of all of x (1502.03167, section 3), then ReLU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *state: Any) -> torch.Tensor:
        mean, var = torch.batch_norm_update_stats(x, *state[:3])
        inverse = (var + state[3]).rsqrt()
        top, index = nn.functional.max_pool2d(x, 2, return_indices=True)
        scale = inverse * weight
        out = torch.addcmul(_plane(bias - mean * scale, top), top, _plane(scale, top)).clamp_(min=0)
        ctx.save_for_backward(x, top, index, out, weight, mean, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, top, index, out, weight, mean, inverse = ctx.saved_tensors
        g = torch.ops.aten.threshold_backward(gradient, out, 0.0)
        count = x.numel() // x.shape[1]
        bias_g = g.sum((0, 2, 3))
        weight_g = ((g * top).sum((0, 2, 3)) - mean * bias_g) * inverse
        scale = inverse * weight
        # Through the pooled values, then through the mean and the variance, to which every value contributed.
        back = torch.ops.aten.max_pool2d_with_indices_backward
        x_g = back(g * _plane(scale, g), x, [2, 2], [2, 2], [0, 0], [1, 1], False, index)
        slope = -scale * inverse * weight_g / count
        x_g.addcmul_(x, _plane(slope, x)).add_(_plane(-scale * bias_g / count - slope * mean, x))
        return x_g, weight_g, bias_g, None, None, None, None


def _plane(channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Spread a value a channel over a whole [C, H, W]: applying one long row is faster than many short ones."""
    return channels.expand(*like.shape[2:], -1).contiguous().permute(2, 0, 1)


def _resnet18(classes: int) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and no max-pool: 11,159,232 convolution weights."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=classes)
    network.conv1 = _initialised(nn.Conv2d(3, 64, 3, padding=1, bias=False))
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    return network


def _mobilenetv2(classes: int) -> nn.Module:
    """torchvision's, the stem's and the first stage's stride 1, so that 32 pixels end as 4."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(num_classes=classes)
    for convolution in (network.features[0][0], network.features[2].conv[1][0]):
        convolution.stride = (1, 1)
    return network


def _shufflenetv2(classes: int) -> nn.Module:
    """torchvision's x1.0, the stem's stride 1 and no max-pool."""
    from torchvision.models import shufflenet_v2_x1_0

    network = shufflenet_v2_x1_0(num_classes=classes)
    network.conv1[0].stride = (1, 1)
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    return network


def _densenet121(classes: int) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and no max-pool."""
    from torchvision.models import densenet121

    network = densenet121(num_classes=classes)
    network.features.conv0 = _initialised(nn.Conv2d(3, 64, 3, padding=1, bias=False))
    network.features.pool0 = nn.Identity()
    return network


def _alexnet(classes: int) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and 2x2 cells before the classifier instead of 6x6."""
    from torchvision.models import alexnet

    network = alexnet(num_classes=classes)
    network.features[0] = nn.Conv2d(3, 64, 3, padding=1)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    network.classifier[1] = nn.Linear(256 * 2 * 2, 4096)
    return network


def _lenet5(classes: int) -> nn.Module:
    """LeCun's five layers on RGB, with adaptive pooling to 5x5 before the linear ones."""
    layers = {"conv1": nn.Conv2d(3, 6, 5), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2)}
    layers |= {"conv2": nn.Conv2d(6, 16, 5), "relu2": nn.ReLU(), "pool2": nn.AdaptiveMaxPool2d(5)}
    layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(400, 120), "relu3": nn.ReLU()}
    layers |= {"fc2": nn.Linear(120, 84), "relu4": nn.ReLU(), "head": nn.Linear(84, classes)}
    return nn.Sequential(OrderedDict(layers))


def _fc1(classes: int, image_size: int = 32) -> nn.Module:
    """LeNet-300-100: three linear layers; images are first pooled to image_size x image_size."""
    layers = {"pool": nn.AdaptiveAvgPool2d(image_size), "flatten": nn.Flatten()}
    layers |= {"fc1": nn.Linear(3 * image_size**2, 300), "relu1": nn.ReLU()}
    layers |= {"fc2": nn.Linear(300, 100), "relu2": nn.ReLU(), "head": nn.Linear(100, classes)}
    return nn.Sequential(OrderedDict(layers))


class _ZeroPaddedShortcut(nn.Module):
    """Option A of He et al. (1512.03385): every second pixel, new channels are zero; no parameters."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.pad = new_channels // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class _CifarResNet(nn.Sequential):
    """The CIFAR ResNet of depth 6 n + 2 (1512.03385, section 4.2), of torchvision's basic blocks."""

    def __init__(self, classes: int, depth: int) -> None:
        from torchvision.models.resnet import BasicBlock

        def stage(into: int, out: int) -> nn.Sequential:
            first = BasicBlock(into, out) if into == out else BasicBlock(into, out, 2, _ZeroPaddedShortcut(out - into))
            return nn.Sequential(first, *(BasicBlock(out, out) for _ in range((depth - 2) // 6 - 1)))

        layers = {"conv": nn.Conv2d(3, 16, 3, padding=1, bias=False), "norm": nn.BatchNorm2d(16), "relu": nn.ReLU()}
        layers |= {"stage1": stage(16, 16), "stage2": stage(16, 32), "stage3": stage(32, 64)}
        layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(64, classes)}
        super().__init__(OrderedDict(layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialised(module)


def _initialised(convolution: nn.Conv2d) -> nn.Conv2d:
    """He initialisation by fan-out, as torchvision's residual networks have it."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _cifar_resnet(depth: int) -> Callable[..., nn.Module]:
    return lambda classes: _CifarResNet(classes, depth)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "conv3": _conv3,
    "resnet18": _resnet18,
    "mobilenetv2": _mobilenetv2,
    "shufflenetv2": _shufflenetv2,
    "densenet121": _densenet121,
    "alexnet": _alexnet,
    "lenet5": _lenet5,
    "fc1": _fc1,
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 44, 56)},
}
