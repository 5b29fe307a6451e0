"""Figures of scores: accuracy over density, every scored ticket, what a sparsity costs, two ways of counting."""

import math
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import report
from ..report import metric_of
from .frame import (
    COLOURS,
    UNITS,
    arm_name,
    canvas,
    check_rows,
    counts_axis,
    guessing,
    line_look,
    looks_of,
    method_of,
    percent_axis,
    sparsity_axis,
    spelled,
    whole_numbers,
)

_WORDS = {"accuracy": "Accuracy", "psnr": "PSNR", "nats": "Negative evidence bound"}


def accuracy_sparsity(table: pd.DataFrame, title: str = "", levels: Mapping[str, float] | None = None) -> Figure:
    """Draw test accuracy against the sparsity reached, a line a method; intervals from three seeds on.

    The scale is that of log density.

    `table` is `report.accuracy_table`, of accuracy or another metric. Methods of equal density are drawn side by side,
    at most 2 % of it from their place, so that bars can be told apart. `levels` are drawn as lines, by name: what needs
    no network.
    """
    check_rows(table)
    looks, most, (metric, _) = looks_of(table["method"]), table["seeds"].max(), report.metric_of(table)
    title = spelled(title) or f"{_WORDS.get(metric, metric)} of tickets, trained on everything"
    lines = [name for name in looks if method_of(name) != "dense"]
    with canvas(size=(8.4, 4.8)) as (figure, axis):
        if len(looks) > 8:  # else the names of many arms would leave no room
            figure.set_size_inches(9.8, 4.8 + 0.18 * (len(looks) - 8))
        for method, rows in table.groupby("method", sort=False):
            name, count = str(method), rows["seeds"].max()
            fewer = "" if count == most else f", {report.count_seeds(count)}"
            half = rows["half_width"].fillna(0)
            if method_of(name) == "dense":
                level, spread = float(rows[metric].iloc[0]), float(half.iloc[0])
                stroke = "--" if looks[name]["color"] == COLOURS["dense"] else "-."  # a second one: of another width
                axis.axhline(level, color=looks[name]["color"], linestyle=stroke, label=arm_name(name) + fewer)
                axis.axhspan(level - spread, level + spread, color=looks[name]["color"], alpha=0.08)
            else:
                look = looks[name] | {"label": textwrap.fill(arm_name(name) + fewer, 40)}
                places = _aside(lines.index(name), len(lines)) * (1 - rows["sparsity"])
                thin = {"capsize": 2, "elinewidth": 1} if len(lines) > 8 else {"capsize": 3}
                axis.errorbar(places, rows[metric], half, **look | thin)
        axis.set(ylabel=f"test {UNITS.get(metric, metric)}", title=title, xscale="log")
        asked = sorted(set(table.loc[table["at"] > 0, "at"]))  # few have ticks of their own: round ones may miss them
        sparsity_axis(axis, at=asked if len(asked) <= 6 else None)
        enough = table["half_width"].notna().any()
        drawn = "bars: 95 % interval over seeds" if enough else "points: too few seeds for bars"
        drawn += "\narms of one sparsity are drawn side by side" if len(lines) > 1 else ""
        if metric == "accuracy":
            drawn += _mark_chance(axis, table)
        for name, value in _apart(levels or {}, axis.get_ylim()).items():
            guessing(axis, value, name)
        figure.legend(title=drawn, fontsize=9 if len(looks) <= 8 else 8, title_fontsize=8, loc="outside right upper",
                      alignment="left")  # fmt: skip
    return figure


def _aside(number: int, count: int) -> float:
    """Return by what factor the density of one of several arms is drawn aside: 1.5 % apart, all within 2 %."""
    step = min(1.015, 1.02 ** (2 / max(1, count - 1)))
    return step ** ((count - 1) / 2 - number)


def _apart(levels: Mapping[str, float], limits: tuple[float, float]) -> dict[str, float]:
    """Return levels of which no two names would be written over each other: those that nearly agree share a line."""
    found: dict[str, float] = {}
    reach = [*limits, *levels.values()]
    near = 0.04 * (max(reach) - min(reach))
    for name, value in sorted(levels.items(), key=lambda one: one[1]):
        if found and value - (last := list(found.items())[-1])[1] < near:
            del found[last[0]]
            name, value = f"{last[0]}, {name}", last[1]
        found[name] = value
    return found


