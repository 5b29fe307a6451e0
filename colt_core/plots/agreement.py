"""Figures of how far the copies' masks agree, over rounds and by layer, beside chance."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .. import report
from ..report.trouble import say_warned
from .frame import arm_name, canvas, check_rows, line_look, spelled, whole_numbers

Z_TICKS = (0, *(sign * step * 10**power for sign in (-1, 1) for power in range(4) for step in (2, 5, 10)))


def overlap_over_cycles(table: pd.DataFrame) -> Figure:
    """Draw the partitions' Jaccard index over cycles beside its three chance levels and the inherited one."""
    check_rows(table)
    with canvas(size=(7.2, 3.8)) as (figure, axis):
        rows = table[table["round"] > 0]
        axis.plot(rows["round"], rows["inherited"], ":^", color="#009E73", label="with pruning theta0 itself")
        axis.plot(rows["round"], rows["jaccard"], label="between the partitions' masks", **line_look("colt"))
        born = {"color": "#0072B2", "markersize": 7, "mfc": "none", "label": "chance among like initial magnitudes"}
        axis.plot(rows["round"], rows["chance_theta0"], ":s", **born)
        axis.plot(rows["round"], rows["chance"], "--", color="#444444", label="chance within each layer")
        axis.plot(
            rows["round"], rows["chance_global"], ":", color="#999999", label="chance over all layers, k / (2 - k)"
        )
        axis.set(xlabel="cycle", ylabel="Jaccard index", title="Do the partitions agree on what to keep?")
        whole_numbers(axis)
        axis.set_ylim(0, 1)
        axis.legend(fontsize=9, loc="lower left", title=_say_warned(table), title_fontsize=8)
    return figure


def _say_warned(table: pd.DataFrame) -> str | None:
    """Say how many rounds of a table carry warnings: where a copy ended at chance no overlap is drawn."""
    return say_warned(int(table["warned"].sum()), len(table)) if "warned" in table else None


def overlap_by_layer(table: pd.DataFrame) -> Figure:
    """Draw, for each layer over the cycles, Cohen's kappa, and z against the hypergeometric null of that layer.

    `table` has columns round, layer, kappa, z.
    """
    check_rows(table)
    layers = list(dict.fromkeys(table["layer"]))
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(layers)))
    with canvas(2) as (figure, (left, right)):
        for shade, marker, layer in zip(shades, "osD^vP*X" * len(layers), layers, strict=False):
            rows = table[table["layer"] == layer]
            left.plot(rows["round"], rows["kappa"], marker=marker, color=shade, label=layer)
            right.plot(rows["round"], rows["z"], marker=marker, color=shade, label=layer)
        for axis in (left, right):
            axis.axhline(0, color="#444444", linestyle="--", linewidth=1)
            axis.set(xlabel="cycle")
            whole_numbers(axis)
        right.axhspan(-1.96, 1.96, color="#444444", alpha=0.12, label="95 % of chance")
        left.set(ylabel="Cohen's kappa (0: chance, 1: equal)", title="Agreement in each layer")
        right.set(ylabel="z of the overlap's size", title="Is it more than chance?")
        right.set_yscale("symlog", linthresh=5)
        low, high = right.get_ylim()
        right.set_yticks(shown := [tick for tick in Z_TICKS if low <= tick <= high], [f"{tick:g}" for tick in shown])
        right.yaxis.set_minor_locator(NullLocator())
        if len(layers) <= 8:
            figure.legend(*right.get_legend_handles_labels(), fontsize=8, title="layer", loc="outside right upper")
    return figure


def overlaps(records: pd.DataFrame) -> Figure:
    """Draw how far the copies' masks agree over the rounds, a panel an arm of a data set and network, three lines each.

    The Jaccard index that was observed, with bars from three seeds on; what masks have by chance that are random within
    each layer; and what they have that are random among weights of like initial magnitude alone: agreement below that
    line is inherited from the common initialisation, not learnt. The numbers are `report.overlaps` of the same records,
    where older ones may lack the last (`report.with_theta0`). Where records carry warnings, the legend says so.

    Raises
    ------
    ValueError
        If there are no records, or in no round several copies.
    """
    table = report.overlaps(records)
    check_rows(table)
    groups = list(table.groupby(["dataset", "network", "method"], sort=False))
    columns = len(groups) if len(groups) <= 3 else 2 if len(groups) == 4 else 3
    rows = -(-len(groups) // columns)
    with canvas(columns, rows, size=(max(2.8, 8.4 / columns), 2.8), squeeze=False, sharey=True) as (figure, axes):
        for axis, ((dataset, network, method), cycles) in zip(axes.flat, groups, strict=False):
            three_lines(axis, cycles)
            named = arm_name(str(method)) if table["method"].nunique() > 1 else ""
            axis.set_title("\n".join(filter(None, [spelled(f"{dataset}, {network}"), named])), fontsize=9)
            axis.set_xlabel("round", fontsize=9)
            whole_numbers(axis)
        for axis in axes.flat[len(groups) :]:
            axis.set_axis_off()
        for axis in axes[:, 0]:
            axis.set_ylabel("Jaccard index of the masks", fontsize=9)
        bars = "bars: 95 % over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        drawn = "\n".join([bars, *report.say_warnings(records)])
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, title=drawn, fontsize=9, title_fontsize=8, loc="outside lower center", ncols=3)
        figure.suptitle("Do the copies agree on more than they were born with?", x=0.01, ha="left", fontsize=11)
    return figure


def three_lines(axis: Axes, cycles: pd.DataFrame) -> None:
    """Draw one arm's agreement beside its two nulls."""
    half = cycles["half_width"].fillna(0)
    axis.plot(cycles["round"], cycles["chance"], "--", color="#444444", label="chance within each layer")
    label = "chance among like initial magnitudes"
    axis.plot(cycles["round"], cycles["chance_theta0"], ":s", color="#0072B2", markersize=7, mfc="none", label=label)
    axis.errorbar(cycles["round"], cycles["jaccard"], half, capsize=3, label="observed", **line_look("colt"))
