"""Figures of differences between arms, paired by seed."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import report
from ..report.words import ACCURACY, unit
from .frame import SHORT, arm_name, canvas, check_rows, line_look, spelled


def comparisons(table: pd.DataFrame, margin: float = 0.01) -> Figure:
    """Draw differences in accuracy as a forest: a row a comparison, within it a bar a sparsity, the 95 % t interval.

    `table` is `report.compare`, or several of one data set and network, one below the other with columns `method` and
    `other` beside. The band is the margin within which two arms count as equivalent. Said are the sparsity asked for
    and what the first arm reached; of one bar a row, what both reached where that is two points or more apart.
    """
    check_rows(table)
    table = table.reset_index(drop=True)
    pairs = [""] * len(table)
    if "other" in table:
        sides = zip(table["method"], table["other"], strict=True)
        pairs = [f"{arm_name(method)} − {arm_name(other)}" for method, other in sides]
    grouped = len(set(pairs)) > 1 and table["at"].nunique() > 1
    metric, _ = report.metric_of(table)
    scale = 100 if metric == "accuracy" else 1
    with canvas(size=(8.4, 1.3 + (0.15 if grouped else 0.26) * len(table))) as (figure, axis):
        axis.axvspan(
            -scale * margin, scale * margin, color="#444444", alpha=0.12, label=f"± {report.points(margin, metric)}"
        )
        axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
        (_grouped if grouped else _plain)(axis, table, pairs, scale)
        axis.set(xlabel=_counted(metric), title=f"Difference in {SHORT.get(metric, metric)}, paired by seed")
        few = "; hollow: too few seeds" if table["half_width"].isna().any() else ""
        figure.legend(fontsize=8, title=f"95 % intervals{few}", title_fontsize=8, loc="outside right upper")
    return figure


TESTED = (
    "bars: 95 % intervals; verdicts after Holm's correction over a study's questions, "
    "equivalence by two one-sided tests"
)
VERDICTS = {"holds": ("#0072B2", "o"), "the opposite": ("#D55E00", "X")}  # others are grey squares


def predictions(found: pd.DataFrame) -> Figure:
    """Draw what was said beforehand and what came out: a row a prediction, `report.predictions` of one study or more.

    The bar is the 95 % interval over seeds; a band is the margin that an equivalence is held against. Each metric has a
    panel, and a scale, of its own.
    """
    check_rows(found)
    metrics = [rows for _, rows in found.groupby("metric", sort=False)]
    tall = [1.0 + 0.36 * len(rows) + 0.3 * rows["study"].nunique() for rows in metrics]
    size, ratios = (9.6, sum(tall) / len(tall)), {"height_ratios": tall}
    with canvas(1, len(metrics), size, squeeze=False, gridspec_kw=ratios) as (figure, axes):
        for axis, rows in zip(axes[:, 0], metrics, strict=True):
            _predicted(axis, rows, str(rows["metric"].iloc[0]))
        tested = found["verdict"].ne("").any()
        axes[0, 0].set_title("Said beforehand, and found" if tested else "Described, tested by nothing")
        figure.supxlabel(TESTED if tested else "bars: 95 % intervals over seeds", fontsize=8, x=0.99, ha="right")
    return figure


def _counted(metric: str) -> str:
    """Say what a difference is counted in."""
    written = SHORT.get(metric, metric)
    return f"difference in test {written}" + ("" if unit(metric) == metric else f", {unit(metric)}")


def _predicted(axis: Axes, found: pd.DataFrame, metric: str) -> None:
    """Draw the predictions about one metric, study after study."""
    lines: list[str] = []
    scale = 100 if metric == ACCURACY else 1
    axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
    for study, rows in found.groupby("study", sort=False):
        about = textwrap.fill(f"{study}: {spelled(rows['about'].iloc[0])}", 96)
        axis.annotate(about, (0.01, len(lines)), xycoords=("axes fraction", "data"), fontsize=8, va="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        lines.append("")
        for row in rows.itertuples():
            colour, marker = VERDICTS.get(row.verdict, ("#777777", "s"))
            if not np.isnan(row.margin):
                ends = [-scale * row.margin, scale * row.margin]
                axis.fill_betweenx([len(lines) - 0.32, len(lines) + 0.32], *ends, color="#444444", alpha=0.12)
            half = None if np.isnan(row.half_width) else scale * row.half_width
            axis.errorbar(scale * row.estimate, len(lines), xerr=half, color=colour, marker=marker, capsize=3)
            axis.annotate(f" {row.verdict}", (1.0, len(lines)), xycoords=("axes fraction", "data"), color=colour,
                          fontsize=9, va="center", annotation_clip=False)  # fmt: skip
            lines.append(textwrap.fill(str(row.prediction), 46))
    axis.set_yticks(range(len(lines)), lines, fontsize=8)
    told = "; band: what counts as equivalent" if found["margin"].notna().any() else ""
    axis.set(ylim=(len(lines) - 0.4, -0.6), xlabel=f"{_counted(metric)}{told}")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)


def _grouped(axis: Axes, table: pd.DataFrame, pairs: list[str], scale: float) -> None:
    """Draw a row a pair, and in it a bar a sparsity, dark where it is sparse."""
    levels, rows = sorted(set(table["at"])), list(dict.fromkeys(pairs))
    shades = dict(zip(levels, sns.color_palette("flare", len(levels)), strict=True))
    for pair, row in zip(pairs, table.itertuples(), strict=True):
        aside = 0.7 * ((levels.index(row.at) + 0.5) / len(levels) - 0.5)
        _bar(axis, row, rows.index(pair) + aside, scale, {"color": shades[row.at], "marker": "o"}, 0)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    for at in levels:
        reached = table.loc[table["at"] == at, "sparsity"].mean()
        label = f"{report.level(at)} ({reached:.0%} reached)"
        axis.plot([], [], color=shades[at], marker="o", markersize=4.5, label=label)


def _plain(axis: Axes, table: pd.DataFrame, pairs: list[str], scale: float) -> None:
    """Draw a row a pair and sparsity, in the other arm's colour."""
    named = []
    for place, (pair, row) in enumerate(zip(pairs, table.itertuples(), strict=True)):
        _bar(axis, row, place, scale, line_look(getattr(row, "other", "")), 3)
        named.append(f"{pair}, {_both(row)}" if pair else _both(row))
    axis.set_yticks(range(len(named)), named, fontsize=8)
    axis.set_ylim(len(named) - 0.5, -0.5)


def _bar(axis: Axes, row: Any, place: float, scale: float, look: dict[str, Any], capsize: float) -> None:
    """Draw one difference with its interval; hollow where there is none."""
    half = None if np.isnan(row.half_width) else scale * row.half_width
    look = look | {"markersize": 4.5, "markerfacecolor": "none" if half is None else look["color"]}
    axis.errorbar(scale * row.difference, place, xerr=half, capsize=capsize, **look)


def _both(row: Any) -> str:
    """Say the sparsity that was asked for, and both that were compared where they lie apart."""
    apart = abs(row.sparsity - row.other_sparsity) >= 0.02 and row.other_sparsity > 0
    return f"{row.sparsity:.0%} and {row.other_sparsity:.0%} sparse" if apart else report.level(row.at)
