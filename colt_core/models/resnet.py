"""Residual networks: ResNet-18 for small images, and the CIFAR ResNets of depth 6 n + 2."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn


def resnet18_small(classes: int, channels: int = 3) -> nn.Module:
    """torchvision's, with a 3x3 stem of stride 1 and no max-pool: 11,159,232 convolution weights."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=classes)
    network.conv1 = initialised(nn.Conv2d(channels, 64, 3, padding=1, bias=False))
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    return network


def cifar_resnet(depth: int) -> Callable[..., nn.Module]:
    """Return what makes a CIFAR ResNet of a depth, 6 n + 2 layers, from a number of classes (arXiv 1512.03385, 4.2)."""
    return lambda classes, channels=3: _CifarResNet(classes, depth, channels)


class _CifarResNet(nn.Sequential):
    """The CIFAR ResNet of depth 6 n + 2 (1512.03385, section 4.2), of torchvision's basic blocks."""

    stages = ("stage1", "stage2", "stage3")  # sequences of blocks that may be repeated: `elastic`

    def __init__(self, classes: int, depth: int, channels: int) -> None:
        from torchvision.models.resnet import BasicBlock

        def stage(into: int, out: int) -> nn.Sequential:
            first = BasicBlock(into, out) if into == out else BasicBlock(into, out, 2, _ZeroPaddedShortcut(out - into))
            return nn.Sequential(first, *(BasicBlock(out, out) for _ in range((depth - 2) // 6 - 1)))

        layers = {
            "conv": nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            "norm": nn.BatchNorm2d(16),
            "relu": nn.ReLU(),
        }
        layers |= {"stage1": stage(16, 16), "stage2": stage(16, 32), "stage3": stage(32, 64)}
        layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(64, classes)}
        super().__init__(OrderedDict(layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialised(module)


class _ZeroPaddedShortcut(nn.Module):
    """Option A of He et al. (1512.03385): every second pixel, new channels are zero; no parameters."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.pad = new_channels // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


def initialised(convolution: nn.Conv2d) -> nn.Conv2d:
    """He initialisation by fan-out, as torchvision's residual networks have it."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