def _mark_chance(axis: Axes, table: pd.DataFrame) -> str:
    """Write accuracies in percent; draw guessing where it is near, else return a line that says where it is."""
    percent_axis(axis)
    chance, lowest = float(table["chance"].iloc[0]), (table["accuracy"] - table["half_width"].fillna(0)).min()
    if lowest < 2 * chance:
        guessing(axis, chance)
        axis.set_ylim(0.7 * chance)
        return ""
    axis.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # whole percents
    return "" if np.isnan(chance) else f"\n(guessing: {100 * chance:.3g} %)"


def tickets(table: pd.DataFrame, title: str = "Every scored ticket") -> Figure:
    """Draw test accuracy against sparsity for any scores: a point a ticket, a line a run, a colour an arm.

    `table` has columns arm, experiment, density, accuracy, chance; of another metric its own column and `metric`.
    """
    check_rows(table)
    looks, (metric, _) = looks_of(table["arm"]), metric_of(table)
    with canvas(size=(8.6, 4.4), dpi=100) as (figure, axis):
        named: set[str] = set()
        for (arm, _), rows in table.groupby(["arm", "experiment"], sort=False):
            rows, name = rows.sort_values("density"), str(arm)
            label = arm_name(name) if name not in named else None
            named.add(name)
            look = {"linestyle": "-"} | looks[name]
            axis.plot(rows["density"], rows[metric], label=label, alpha=0.8, linewidth=1, **look)
        axis.set(ylabel=f"test {metric}", title=title, xscale="log")
        sparsity_axis(axis)
        if metric == "accuracy":
            _mark_chances(axis, table)
        if max(map(len, named)) <= 24:
            figure.legend(fontsize=9, loc="outside right upper")
        else:  # long names would leave no room beside them
            figure.set_figheight(4.4 + 0.2 * math.ceil(len(named) / 2))
            figure.legend(fontsize=8, loc="outside lower left", ncols=2)
    return figure


def _mark_chances(axis: Axes, table: pd.DataFrame) -> None:
    """Write accuracies in percent; draw guessing where it is near, and name it where it is far off."""
    percent_axis(axis)
    chances, lowest = sorted({float(chance) for chance in table["chance"].dropna()}), table["accuracy"].min()
    far = [f"{chance:.1%}" for chance in chances if lowest >= 2 * chance]
    if far:
        axis.set_ylabel(f"test accuracy (guessing: {', '.join(far)})")
    for chance in (chance for chance in chances if lowest < 2 * chance):
        guessing(axis, chance, f"guessing ({chance:.1%})")


def costs(table: pd.DataFrame) -> Figure:
    """Draw rounds and training-image passes needed to reach each sparsity; `table` is `report.rounds_table`."""
    check_rows(table)
    looks = looks_of(table["method"])
    with canvas(2) as (figure, axes):
        for axis, column, title in zip(
            axes, ("rounds", "image_epochs"), ("Rounds", "Training images seen"), strict=True
        ):
            for method, rows in table.groupby("method", sort=False):
                axis.plot(rows["at"], rows[column], label=arm_name(str(method)), **looks[str(method)])
            axis.set(title=f"{title} to reach a sparsity", xlabel="sparsity, %", ylabel=title.lower())
            axis.set_ylim(0)
            counts_axis(axis, "y")
            axis.set_xticks(sorted(set(table["at"])), [f"{100 * at:.4g}" for at in sorted(set(table["at"]))])
        axes[0].legend(fontsize=9)
    return figure


def countings(table: pd.DataFrame) -> Figure:
    """Draw sparsity over the rounds as two ways of counting give it; `table` has round, density and density_all."""
    check_rows(table)
    looks = {"density": line_look("colt"), "density_all": line_look("imp")}
    words = {"density": "of prunable weights", "density_all": "of all weights, head and normalisation too"}
    with canvas(size=(7.2, 3.6)) as (figure, axis):
        for name, look in looks.items():
            axis.plot(table["round"], 1 - table[name], label=words[name], **look)
        axis.set(xlabel="round", ylabel="sparsity", title="The same tickets, two ways of counting")
        axis.set_ylim(0, 1)
        whole_numbers(axis)
        percent_axis(axis)
        axis.legend(fontsize=9, loc="lower right")
    return figure
