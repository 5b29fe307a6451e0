"""The networks that have names of their own (`NETWORKS`): the official code's eight, CIFAR ResNets, autoencoders."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .autoencoders import VAE, Autoencoder
from .dcgan import DCGAN
from .pools import AveragePool, MaxPool
from .resnet import cifar_resnet, initialised, resnet18_small


def _conv3(classes: int, width: int = 64, channels: int = 3) -> nn.Module:
    """Three times [conv 3x3, BN, max-pool, ReLU], global average pool, linear: the paper's small network."""
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    widths = [channels, width, 2 * width, 4 * width]
    layers: dict[str, nn.Module] = {}
    for i, (into, out) in enumerate(pairwise(widths), 1):
        layers[f"conv{i}"] = nn.Conv2d(into, out, 3, padding=1, bias=False)
        layers[f"norm{i}"] = _NormPoolReLU(out)
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(widths[-1], classes)}
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


def _mobilenetv2(classes: int, channels: int = 3) -> nn.Module:
    """torchvision's, the stem's and the first stage's stride 1, so that 32 pixels end as 4."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(num_classes=classes)
    for convolution in (network.features[0][0], network.features[2].conv[1][0]):
        convolution.stride = (1, 1)
    _of_channels(network.features[0], "0", channels)
    return network


def _shufflenetv2(classes: int, channels: int = 3) -> nn.Module:
    """torchvision's x1.0, the stem's stride 1 and no max-pool."""
    from torchvision.models import shufflenet_v2_x1_0

    network = shufflenet_v2_x1_0(num_classes=classes)
    network.conv1[0].stride = (1, 1)
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    _of_channels(network.conv1, "0", channels)
    return network


def _densenet121(classes: int, channels: int = 3) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and no max-pool."""
    from torchvision.models import densenet121

    network = densenet121(num_classes=classes)
    network.features.conv0 = initialised(nn.Conv2d(channels, 64, 3, padding=1, bias=False))
    network.features.pool0 = nn.Identity()
    return network


def _alexnet(classes: int, channels: int = 3) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and 2x2 cells before the classifier instead of 6x6."""
    from torchvision.models import alexnet

    network = alexnet(num_classes=classes)
    network.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    network.avgpool = AveragePool(2)
    network.classifier[1] = nn.Linear(256 * 2 * 2, 4096)
    vars(network)["anatomy"] = {"prunable": ["features.*.weight"]}  # as the official code: convolutions alone
    return network


def _lenet5(classes: int, channels: int = 3) -> nn.Module:
    """LeCun's five layers, with adaptive pooling to 5x5 before the linear ones."""
    layers = {"conv1": nn.Conv2d(channels, 6, 5), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2)}
    layers |= {"conv2": nn.Conv2d(6, 16, 5), "relu2": nn.ReLU(), "pool2": MaxPool(5)}
    layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(400, 120), "relu3": nn.ReLU()}
    layers |= {"fc2": nn.Linear(120, 84), "relu4": nn.ReLU(), "head": nn.Linear(84, classes)}
    return nn.Sequential(OrderedDict(layers))


def _fc1(classes: int, image_size: int = 32, channels: int = 3) -> nn.Module:
    """LeNet-300-100: three linear layers; images are first pooled to image_size x image_size."""
    layers = {"pool": AveragePool(image_size), "flatten": nn.Flatten()}
    layers |= {"fc1": nn.Linear(channels * image_size**2, 300), "relu1": nn.ReLU()}
    layers |= {"fc2": nn.Linear(300, 100), "relu2": nn.ReLU(), "head": nn.Linear(100, classes)}
    return nn.Sequential(OrderedDict(layers))


def _of_channels(layers: nn.Module, name: str, channels: int) -> None:
    """Put a stem for images of other than three channels in the place of a network's first convolution."""
    if channels != 3:
        old = layers.get_submodule(name)
        assert isinstance(old, nn.Conv2d)
        how = {"stride": old.stride, "padding": old.padding, "bias": old.bias is not None}
        setattr(layers, name, initialised(nn.Conv2d(channels, old.out_channels, old.kernel_size, **how)))  # type: ignore[arg-type]


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "conv3": _conv3,
    "resnet18": resnet18_small,
    "mobilenetv2": _mobilenetv2,
    "shufflenetv2": _shufflenetv2,
    "densenet121": _densenet121,
    "alexnet": _alexnet,
    "lenet5": _lenet5,
    "fc1": _fc1,
    **{f"resnet{depth}": cifar_resnet(depth) for depth in (14, 20, 32, 44, 56)},
    "autoencoder": Autoencoder,
    "vae": VAE,
    "dcgan": DCGAN,
}
