"""Bring a tensor to other channels: what the residual stream of a compact network needs."""

import torch
from torch import nn

BY_ONES = 256  # channels read; beyond them the multiplications by zero take longer than indices


class Gather(nn.Module):
    """Brings a tensor [N, C, ...], or flattened [N, C * ...], to other channels; those that it has not are zero.

    On a CPU a convolution by ones and zeros does it in a fraction of the time that indices take, the same to the last
    bit, and what follows finds its channels where it likes them, innermost. It is no arithmetic: FLOPs leave it out.

    Parameters
    ----------
    places
        For each channel of the result the one that it is, -1 for zeros; where any are, all that are read, in order.
    width
        The channels that are read.
    """

    def __init__(self, places: torch.Tensor, width: int) -> None:
        super().__init__()
        self.width, self.channels, self.by_ones = width, len(places), width <= BY_ONES
        kept = (places >= 0).nonzero().flatten()
        self.spread = len(kept) < len(places)
        self.register_buffer("index", kept if self.spread else places, persistent=False)
        ones = torch.zeros(len(places), width, 1, 1) if self.by_ones else torch.empty(0)
        if self.by_ones:
            ones[kept, places[kept]] = 1
        self.register_buffer("ones", ones, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.width} -> {self.channels}"

    def of_channels(self, values: torch.Tensor) -> torch.Tensor:
        """Return what is said of each channel, [channels], of those that it gives; of zeros 0 or False."""
        assert isinstance(self.index, torch.Tensor)
        index = self.index.cpu()
        if not self.spread:
            return values[index]
        return values.new_zeros(self.channels).index_copy(0, index, values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take channels, or put them among zeros."""
        assert isinstance(self.index, torch.Tensor) and isinstance(self.ones, torch.Tensor)
        if x.dim() == 2 and x.shape[1] != self.width:  # flattened images: several places a channel
            moved: torch.Tensor = self(x.unflatten(1, (self.width, -1)))
            return moved.flatten(1)
        # Elsewhere indices are fast, and convolutions may round: to TF32 on a GPU, to bfloat16 under autocast.
        if self.by_ones and x.dim() == 4 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return nn.functional.conv2d(x, self.ones.to(x.dtype))
        if not self.spread:
            return x.index_select(1, self.index)
        shape = (x.shape[0], self.channels, *x.shape[2:])
        return x.new_zeros(shape).index_copy(1, self.index, x)
