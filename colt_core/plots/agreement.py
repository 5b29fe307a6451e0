"""Figures of how far the copies' masks agree, over rounds and by layer, beside chance."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import report
from ..report.trouble import say_warned
from .frame import (
    COPIES,
    MARKS,
    arm_name,
    canvas,
    check_rows,
    line_look,
    looks_of,
    whole_numbers,
)


def overlap_over_cycles(table: pd.DataFrame) -> Figure:
    """Draw the partitions' Jaccard index over cycles beside its two chance levels and the inherited one."""
    check_rows(table)
    with canvas(size=(7.2, 3.8)) as (figure, axis):
        rows = table[table["round"] > 0]
        axis.plot(rows["round"], rows["inherited"], ":^", color="#009E73", label="with pruning theta0 itself")
        axis.plot(rows["round"], rows["jaccard"], label="between the partitions' masks", **line_look("colt"))
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
        if len(layers) <= 8:
            right.legend(fontsize=8, title="layer")
    return figure


def overlaps(records: pd.DataFrame) -> Figure:
    """Draw, for each arm over the rounds, how far the partitions' Jaccard index lies above chance within each layer.

    The numbers are `report.overlaps` of the same records; bars from three seeds on. Several data sets or networks have
    a colour each, and the line says which. Where records carry warnings, the legend says of how many.

    Raises
    ------
    ValueError
        If there are no records, or in no round several copies.
    """
    table = report.overlaps(records)
    check_rows(table)
    looks, setting = looks_of(table["method"]), ["dataset", "network", "method"]
    several = len(table[setting[:2]].drop_duplicates()) > 1
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        axis.axhline(0, color="#444444", linestyle="--", linewidth=1, label="chance within each layer")
        for place, ((dataset, network, method), rows) in enumerate(table.groupby(setting, sort=False)):
            name, half = arm_name(str(method)), rows["half_width"].fillna(0)
            look = looks[str(method)]
            if several:
                name = f"{name}: {network}, {dataset}" if len(looks) > 1 else f"{dataset}, {network}"
                look = {"color": COPIES[place % len(COPIES)], "marker": MARKS[place % len(MARKS)], "markersize": 5}
            axis.errorbar(rows["round"], rows["gap"], half, capsize=3, label=name, **look)
        axis.set(xlabel="round", ylabel="Jaccard index minus chance", title="Do the partitions agree beyond chance?")
        whole_numbers(axis)
        drawn = "bars: 95 % interval over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        drawn = "\n".join([drawn, *report.say_warnings(records)])
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure
