"""Figures of what a method recovers of IMP's gain over random, of the way from random to dense, and of what it cost."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .. import report
from ..report.words import ACCURACY, unit
from .frame import (
    UNITS,
    arm_name,
    canvas,
    check_rows,
    counts_axis,
    line_look,
    looks_of,
    method_of,
    percent_axis,
    spelled,
)

LEFT, RIGHT = -0.75, 1.75  # what is drawn; intervals that go on beyond have an arrow


def recovered(found: pd.DataFrame, names: Iterable[str] | None = None) -> Figure:
    """Draw the share of IMP's gain over random that arms recover: a dot a seed, the bar Fieller's 95 % interval.

    Parameters
    ----------
    found
        `report.gains`, or several with a column `run` (what is written before the arms) or `study`.
    names
        The arms to draw, in order; None: all.
    """
    arms = list(dict.fromkeys(found["method"])) if names is None else list(names)
    runs = found["run"] if "run" in found else found["scored_on"].astype(str) + ", " + found["network"].astype(str)
    every = found.assign(study=runs)
    found = every[every["method"].isin(arms)]
    check_rows(found)
    table = report.shares_of(found)
    table = table.sort_values("method", key=lambda column: column.map(arms.index), kind="stable")
    metric, _ = report.metric_of(found)
    scale, digits = (100, ".1f") if metric == ACCURACY else (1, ".2g")
    lines: list[str] = []
    with canvas(size=(8.6, 1.7 + 0.27 * len(table) + 0.3 * found["study"].nunique())) as (figure, axis):
        axis.axvline(0, color="#444444", linewidth=1)
        axis.axvline(1, color="#444444", linestyle="--", linewidth=1)
        for run in dict.fromkeys(found["study"]):
            looks = _looks(every[every["study"] == run])
            full = scale * table.loc[table["study"] == run, "full"]  # of several splits each has its own
            gained = " to ".join(dict.fromkeys(f"{end:{digits}}" for end in (full.min(), full.max())))
            told = textwrap.fill(f"{spelled(run)}   (IMP gains {gained} {unit(metric)})", 92)
            axis.annotate(
                told, (LEFT + 0.01, len(lines)), fontsize=8, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5}, zorder=5,
            )  # fmt: skip
            lines.append("")
            for row in table[table["study"] == run].itertuples():
                look = looks[str(row.method)] | {"linestyle": ""}
                own = found[(found["study"] == run) & (found["method"] == row.method)]["share"]
                _bar(axis, row, len(lines), look["color"])
                _seeds(axis, own, len(lines), look)
                _mean(axis, row.share, len(lines), look)
                lines.append(_wrapped(str(row.method)))
        axis.set_yticks(range(len(lines)), lines, fontsize=9)
        axis.set(xlim=(LEFT, RIGHT), ylim=(len(lines) - 0.4, -0.6), title="How much of IMP's gain is recovered?")
        axis.set_xlabel(
            "share of IMP's gain over a random mask with the same layers, at the same densities\n"
            "small: a seed each; large: ratio of the means; bar: 95 % interval, none where IMP's own gain is unsure;\n"
            "arrows: on beyond the frame",
            fontsize=9, loc="right",
        )  # fmt: skip
        axis.set_xticks([-0.5, 0, 0.5, 1, 1.5], ["-50 %", "0: random mask", "50 %", "100 %: IMP", "150 %"])
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    return figure


def _looks(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the looks of all arms of a run, drawn here or not: as in its other figures, where the yardsticks stand."""
    yardsticks = [name for kind in ("matched", "random") if kind in found for name in found[kind].dropna()]
    return looks_of([*yardsticks, *found["method"]])


def _seeds(axis: Axes, own: pd.Series, place: int, look: dict[str, Any]) -> None:
    """Draw a dot a seed; of those beyond the frame, say at its edge how many there are."""
    inside = own[own.between(LEFT, RIGHT)]
    axis.plot(inside, [place] * len(inside), alpha=0.45, **look | {"markersize": 4})
    for edge, count, side in ((LEFT, (own < LEFT).sum(), "left"), (RIGHT, (own > RIGHT).sum(), "right")):
        if count:
            aside = (8 if side == "left" else -8, 3)
            told = {"textcoords": "offset points", "ha": side, "va": "bottom", "fontsize": 7, "color": look["color"]}
            axis.annotate(f"{count} beyond", (edge, place), aside, **told)


def _mean(axis: Axes, share: float, place: int, look: dict[str, Any]) -> None:
    """Draw the ratio of the means, as an arrow at the frame where it lies beyond."""
    beyond = {"marker": "<" if share < LEFT else ">", "clip_on": False} if not LEFT <= share <= RIGHT else {}
    axis.plot([np.clip(share, LEFT, RIGHT)], [place], **look | {"markersize": 8} | beyond)


def _wrapped(arm: str) -> str:
    """Return an arm's name in lines that leave room for what is drawn."""
    return "\n".join(textwrap.wrap(arm_name(arm).replace("finding ", ""), 38))


def _bar(axis: Axes, row: Any, place: int, colour: str) -> None:
    """Draw an interval, with an arrow where it goes on beyond what is drawn."""
    low, high = row.low, row.high
    if np.isnan(low):
        return
    axis.plot(np.clip([low, high], LEFT, RIGHT), [place, place], color=colour, linewidth=1.6)
    for end, beyond, marker in ((LEFT, low < LEFT, "<"), (RIGHT, high > RIGHT, ">")):
        if beyond:
            axis.plot([end], [place], marker=marker, color=colour, clip_on=False)


def waterfall(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw what each step adds on the way from a random mask to the dense network; `table` is `report.ladder`.

    One data set and network; the first is a point, then a bar from the accuracy of the step before, with the 95 %
    interval of the paired difference where there are three seeds.
    """
    check_rows(table)
    if len(table[["scored_on", "network"]].drop_duplicates()) > 1:
        raise ValueError("a waterfall is of one data set and network: choose one first")
    rows = list(table.itertuples())
    with canvas(size=(1.5 + 1.35 * len(rows), 4.0)) as (figure, axis):
        base = min(row.score for row in rows) - 0.25 * (max(row.score for row in rows) - min(row.score for row in rows))
        before = rows[0].score
        for place, row in enumerate(rows):
            colour = line_look(str(row.method))["color"]
            if place:
                axis.bar(place, row.score - before, bottom=before, width=0.62, color=colour, alpha=0.85)
            else:  # no bar: it would stand on an arbitrary base
                axis.plot([place], [row.score], **line_look(str(row.method)) | {"markersize": 8})
            half = 0 if np.isnan(row.half_width) else row.half_width
            if half:
                axis.errorbar(place, row.score, half, color="#222222", capsize=4, linewidth=1.2)
            text = f"{100 * row.score:.1f} %" if place == 0 else f"{100 * row.difference:+.1f}"
            text += f" ± {100 * half:.1f}" if half else ""
            top = max(row.score, before) + half
            above = (0, 4 if place else 9)
            axis.annotate(text, (place, top), above, textcoords="offset points", ha="center", fontsize=9)
            if place + 1 < len(rows):
                axis.plot([place - 0.31, place + 1.31], [row.score] * 2, color="#888888", linewidth=0.8)
            before = row.score
        names = [arm_name(str(row.method)).replace(" at COLT's rate", "\nat COLT's rate") for row in rows]
        axis.set_xticks(range(len(rows)), names, fontsize=9)
        highest = max(row.score + (0 if np.isnan(row.half_width) else row.half_width) for row in rows)
        axis.set_ylim(base, highest + 0.12 * (highest - base))
        axis.set(ylabel="test accuracy", title=spelled(title) or "From a random mask to the dense network")
        told = "; ±: 95 % interval of the difference to the step before, paired by seed"
        told = told if table["half_width"].notna().any() else ""
        axis.set_xlabel(f"means over {report.count_seeds(rows[-1].seeds)} and all sparsities{told}", fontsize=8)
        percent_axis(axis)
        axis.grid(axis="x", visible=False)
    return figure


def accuracy_cost(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw test accuracy against what finding cost, in image passes and in sequential steps; a point an arm.

    `table` is `report.spent`, of one sparsity or of the mean over several; of another metric, that is drawn.
    """
    check_rows(table)
    metric, _ = report.metric_of(table)
    looks, alike = looks_of(table["method"]), table["method"].map(method_of).duplicated().any()
    with canvas(2, size=(5.2, 4.2), sharey=True) as (figure, axes):
        for axis, column, what in zip(
            axes, ("passes", "steps"), ("passes over the training set", "sequential optimiser steps"), strict=True
        ):
            places = _aside(table[column].tolist())
            for number, (row, place) in enumerate(zip(table.itertuples(), places, strict=True), 1):
                half, height = 0 if np.isnan(row.half_width) else row.half_width, getattr(row, metric)
                look = looks[str(row.method)] | {"linestyle": "", "markersize": 7}
                label = _wrapped(str(row.method)) if column == "passes" else None
                if alike:  # arms of one method share colour and marker: a number tells them apart
                    end = (place, height + half)  # of its own bar, for points of equal cost stand close together
                    axis.annotate(f"{number}", end, (0, 4), textcoords="offset points", fontsize=8, ha="center")
                    label = label and f"{number}  " + label.replace("\n", "\n     ")
                axis.errorbar(place, height, half, capsize=2, elinewidth=1, label=label, **look)
            axis.set_xlabel(what, fontsize=9)
            counts_axis(axis)
            most = max(1.0, *places)
            axis.set_xlim(-0.05 * most, 1.05 * most)
            axis.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            if metric == ACCURACY:
                percent_axis(axis)
        axes[0].set_ylabel(f"test {UNITS.get(metric, metric)}")
        axes[0].set_title(spelled(title) or "What finding cost, and what it gave")
        axes[1].set_title("with a machine a copy", fontsize=9)
        drawn = "bars: 95 % interval over seeds" if table["half_width"].notna().any() else "too few seeds for bars"
        if any(_aside(costs := table[column].tolist()) != costs for column in ("passes", "steps")):
            drawn += "\nequal costs are drawn side by side"
        figure.legend(fontsize=8, title=drawn, title_fontsize=8, loc="outside right upper", alignment="left")
    return figure


def _aside(places: list[float]) -> list[float]:
    """Return places at which points of equal cost stand side by side, so that no bar hides another."""
    step, moved = 0.026 * max(1.0, max(places)), list(places)
    for place in set(places):
        alike = [i for i, other in enumerate(places) if abs(other - place) < step / 4]
        for k, i in enumerate(alike):
            moved[i] = places[i] + step * (k - (len(alike) - 1) / 2)
    return moved
