"""Figures of how networks are retrained and transformed: what a teacher tells, what a pull does to weights."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .frame import COPIES, canvas, check_rows


def soft_targets(table: pd.DataFrame) -> Figure:
    """Draw soft targets as a heat map a way of making them: a row an image, a column a class.

    `table` has columns soft (the way), image, label (its class), class, probability.
    """
    check_rows(table)
    ways, most = list(dict.fromkeys(table["soft"])), table["probability"].max()
    classes = list(dict.fromkeys(table["class"]))
    with canvas(len(ways), size=(3.6, 4.2), sharey=True, squeeze=False) as (figure, axes):
        for axis, way in zip(axes[0], ways, strict=True):
            rows = table[table["soft"] == way]
            grid = rows.pivot_table(index="image", columns="class", values="probability")[classes]
            shown = axis.imshow(grid, vmin=0, vmax=most, cmap="viridis", aspect="auto", interpolation="nearest")
            axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
            axis.set(title=way, xlabel="class")
            axis.grid(visible=False)
        labels = table[table["soft"] == ways[0]].groupby("image")["label"].first()
        axes[0][0].set_yticks(range(len(labels)), labels, fontsize=8)
        axes[0][0].set_ylabel("an image of")
        bar = figure.colorbar(shown, ax=axes[0], shrink=0.8, format=PercentFormatter(1))
        bar.set_label("probability that is taught", fontsize=8)
    return figure


def sizes(table: pd.DataFrame) -> Figure:
    """Draw the middle half and the middle 90 % of |w| over optimiser steps, a band a group of weights.

    `table` is `sizes_table`; sizes are logarithmic: what is pulled to zero goes down by powers of ten.
    """
    check_rows(table)
    with canvas(size=(7.2, 3.8)) as (figure, axis):
        for (group, rows), colour in zip(table.groupby("group", sort=False), COPIES, strict=False):
            for low, high, strength in (("5%", "95%", 0.15), ("25%", "75%", 0.3)):
                axis.fill_between(rows["step"], rows[low], rows[high], color=colour, alpha=strength, linewidth=0)
            axis.plot(rows["step"], rows["50%"], color=colour, marker="o", markersize=4, label=str(group))
        axis.set(yscale="log", xlabel="optimiser step", ylabel="|w|", title="What a transformation does to the weights")
        axis.legend(title="median; middle half; middle 90 %", title_fontsize=8, fontsize=9)
    return figure


def sizes_table(weights: Mapping[int, Mapping[str, torch.Tensor]]) -> pd.DataFrame:
    """Return quantiles of |w|, a row an optimiser step and group of weights: step, group, 5%, 25%, 50%, 75%, 95%."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = []
    for step, groups in weights.items():
        for group, values in groups.items():
            found = np.quantile(values.detach().abs().cpu().numpy(), shares)
            rows.append({"step": step, "group": group} | {f"{s:.0%}": v for s, v in zip(shares, found, strict=True)})
    return pd.DataFrame(rows)
