"""The figure of tickets carried from one data set to another."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import report
from .frame import (
    canvas,
    check_rows,
    method_of,
)

WORDS = {"own": "the target's own", "random": "random, same layers", "reinit": "re-drawn weights", "dense": "dense"}


def transfer(table: pd.DataFrame, gains: pd.DataFrame, title: str = "Tickets carried over") -> Figure:
    """Draw source by target as heatmaps, a row of them a sparsity: accuracy, then what a ticket gains on each control.

    `table` is `report.transfers`, `gains` `report.transfer_gains`. Every column of panels shares its colours; what is
    written in a cell is mean and half-width of the 95 % interval (from three seeds on), in percent or points; of
    another metric than accuracy as it is.
    """
    check_rows(table)
    tickets, (metric, _) = table[table["method"].map(method_of) == "colt"], report.metric_of(table)
    if len(arms := tickets[["network", "method"]].drop_duplicates()) != 1:
        told = ", ".join(f"{m} with {n}" for n, m in arms.itertuples(index=False)) or "none"
        raise ValueError(f"the figure shows the tickets of one arm; here are {told}")
    named = _data_sets(tickets)
    names, levels = list(named), sorted(set(tickets["at"]))
    against = [kind for kind in report.AGAINST if kind in set(gains["against"])]
    bound, top, points = float(gains["difference"].abs().max()), float(tickets[metric].max()), "difference"
    if metric == "accuracy":
        bound, top, points = max(0.01, bound), 1.0, "points"
    size = (0.6 + 0.72 * len(names), 0.75 + 0.5 * len(names) + 1.6 / len(levels))  # names below the last row alone
    with canvas(1 + len(against), len(levels), size, squeeze=False, sharey=True) as (figure, axes):
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        for row, at in zip(axes, levels, strict=True):
            _cells(row[0], names, tickets[tickets["at"] == at], metric, cmap="Greys", vmin=0, vmax=top)
            unit = "accuracy in %" if metric == "accuracy" else metric
            row[0].set_title(f"{unit},\n{report.level(at)}", fontsize=9)
            row[0].set_ylabel("source")
            for axis, kind in zip(row[1:], against, strict=True):
                found = gains[(gains["at"] == at) & (gains["against"] == kind) & (gains["source"] != "all")]
                _cells(axis, names, found, "difference", cmap="vlag", vmin=-bound, vmax=bound)
                axis.set_title(f"{points} against\n{WORDS[kind]}", fontsize=9)
            row[0].set_yticks(row[0].get_yticks(), list(named.values()))
            for axis in row[1:]:
                axis.tick_params(axis="y", length=0)
            for axis in row if at < levels[-1] else []:
                axis.tick_params(axis="x", labelbottom=False)
        for axis in axes[-1]:
            axis.set_xticks(axis.get_xticks(), list(named.values()))
            axis.set_xlabel("target")
    return figure


def _data_sets(tickets: pd.DataFrame) -> dict[str, str]:
    """Return the data sets from few classes to many (as their guessing tells), each with the text beside its cells."""
    classes = dict(zip(tickets["target"], 1 / tickets["chance"].astype(float).fillna(1), strict=True))
    names = sorted(dict.fromkeys([*tickets["target"], *tickets["source"]]), key=lambda name: classes.get(name, 0))
    images = dict(zip(tickets["target"], tickets["train_images"], strict=True))
    images |= dict(zip(tickets["source"], tickets["source_images"], strict=True))
    return {name: f"{name}\n{images[name]:,.0f} images" for name in names}


def _cells(axis: Axes, names: list[str], rows: pd.DataFrame, column: str, **colours: Any) -> None:
    """Draw one heatmap of source by target; cells without a value stay empty."""
    mean = rows.pivot_table(index="source", columns="target", values=column).reindex(index=names, columns=names)
    metric, _ = report.metric_of(rows)
    write = report.spread if column == "difference" else report.written
    text = {(r.source, r.target): write(getattr(r, column), r.half_width, metric) for r in rows.itertuples()}
    written = [[text.get((source, target), "").replace(" ± ", "\n± ") for target in names] for source in names]
    sns.heatmap(
        mean.astype(float), ax=axis, annot=np.array(written), fmt="", cbar=False, square=False,
        linewidths=1, annot_kws={"fontsize": 8}, **colours,
    )  # fmt: skip
    axis.set(xlabel="", ylabel="")
    axis.grid(False)
    axis.tick_params(axis="x", labelsize=8, labelrotation=25)
    axis.tick_params(axis="y", labelsize=8, labelrotation=0)
