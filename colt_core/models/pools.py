"""Adaptive pooling that every device can do, and does alike each time: `AveragePool`, `MaxPool`."""

from collections.abc import Callable

import torch
from torch import nn

Take = Callable[[torch.Tensor, int], torch.Tensor]


def _by_windows(x: torch.Tensor, size: int, take: Take) -> torch.Tensor:
    """Pool to `size` x `size` window by window, first down, then across: of means and maxima the same as at once."""
    for dim in (-2, -1):
        length = x.shape[dim]
        edges = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        x = torch.stack([take(x.narrow(dim, start, end - start), dim) for start, end in edges], dim)
    return x


def _whole(x: torch.Tensor, size: int) -> bool:
    """Whether PyTorch's own pooling serves: on a CPU, or where no two windows share a pixel.

    Where they do, CUDA adds up their gradients in any order, and MPS refuses the mean and has been seen to give wrong
    maxima (PyTorch's issues 131972, 96056 and 190064).
    """
    return x.device.type == "cpu" or not any(side % size for side in x.shape[-2:])


class AveragePool(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` to a square."""

    output_size: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool [N, C, H, W] to [N, C, size, size]."""
        return super().forward(x) if _whole(x, self.output_size) else _by_windows(x, self.output_size, torch.mean)


class MaxPool(nn.AdaptiveMaxPool2d):
    """`torch.nn.AdaptiveMaxPool2d` to a square."""

    output_size: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool [N, C, H, W] to [N, C, size, size]."""
        return super().forward(x) if _whole(x, self.output_size) else _by_windows(x, self.output_size, torch.amax)
