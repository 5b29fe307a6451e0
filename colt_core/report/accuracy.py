"""How well tickets do at equal sparsity: means over seeds in long form, in the paper's shape, and as areas.

The metric is that of the records, accuracy where they name none; its column has its name.
"""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import integrate

from ..studies.experiment import counts_as
from .arms import SETTING, hashes, scores_by_arm
from .records import distinct, left, marked, metric_of
from .statistics import TINY, half_width
from .trouble import failures, with_failures
from .words import level, written


def at_sparsities(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return, for each run and each sparsity asked for, the score of its first round at or beyond it, if it has one.

    Adds the columns `at` (the sparsity asked for), `sparsity` (the one reached) and `finder` (the plain method);
    `method` holds the arm, see `arms`. Dense runs stand at 0 alone.

    Raises
    ------
    ValueError
        If the records mix metrics, or several experiments of one data set, network, arm and seed: choose first.
        If there are no records, or they are not whole: see `distinct`, which every table goes through.
    """
    records = distinct(records)
    return scores_at(scores_by_arm(records), records, sparsities)


def scores_at(scores: pd.DataFrame, records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Carry `at_sparsities` out on scores that have their arms already."""
    dense = scores["finder"] == "dense"
    rows = [scores[dense].assign(at=0.0)]
    for at in dict.fromkeys(sparsities):
        if not 0 <= at <= 1:
            raise ValueError(f"sparsities are shares of the weights, in 0..1, not {at:g}")
        first = first_rounds(records, at)[["experiment", "round"]]
        rows.append(scores[~dense].merge(first, on=["experiment", "round"]).assign(at=at))
    return pd.concat(rows, ignore_index=True)


def first_rounds(records: pd.DataFrame, at: float) -> pd.DataFrame:
    """Return each experiment's record of its first round at or beyond a sparsity."""
    rounds = records[records["kind"] == "round"]
    found = rounds[counted(rounds) >= at - TINY]
    return found.sort_values("round", kind="stable").drop_duplicates("experiment")


def counted(rounds: pd.DataFrame) -> np.ndarray:
    """Return the sparsity that each round counts as, see `studies.experiment.counts_as`."""
    given = rounds["densities"] if "densities" in rounds else [None] * len(rounds)
    ways = [json.loads(way) if isinstance(way, str) else None for way in given]
    rows = zip(rounds["round"], left(rounds), ways, strict=True)
    return np.array([counts_as(number, density, way) for number, density, way in rows], dtype=float)


def accuracy_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return mean test accuracy by data set, network, method and sparsity, in long form.

    Returns
    -------
    pandas.DataFrame
        Columns scored_on, network, method (see `arms`), at, sparsity (mean reached), accuracy (mean over seeds, in
        [0, 1]), half_width (of the 95 % t interval; NaN below three seeds), seeds, rounds, image_epochs (mean cost of
        finding), score_image_epochs (of the one training that is scored), chance (the accuracy of guessing),
        train_images (of the data set as it is at hand), experiments (the hashes behind the row). Of another metric
        than accuracy its column has its name, and `metric` and `higher_is_better` stand at the end.
    """
    return mean_scores(at_sparsities(records, sparsities))


def by_rounds(records: pd.DataFrame) -> pd.DataFrame:
    """Return mean scores by arm and round, with the columns of `accuracy_table`: every round that was scored is there.

    Tickets of whole channels come down to no sparsity that was asked for, so a table by levels shows some of their
    rounds twice and others never. `at` is the mean sparsity reached, which differs between arms of one round.

    Raises
    ------
    ValueError
        As `at_sparsities`.
    """
    scores = scores_by_arm(distinct(records))
    scores = scores[(scores["round"] > 0) | (scores["finder"] == "dense")]
    table = mean_scores(scores.assign(at=scores["round"]))
    return table.assign(at=table["sparsity"].where(table["rounds"] > 0, 0.0))


def mean_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return `accuracy_table` of a table of `at_sparsities`."""
    names = ("image_epochs", "score_image_epochs", "chance")
    return means(table, "at", {"rounds": "round"} | {name: name for name in names if name in table})


def means(table: pd.DataFrame, by: str, others: dict[str, str], setting: list[str] = SETTING) -> pd.DataFrame:
    """Return the metric's mean and interval over seeds by setting and `by`, and the plain means of other columns."""
    metric, higher_is_better = metric_of(table)
    groups = table.groupby([*setting, by], sort=False)
    scores = groups[metric]
    columns = {"sparsity": groups["sparsity"].mean(), metric: scores.mean()}
    columns |= {"half_width": half_width(scores.std(), scores.count()), "seeds": groups["seed"].nunique()}
    if "train_images" in table:
        others = others | {"train_images": "train_images"}
    for name, column in others.items():
        columns[name] = groups[column].mean()
    found = pd.DataFrame(columns | {"experiments": groups["experiment"].agg(hashes)}).reset_index()
    return marked(found, metric, higher_is_better)


def screening(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return each arm's mean *validation* accuracy over the sparsities, best first: what choices may rest on.

    Columns dataset, network, method, validation_accuracy (mean over the seeds that have scores at all sparsities),
    half_width, seeds. No test accuracy is looked at.
    """
    levels = list(dict.fromkeys(sparsities))
    table = at_sparsities(records, levels)
    table = table[(table["finder"] != "dense") & (table["scored_on"] == table["dataset"])]  # none that were carried
    runs = table.groupby(["dataset", "network", "method", "seed"], sort=False)
    by_seed = runs["validation_accuracy"].mean()[runs["at"].nunique() == len(levels)]
    groups = by_seed.groupby(["dataset", "network", "method"], sort=False)
    columns = {"validation_accuracy": groups.mean(), "half_width": half_width(groups.std(), groups.count())}
    found = pd.DataFrame(columns | {"seeds": groups.count()}).reset_index()
    return found.sort_values("validation_accuracy", ascending=False, kind="stable", ignore_index=True)


# --- the paper's shape -------------------------------------------------------------------------------------------


def paper_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return `accuracy_table` in the paper's shape: a row a method, a column a sparsity.

    A cell is "mean ± half-width (reached)", all in percent: the accuracy, its interval, and the mean sparsity reached,
    which is beyond the one asked for by as much as the method's steps are long. Other metrics are not in percent. Where
    experiments failed, a column `note` says so, and an arm that has nothing else has a row.
    """
    levels = list(dict.fromkeys(sparsities))
    return in_papers_shape(accuracy_table(records, levels), levels, failures(records))


def in_papers_shape(table: pd.DataFrame, sparsities: Iterable[float], failed: pd.DataFrame) -> pd.DataFrame:
    """Return `paper_table` of an `accuracy_table` and of `failures`."""
    metric, higher_is_better = metric_of(table)
    cells = []
    for row in table.itertuples():
        reached = "" if row.at == 0 else f" ({100 * row.sparsity:.1f})"
        cells.append(written(getattr(row, metric), row.half_width, metric) + reached)
    names = ["dense" if at == 0 else level(at) for at in table["at"]]
    table = table.assign(cell=cells, column=names)
    wide = table.pivot_table(index=SETTING, columns="column", values="cell", aggfunc="first", sort=False)
    order = ["dense", *(level(at) for at in sparsities)]
    wide = wide.reindex(columns=[name for name in order if name in wide]).fillna("-")
    groups = table.groupby(SETTING, sort=False)
    wide.insert(0, "seeds", groups["seeds"].max())
    if "train_images" in table:
        wide.insert(0, "training images", groups["train_images"].max().astype(int))
    shaped = wide.rename_axis(columns=None).reset_index().rename(columns={"scored_on": "dataset"})
    return marked(with_failures(shaped, failed), metric, higher_is_better)


# --- areas -------------------------------------------------------------------------------------------------------


def area(records: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """Return the area under the curve of accuracy over log density between two sparsities, divided by its width.

    It reads as a mean accuracy. Trapezoids, linear in log density; only runs whose scores cover the whole range.

    Raises
    ------
    ValueError
        If not 0 <= low < high < 1.
    """
    if not 0 <= low < high < 1:
        raise ValueError(f"the range must have 0 <= low < high < 1, not {low} to {high}")
    return _areas(scores_by_arm(records), low, high)


def _areas(scores: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    metric, higher_is_better = metric_of(scores)
    groups = scores.groupby(["experiment", "seed", *SETTING], sort=False)
    images = {"train_images": ("train_images", "max")} if "train_images" in scores else {}
    runs = groups.agg(places=("sparsity", list), heights=(metric, list), **images).reset_index()
    covers = [min(p) <= low + TINY and max(p) >= high - TINY for p in runs["places"]]
    runs = runs[np.array(covers, dtype=bool)]
    pairs = zip(runs["places"], runs["heights"], strict=True)
    heights = [mean_height(np.array(p), np.array(h), low, high) for p, h in pairs]
    runs = marked(runs, metric, higher_is_better).assign(low=low, sparsity=high)
    runs[metric] = np.array(heights, dtype=float)
    columns = [*SETTING, "low", "high", metric, "half_width", "seeds", "train_images", "experiments"]
    found = means(runs, "low", {}).rename(columns={"sparsity": "high"}).reindex(columns=columns)
    return marked(found, metric, higher_is_better)


def mean_height(sparsity: np.ndarray, score: np.ndarray, low: float, high: float) -> float:
    """Return the mean of the piecewise linear curve over -log(1 - sparsity) between two sparsities."""
    order = np.argsort(sparsity)
    places, heights = -np.log1p(-sparsity[order]), score[order]
    ends = -np.log1p(-np.array([low, high]))
    within = places[(places > ends[0]) & (places < ends[1])]
    at = np.array([ends[0], *within, ends[1]])
    return float(integrate.trapezoid(np.interp(at, places, heights), at) / (ends[1] - ends[0]))


def all_areas(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `area` for each data set and network, over the sparsities that all runs with two scores or more cover."""
    parts = []
    for _, cell in scores.groupby(["scored_on", "network"], sort=False):
        ends = cell.groupby(["experiment", "seed"])["sparsity"].agg(["min", "max", "size"])
        several = ends[ends["size"] > 1]
        low, high = several["min"].max(), several["max"].min()
        if low < high < 1:
            parts.append(_areas(cell, low, high))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
