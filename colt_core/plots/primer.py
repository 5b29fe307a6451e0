"""What a lottery ticket is, in pictures: a network trained and cut, and what is left back at its start."""

import torch
from matplotlib.figure import Figure

from ..masks import Mask, Weights, density
from .cycles import draw_cut
from .frame import canvas


def trained(weights: Weights, mask: Mask) -> Figure:
    """Draw the first picture: how large a trained network's weights are, and which of them pruning takes.

    `weights` are the trained ones by parameter name, `mask` what magnitude pruning keeps of them; a `ValueError` where
    it keeps all, for then there is no cut to draw.
    """
    values = torch.cat([weights[name].detach().cpu().abs().flatten() for name in mask])
    kept = torch.cat([mask[name].cpu().flatten() for name in mask])
    if kept.all():
        raise ValueError(
            "the mask keeps every weight: there is no cut to draw; give one that magnitude pruning has made"
        )
    cut, share = float(values[~kept].max()), float((~kept).float().mean())
    with canvas(size=(7.4, 3.2)) as (figure, axis):
        told = f"kept: {int(kept.sum()):,}", f"pruned: {int((~kept).sum()):,}"
        draw_cut(axis, values, cut, f"1. Train, and cut the smallest {share:.0%}", *told)
        axis.set_ylabel("weights")
    return figure


def rewound(theta0: Weights, weights: Weights, mask: Mask, layer: str, limit: tuple[int, int] = (16, 54)) -> Figure:
    """Draw the second picture: one layer as trained, cut, and with what is left back at its first values: the ticket.

    A filter a row, input channel times position a column; blue is negative, red positive, white gone.

    Parameters
    ----------
    theta0, weights
        The values before and after training, by parameter name.
    mask
        What is kept.
    layer
        The parameter's name.
    limit
        At most how many filters and columns are shown.
    """
    rows, columns = limit
    start, end, kept = (one[layer].detach().cpu().flatten(1)[:rows, :columns] for one in (theta0, weights, mask))
    shown = {
        "as trained": end,
        "the smallest cut": end.where(kept, torch.nan),
        "the rest back at its start: the ticket": start.where(kept, torch.nan),
    }
    reach = float(torch.cat([start, end]).abs().quantile(0.98))
    with canvas(1, 3, size=(7.4, 1.5), sharex=True) as (figure, axes):
        for axis, (what, values) in zip(axes, shown.items(), strict=True):
            axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="none")
            axis.set(ylabel="filter", title=what)
            axis.grid(False)
        every = mask[layer].flatten(1).shape
        part = [f"{n} of {of}" if n < of else f"all {of}" for n, of in zip(kept.shape, every, strict=True)]
        axes[-1].set_xlabel(
            f"input channel x position (shown: {part[0]} filters, {part[1]} columns)\n"
            "blue: below zero, red: above, the stronger the larger; white: cut"
        )
        name, share = layer.removesuffix(".weight"), density({layer: mask[layer]})
        figure.suptitle(f"2. Rewind ({name}: {share:.0%} of this layer kept)", x=0.01, ha="left", fontsize=11)
    return figure
