"""Figures of how alike tickets are, and where in the network they keep their weights."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial import distance

from .frame import (
    STYLE,
    canvas,
    percent_axis,
)


def similarity(matrix: pd.DataFrame, measure: str = "Jaccard index", centre: bool = False) -> Figure:
    """Draw how alike tickets are, [N, N], clustered by average linkage of 1 - similarity, as a heatmap with its tree.

    Parameters
    ----------
    matrix
        Symmetric; the labels are its index. `order_of` gives the order that is drawn.
    measure
        What the numbers are.
    centre
        Whether 0 is the middle of the colours: for what lies above or below chance. They then reach as far as the
        values of different tickets do, and a ticket with itself is left blank.
    """
    count = len(matrix)
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    if centre:
        same = np.eye(count, dtype=bool)
        far = max(0.05, float(np.abs(matrix.to_numpy(dtype=float)[~same]).max(initial=0)))
        colours = {"cmap": "vlag", "vmin": -far, "vmax": far, "mask": same}
    tree = _tree(matrix)
    written = matrix.to_numpy(dtype=float).round(2) + 0.0 if count <= 12 else False  # + 0.0: no "-0.00"
    side = min(9.5, 3.4 + 0.3 * count)
    beside = 0.4 + 0.07 * max(len(str(name)) for name in matrix.index)  # inches for the tickets' names
    with plt.style.context(["default", STYLE | {"figure.constrained_layout.use": False}]):
        grid = sns.clustermap(
            matrix, row_linkage=tree, col_linkage=tree, figsize=(side + beside, side), annot=written, fmt=".2f",
            annot_kws={"fontsize": 8}, cbar_kws={"orientation": "horizontal"}, dendrogram_ratio=0.12,
            xticklabels=False, yticklabels=True, **colours,
        )  # fmt: skip
        grid.ax_heatmap.tick_params(axis="y", labelsize=9, labelrotation=0)
        grid.ax_heatmap.set(xlabel="", ylabel="")
        grid.ax_heatmap.grid(False)
        grid.ax_cbar.tick_params(labelsize=8)
        grid.figure.subplots_adjust(top=0.9, right=side / (side + beside))
        grid.ax_cbar.set_position((0.72, 0.955, 0.24, 0.02))
        grid.figure.text(0.02, 0.98, f"How alike are the tickets? {measure}", fontsize=11, va="top")
        grid.figure.set_dpi(100)
        plt.close(grid.figure)
    return grid.figure


def order_of(matrix: pd.DataFrame) -> list[int]:
    """Return the order in which `similarity` draws the tickets."""
    return [int(i) for i in hierarchy.leaves_list(_tree(matrix))]


def _tree(matrix: pd.DataFrame) -> np.ndarray:
    """Return SciPy's average linkage of 1 - similarity."""
    apart = 1 - matrix.to_numpy(dtype=float)
    np.fill_diagonal(apart, 0)
    return hierarchy.linkage(distance.squareform(np.clip(apart, 0, None), checks=False), "average")


def layer_densities(table: pd.DataFrame) -> Figure:
    """Draw the density of each layer of some tickets; `table` has a column layer, and one a ticket."""
    names = [name for name in table if name != "layer"]
    with canvas(size=(8.6, 4.0), dpi=100) as (figure, axis):
        for i, name in enumerate(names):
            look = {"color": plt.get_cmap("viridis")(0.9 * i / max(1, len(names) - 1)), "marker": "osD^vP*X<>"[i % 10]}
            axis.plot(range(len(table)), table[name], label=name, markersize=5, linewidth=1, **look)
        step = max(1, len(table) // 24)
        axis.set_xticks(range(0, len(table), step), table["layer"][::step], rotation=60, ha="right", fontsize=8)
        axis.set(ylabel="kept, of the layer's weights", title="Where in the network are the weights that were kept?")
        axis.set_ylim(0)
        percent_axis(axis)
        if len(names) <= 16:
            figure.legend(fontsize=8, loc="outside right upper")
    return figure
