"""Figures of structured tickets: what a layer's mask looks like in whole channels and blocks; accuracy and speed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..masks import Mask, blocks
from .frame import COPIES, MARKS, arm_name, canvas, check_rows, looks_of, percent_axis, spelled

SHADES = ListedColormap(["#F2F2F2", "#222222"])


def structure(forms: Mapping[str, Mask], layer: str, rows: int | None = None) -> Figure:
    """Draw one layer's mask in several forms, a panel each: a row is an output channel, a column one of its weights.

    Rows are put in the order of the first form's clusters (see `masks.blocks`), the same in every panel, so that what
    is regrouped lies together.

    Parameters
    ----------
    forms
        Masks by the name they are to have: found, refilled, regrouped.
    layer
        A parameter's name.
    rows
        Rows of a cluster.
    """
    first = next(iter(forms.values()))
    if any(layer not in mask for mask in forms.values()):
        raise ValueError(f"there is no layer {layer!r}; allowed: {', '.join(first)}")
    order = [row for block in blocks({layer: first[layer]}, rows) for row in block.rows]
    order += [row for row in range(len(first[layer])) if row not in set(order)]
    with canvas(len(forms), size=(3.6, 3.2), sharey=True, squeeze=False) as (figure, axes):
        for axis, (name, mask) in zip(axes[0], forms.items(), strict=True):
            flat = mask[layer].flatten(1)[order].cpu().numpy()
            axis.imshow(flat, cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            whole = int(flat.any(1).sum())
            axis.set(title=f"{name}\n{flat.mean():.0%} kept, {whole} of {len(flat)} channels left")
            axis.set_xlabel(f"weights of a channel ({flat.shape[1]})")
            axis.grid(visible=False)
        axes[0][0].set_ylabel(f"output channels of {layer.removesuffix('.weight')},\nalike ones together")
    return figure


_TIMED = (
    "bars: across, quartiles of timings;\nup, 95 % interval over seeds\n"
    "whole channels: as compact networks;\nscattered weights: under their mask"
)


def pareto(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw accuracy against measured speed, a line an arm; on the grey stairs lies what no other arm beats in both.

    Parameters
    ----------
    table
        `pareto`'s, of one machine.
    title
        What was run: study, network, epochs, seeds.

    Raises
    ------
    ValueError
        For several networks or data sets.
    """
    check_rows(table)
    for what in ("network", "scored_on"):
        if what in table and table[what].nunique() > 1:
            raise ValueError(
                f"a figure takes one {what}, not {', '.join(map(str, table[what].unique()))}: choose first"
            )
    looks = looks_of(table["method"])
    with canvas(size=(8.2, 4.8)) as (figure, axis):
        axis.axvline(1, color="#444444", linestyle=":", linewidth=1)
        for arm, mine in table.groupby("method", sort=False):
            mine = mine.sort_values("density", ascending=False)
            apart = np.abs([mine["faster"] - mine["slowest"], mine["fastest"] - mine["faster"]])
            look = looks[str(arm)] | {"markersize": 7}
            half, bars = mine["half_width"].fillna(0), {"fmt": "none", "elinewidth": 0.6, "alpha": 0.45}
            axis.errorbar(mine["faster"], mine["accuracy"], half, apart, ecolor=look["color"], zorder=1, **bars)
            axis.plot(mine["faster"], mine["accuracy"], linewidth=1, label=arm_name(str(arm)), **look)
        axis.plot(*_front(table), color="#BBBBBB", linewidth=5, alpha=0.45, zorder=0, label="Pareto front")
        axis.set(xlabel="times as fast as the dense network (measured)", ylabel="test accuracy")
        axis.set_title("\n".join(part for part in ("Accuracy against measured speed", spelled(title)) if part))
        percent_axis(axis)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, title=_TIMED, title_fontsize=8,
                    alignment="left")  # fmt: skip
    return figure


def _front(table: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the stairs through the rows that no other row beats in both speed and accuracy, the slowest first."""
    x: list[float] = []
    y: list[float] = []
    for row in table.sort_values(["faster", "accuracy"], ascending=False).itertuples():
        if not y or row.accuracy > y[-1]:
            x, y = [*x, *([row.faster] if y else []), row.faster], [*y, *([y[-1]] if y else []), row.accuracy]
    return x[::-1], y[::-1]


def importance(units: pd.DataFrame) -> Figure:
    """Draw what each layer's units are worth, the least first: columns layer, unit, importance (`unit_importance`)."""
    check_rows(units)
    with canvas(size=(7.2, 3.6)) as (figure, axis):
        for place, (layer, mine) in enumerate(units.groupby("layer", sort=False)):
            values = np.sort(mine["importance"].to_numpy())
            share = (np.arange(len(values)) + 0.5) / len(values)
            look = {"color": COPIES[place % len(COPIES)], "marker": MARKS[place % len(MARKS)], "markersize": 4}
            axis.plot(share, values, linewidth=1, label=f"{layer} ({len(values)})", **look)
        axis.axhline(0, color="#444444", linewidth=0.8)
        axis.set(xlabel="share of the layer's units, the least important first", ylabel="importance (mean square 1)")
        axis.set_title("What would the loss lose with each unit?")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, title="layer (units)")
    return figure
