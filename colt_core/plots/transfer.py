"""The figure of tickets carried from one data set to another."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import report
from ..report.words import unit
from .frame import canvas, check_rows, method_of, spelled

WORDS = {"own": "the target's own ticket", "random": "random, same layers", "reinit": "re-drawn weights",
         "dense": "dense"}  # fmt: skip


def transfer(table: pd.DataFrame, gains: pd.DataFrame, title: str = "Tickets carried over") -> Figure:
    """Draw what carried tickets gain on each control: a panel a control, a row a source and target, a dot a sparsity.

    `table` is `report.transfers`, `gains` `report.transfer_gains`. Bars are 95 % intervals of the paired difference
    (from three seeds on), in points, or of another metric as it is; each panel has a scale of its own. Beside a row
    stands what its ticket scores at the highest sparsity; the last row is the mean of all pairs.
    """
    check_rows(table)
    tickets, (metric, _) = table[table["method"].map(method_of) == "colt"], report.metric_of(table)
    if len(arms := tickets[["network", "method"]].drop_duplicates()) != 1:
        told = ", ".join(f"{m} with {n}" for n, m in arms.itertuples(index=False)) or "none"
        raise ValueError(f"the figure shows the tickets of one arm; here are {told}")
    levels = sorted(set(tickets["at"]))
    moved = gains[gains["source"].ne(gains["target"]) | gains["source"].eq("all")]
    pairs = list(moved[["source", "target"]].drop_duplicates().itertuples(index=False, name=None))
    names = _classes(tickets)
    pairs = [("all", "all")] * (("all", "all") in pairs) + sorted(
        (pair for pair in pairs if pair[0] != "all"), key=lambda pair: (names.index(pair[1]), names.index(pair[0]))
    )
    against = [kind for kind in report.AGAINST if kind in set(moved["against"])] or list(report.AGAINST)[:1]
    scale = 100 if metric == "accuracy" else 1
    columns = min(2, len(against))  # four beside each other leave no room for letters
    rows = -(-len(against) // columns)
    size = (4.0, 1.2 + 0.42 * len(pairs))
    with canvas(columns, rows, size=size, squeeze=False, sharey=True) as (figure, axes):
        figure.suptitle(spelled(title), fontsize=11, x=0.01, ha="left")
        for axis in axes.flat[len(against) :]:
            axis.set_axis_off()
        for axis, kind in zip(axes.flat, against, strict=False):
            axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
            _dots(axis, moved[moved["against"] == kind], pairs, levels, scale)
            axis.set_title(f"minus {WORDS[kind]}", fontsize=9)
            axis.set_xlabel(unit(metric), fontsize=9)
            axis.grid(axis="y", visible=False)
        for axis in axes[:, 0]:
            axis.set_yticks(range(len(pairs)), [_said(pair, tickets, metric) for pair in pairs], fontsize=8.5)
        axes[0][0].set_ylim(-0.6, len(pairs) - 0.4)
        handles, labels = axes[0][0].get_legend_handles_labels()
        drawn = "bars: 95 % intervals" if moved["half_width"].notna().any() else "hollow: too few seeds for bars"
        drawn += f"; beside a row: what its ticket scores there, {report.level(levels[-1])}"
        figure.legend(handles, labels, fontsize=8, title=drawn, title_fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _dots(axis: Axes, found: pd.DataFrame, pairs: list[tuple[str, str]], levels: list[float], scale: float) -> None:
    """Draw the differences to one control."""
    shades = sns.color_palette("flare", len(levels))
    for number, (at, shade) in enumerate(zip(levels, shades, strict=True)):
        aside = 0.3 * ((number + 0.5) / len(levels) - 0.5) * 2
        label: str | None = f"COLT, {report.level(at)}"
        for row in found[found["at"] == at].itertuples():
            if (row.source, row.target) in pairs:
                half = None if np.isnan(row.half_width) else scale * row.half_width
                place = pairs.index((row.source, row.target)) - aside
                look = {"color": shade, "marker": "o", "markersize": 5, "linestyle": "", "capsize": 2}
                look |= {"markerfacecolor": "none"} if half is None else {}
                axis.errorbar(scale * row.difference, place, xerr=half, label=label, **look)
                label = None


def _classes(tickets: pd.DataFrame) -> list[str]:
    """Return the data sets from few classes to many, as their guessing tells."""
    classes = dict(zip(tickets["target"], 1 / tickets["chance"].astype(float).fillna(1), strict=True))
    return sorted(dict.fromkeys([*tickets["target"], *tickets["source"]]), key=lambda name: classes.get(name, 0))


def _said(pair: tuple[str, str], tickets: pd.DataFrame, metric: str) -> str:
    """Name a row: from where to where, and what the ticket scores there when it is sparsest."""
    if pair[0] == "all":
        return "mean of all pairs"
    rows = tickets[(tickets["source"] == pair[0]) & (tickets["target"] == pair[1])]
    score = rows.sort_values("at")[metric].iloc[-1] if len(rows) else float("nan")
    shown = f"{100 * score:.0f} %" if metric == "accuracy" else f"{score:.3g}"
    images = f"{rows['source_images'].iloc[0]:,.0f} images" if "source_images" in rows and len(rows) else ""
    return f"{spelled(pair[0])} ({images}) →\n{spelled(pair[1])}: {shown}"
