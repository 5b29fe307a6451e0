"""Figures of notebooks 04 to 06: accuracy, transfer, cost, differences."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import report
from .frame import COLOURS, arm_name, canvas, guessing, line_look, looks_of, method_of, percent_axis, whole_numbers


def accuracy_sparsity(table: pd.DataFrame, title: str = "Accuracy of tickets, trained on everything") -> Figure:
    """Draw test accuracy against density reached (logarithmic), a line a method; intervals from three seeds on.

    `table` is `report.accuracy_table`.
    """
    looks = looks_of(table["method"])
    with canvas(size=(8.4, 4.8)) as (figure, axis):
        for method, rows in table.groupby("method", sort=False):
            name = str(method)
            half = rows["half_width"].fillna(0)
            if method_of(name) == "dense":
                level, spread = float(rows["accuracy"].iloc[0]), float(half.iloc[0])
                axis.axhline(level, color=COLOURS["dense"], linestyle="--", label=name)
                axis.axhspan(level - spread, level + spread, color=COLOURS["dense"], alpha=0.08)
            else:
                axis.errorbar(
                    1 - rows["sparsity"], rows["accuracy"], half, capsize=3, label=arm_name(name), **looks[name]
                )
        axis.set(xscale="log", xlabel="density (kept / prunable weights)", ylabel="test accuracy", title=title)
        axis.invert_xaxis()
        ticks = sorted({round(d, 3) for d in 1 - table[table["at"] > 0]["at"]})
        axis.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
        axis.minorticks_off()
        percent_axis(axis)
        guessing(axis, float(table["chance"].iloc[0]))
        axis.set_ylim(0.7 * float(table["chance"].iloc[0]))
        enough = table["half_width"].notna().any()
        drawn = "bars: 95 % interval over seeds" if enough else "points: too few seeds for bars"
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure


def transfer(table: pd.DataFrame, title: str) -> Figure:
    """Draw accuracy on the target by arm and sparsity; `table` has arm, at, accuracy, half_width, and a dense row."""
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm != "dense"]
    shades = dict(zip(arms, ("#D55E00", "#0072B2", "#CC79A7", "#999999", "#009E73"), strict=False))
    levels = sorted(set(table[table["arm"] != "dense"]["at"]))
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        for i, arm in enumerate(arms):
            rows = table[table["arm"] == arm].set_index("at").reindex(levels)
            places = np.arange(len(levels)) + (i - (len(arms) - 1) / 2) * 0.16
            half = None if rows["half_width"].isna().all() else rows["half_width"]
            axis.errorbar(places, rows["accuracy"], half, fmt="sDov^"[i], color=shades[arm], capsize=3, label=arm)
        dense = table[table["arm"] == "dense"]["accuracy"]
        if len(dense):
            axis.axhline(float(dense.iloc[0]), color="#000000", linestyle="--", label="dense")
        axis.set_xticks(range(len(levels)), [report.level(at) for at in levels])
        axis.set(ylabel="test accuracy on the target", title=title, xlim=(-0.6, len(levels) - 0.4))
        percent_axis(axis)
        guessing(axis, float(table["chance"].iloc[0]))
        axis.set_ylim(0.7 * float(table["chance"].iloc[0]))
        figure.legend(fontsize=9, loc="outside right upper")
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Draw rounds and training-image passes needed to reach each sparsity; `table` is `report.rounds_table`."""
    looks = looks_of(table["method"])
    with canvas(2) as (figure, axes):
        for axis, column, title in zip(
            axes, ("rounds", "image_epochs"), ("Rounds", "Training images seen"), strict=True
        ):
            for method, rows in table.groupby("method", sort=False):
                axis.plot(rows["at"], rows[column], label=arm_name(str(method)), **looks[str(method)])
            axis.set(title=f"{title} to reach a sparsity", xlabel="sparsity", ylabel=title.lower())
            axis.set_ylim(0)
            axis.set_xticks(sorted(set(table["at"])), [f"{100 * at:.4g}%" for at in sorted(set(table["at"]))])
        axes[0].legend(fontsize=9)
    return figure


def comparisons(table: pd.DataFrame, margin: float = 0.01) -> Figure:
    """Draw differences in accuracy as a forest: a row a comparison and sparsity, bars the 95 % t intervals.

    `table` is `report.compare`, or several one below the other with columns `method` and `other` beside. The band is
    the margin within which two arms count as equivalent.
    """
    table = table.reset_index(drop=True)
    others = table["other"].tolist() if "other" in table else [""] * len(table)
    sides = (
        [f"{arm_name(m)} − {arm_name(o)}, " for m, o in zip(table["method"], others, strict=True)]
        if any(others)
        else others
    )
    names = [side + report.level(at) for side, at in zip(sides, table["at"], strict=True)]
    with canvas(size=(8.4, 1.3 + 0.26 * len(table))) as (figure, axis):
        axis.axvspan(-100 * margin, 100 * margin, color="#444444", alpha=0.12, label=f"± {100 * margin:g} points")
        axis.axvline(0, color="#444444", linestyle="--", linewidth=1)
        for place, (other, row) in enumerate(zip(others, table.itertuples(), strict=True)):
            half = None if np.isnan(row.half_width) else 100 * row.half_width
            look = line_look(other) | {"markerfacecolor": "none" if half is None else line_look(other)["color"]}
            axis.errorbar(100 * row.difference, place, xerr=half, capsize=3, **look)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set(xlabel="difference in test accuracy, points", title="Difference in accuracy, paired by seed")
        figure.legend(fontsize=8, title="filled: 95 % interval", title_fontsize=8, loc="outside right upper")
    return figure


def overlaps(records: pd.DataFrame) -> Figure:
    """Draw, for each arm over the rounds, how far the partitions' Jaccard index lies above chance within each layer.

    The numbers are `report.overlaps` of the same records; bars from three seeds on.
    """
    table = report.overlaps(records)
    looks = looks_of(table["method"])
    with canvas(size=(8.4, 4.0)) as (figure, axis):
        axis.axhline(0, color="#444444", linestyle="--", linewidth=1, label="chance within each layer")
        for method, rows in table.groupby("method", sort=False):
            name, half = str(method), rows["half_width"].fillna(0)
            axis.errorbar(rows["round"], rows["gap"], half, capsize=3, label=arm_name(name), **looks[name])
        axis.set(xlabel="round", ylabel="Jaccard index less chance", title="Do the partitions agree beyond chance?")
        whole_numbers(axis)
        drawn = "bars: 95 % interval over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        figure.legend(title=drawn, fontsize=9, title_fontsize=8, loc="outside right upper")
    return figure
