"""Figures of pictures that networks give back: rows to be judged by eye, and the sides of an autoencoder apart."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..report.statistics import half_width
from .agreement import three_lines
from .frame import STYLE, canvas, check_rows, whole_numbers


def picture_rows(rows: Mapping[str, torch.Tensor], title: str = "", gap: int = 2) -> Figure:
    """Show rows of pictures under one another, each with its name at its left.

    Parameters
    ----------
    rows
        By name, uint8 or float in [0, 1], [N, C, H, W]: N may differ, sizes may not.
    gap
        White pixels between two pictures.

    Raises
    ------
    ValueError
        Without a row, or for pictures of several sizes.
    """
    sizes = {tuple(row.shape[1:]) for row in rows.values()}
    if len(sizes) != 1:
        raise ValueError(f"rows of pictures of one size are shown, not of {len(sizes)} sizes")
    (_, height, width), most = sizes.pop(), max(map(len, rows.values()))
    sheet = np.ones((len(rows) * (height + gap) - gap, most * (width + gap) - gap, 3), dtype=np.float32)
    for i, row in enumerate(rows.values()):
        pixels = row.detach().float().cpu() / (255 if row.dtype == torch.uint8 else 1)
        for j, picture in enumerate(pixels.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    wide, tall = 0.62 * most * width / height, 0.62 * len(rows)
    margin = 0.3 + 0.068 * max(map(len, rows))  # inches, of a font of 9 points
    size = (margin + wide + 0.1, tall + 0.4)
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        figure = Figure(figsize=size)
        axis = figure.add_axes((margin / size[0], 0.05 / size[1], wide / size[0], tall / size[1]))
        axis.imshow(sheet, interpolation="none", aspect="auto")
        axis.set_yticks([i * (height + gap) + height / 2 for i in range(len(rows))], list(rows), fontsize=9)
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(title, x=-margin / wide + 0.02)
    return figure


def overlap_sides(table: pd.DataFrame, title: str = "Do the copies agree, side by side?") -> Figure:
    """Draw how far copies agree in the encoder and in the decoder, beside both nulls, a panel a side.

    `table` is `report.by_side`, of one run, or of several with a column `seed`: means, and bars from three seeds on.
    """
    check_rows(table)
    sides = list(dict.fromkeys(table["side"]))
    with canvas(len(sides), size=(4.4, 3.2), sharey=True, squeeze=False) as (figure, axes):
        for axis, side in zip(axes.flat, sorted(sides, reverse=True), strict=True):
            groups = table[table["side"] == side].groupby("round")
            means = groups[["jaccard", "chance", "chance_theta0"]].mean()
            half = half_width(groups["jaccard"].std(), groups["jaccard"].count())
            three_lines(axis, means.assign(half_width=half).reset_index())
            axis.set(title=side, xlabel="round")
            whole_numbers(axis)
        axes.flat[0].set_ylabel("Jaccard index of the masks")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
