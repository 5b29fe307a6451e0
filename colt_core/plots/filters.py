"""Figures of single weights: which mask kept which weight of a layer, and the history of one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import MaxNLocator

from ..masks import Mask, layer_statistics
from .frame import (
    KEPT,
    STYLE,
)


def filters(
    a: Mask,
    b: Mask,
    layer: str,
    within: Mask | None = None,
    first: tuple[int, int] = (0, 0),
    limit: tuple[int, int] = (64, 64),
    names: tuple[str, str] = ("A", "B"),
) -> Figure:
    """Picture a layer's weights, a filter a row and (input channel, position) a column, by which mask kept them.

    Beside it the channels' own counts, over the whole layer: what each filter (right) and each input channel (above)
    keeps. Below, the whole layer's counts, and what chance would give (the hypergeometric null within the layer).

    Parameters
    ----------
    a, b
        Two masks of one network.
    layer
        The parameter's name.
    within
        The mask that both were pruned from; without it, all weights.
    first, limit
        The first filter and input channel to be shown, and at most how many of each.
    names
        What the two masks are.
    """
    one, two = (kept.flatten(2) if kept.ndim > 2 else kept[:, :, None] for kept in (a[layer].cpu(), b[layer].cpu()))
    code = 3 - 2 * one.to(torch.uint8) - two.to(torch.uint8)  # 0 both, 1 the first only, 2 the second only, 3 neither
    rows, columns = (
        range(start, min(size, start + most)) for start, size, most in zip(first, code.shape, limit, strict=False)
    )
    shown = code[rows.start : rows.stop, columns.start : columns.stop].flatten(1).numpy()
    by_filter, by_input = _channel_counts(code)
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        figure = Figure(figsize=(8.6, 1.8 + 0.05 * max(24, len(rows))), dpi=100)
        high = figure.get_figheight()
        low, tall = 0.75 / high, 1 - 1.55 / high
        axis = figure.add_axes((0.075, low, 0.8, tall))
        left = columns.start * code.shape[2] - 0.5
        box = (left, left + shown.shape[1], rows.stop - 0.5, rows.start - 0.5)
        colours = ListedColormap(list(KEPT.values()))
        axis.imshow(shown, cmap=colours, vmin=0, vmax=3, aspect="auto", interpolation="none", extent=box)
        axis.set(xlabel="input channel x position", ylabel="filter")
        axis.set_title(f"{layer.removesuffix('.weight')}: which weights were kept", y=1 + 0.5 / (tall * high))
        axis.grid(False)
        for one_axis in (axis.xaxis, axis.yaxis):
            one_axis.set_major_locator(MaxNLocator(6, integer=True))
        _bars(figure.add_axes((0.882, low, 0.1, tall)), by_filter, rows, "horizontal")
        _bars(figure.add_axes((0.075, low + tall + 0.06 / high, 0.8, 0.36 / high)), by_input, columns, "vertical")
        figure.text(0.885, low + tall + 0.24 / high, "kept: ← input\nchannel, ↓ filter", fontsize=7.5, va="center")
        (row,) = layer_statistics({layer: a[layer]}, {layer: b[layer]}, {layer: within[layer]} if within else None)
        handles = [
            Patch(fc=colour, ec="#888888", label=label)
            for colour, label in zip(KEPT.values(), venn_words(row, names), strict=True)
        ]
        spacing = {"columnspacing": 1.2, "handlelength": 1.4, "bbox_to_anchor": (0.06, 0.0)}
        figure.legend(handles=handles, loc="lower left", ncols=4, fontsize=9, **spacing)
        figure.text(0.98, 1 - 0.22 / high, beside_chance(row), fontsize=9, va="center", ha="right")
    return figure


def _channel_counts(code: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return how many weights of each filter, [3, filters], and input channel, [3, inputs], have the codes 0, 1, 2."""
    counts = [(code == i).sum(2) for i in range(3)]  # filter by input channel
    return torch.stack([c.sum(1) for c in counts]).numpy(), torch.stack([c.sum(0) for c in counts]).numpy()


def _bars(axis: Axes, counts: np.ndarray, shown: range, orientation: Literal["horizontal", "vertical"]) -> None:
    """Stack the counts of the channels shown, in the colours of the picture that lies beside."""
    base: Any = np.zeros(len(shown))
    edges = np.arange(shown.start, shown.stop + 1) - 0.5
    for row, colour in zip(counts[:, shown.start : shown.stop], KEPT.values(), strict=False):
        bars = StepPatch(base + row, edges, baseline=base, orientation=orientation, fc=colour, ec="none")
        axis.add_artist(bars)  # not as a patch: looking for its limits would take longer than all else
        base = base + row
    top = 1.05 * max(1, base.max())
    if orientation == "horizontal":
        axis.set(xlim=(0, top), ylim=(edges[-1], edges[0]), yticks=[])
        axis.xaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))  # a 0 would lie on the picture's own
    else:
        axis.set(xlim=(edges[0], edges[-1]), ylim=(0, top), xticks=[])
        axis.yaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))
    axis.tick_params(labelsize=8)
    axis.grid(False)


def against_chance(a: Mask, b: Mask, layer: str, within: Mask | None = None) -> str:
    """Say what two masks keep in common in a layer beside what chance would give."""
    (row,) = layer_statistics({layer: a[layer]}, {layer: b[layer]}, {layer: within[layer]} if within else None)
    return beside_chance(row)


def beside_chance(row: Mapping[str, Any]) -> str:
    """Say it of a row of `masks.layer_statistics`."""
    if not row["alive"]:
        return "no weight of this layer was left to prune"
    spread = "" if math.isnan(row["z"]) else f" (z = {row['z']:+.1f})"
    return f"in common {row['both']:,}; by chance {row['expected']:,.0f}{spread}"


def venn_words(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Say how many of a layer's weights both masks keep, only the first, only the second, neither."""
    only_a, only_b = row["a"] - row["both"], row["b"] - row["both"]
    sizes = [row["both"], only_a, only_b, row["weights"] - row["both"] - only_a - only_b]
    told = ("kept by both", f"{names[0]} only", f"{names[1]} only", "pruned")
    return [f"{name}: {n:,} ({n / row['weights']:.0%})" for name, n in zip(told, sizes, strict=True)]


def weight_history(table: pd.DataFrame, title: str) -> Figure:
    """Draw, round by round, which masks kept one weight; `table` has a column `round`, and one of booleans a mask.

    A missing value (None): that mask did not exist in that round.
    """
    masks_ = [name for name in table if name != "round"]
    kept = table[masks_].astype(float).to_numpy().T  # NaN where there is no such mask
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        figure = Figure(figsize=(5.6, 0.95 + 0.26 * len(masks_)), dpi=100)
        high = figure.get_figheight()
        axis = figure.add_axes((0.3, 0.5 / high, 0.68, 1 - 0.85 / high))
        axis.pcolormesh(
            kept,
            cmap=ListedColormap([KEPT["pruned"], KEPT["kept by both"]]),
            vmin=0,
            vmax=1,
            edgecolors="#BBBBBB",
            linewidth=0.5,
        )
        axis.set_yticks(np.arange(len(masks_)) + 0.5, masks_, fontsize=9)
        shown = np.arange(0, len(table), max(1, len(table) // 12))
        axis.set_xticks(shown + 0.5, table["round"].iloc[shown])
        axis.invert_yaxis()
        axis.set(xlabel="round (dark: kept)")
        axis.grid(False)
        axis.set_title(title, fontsize=10, x=-0.4)
    return figure
