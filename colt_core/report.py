"""From records to tables in the paper's shape, with intervals over seeds; to Markdown, LaTeX and CSV."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from scipy import stats

from .files import write_text
from .runs import Place, read_records
from .store import open_store

SETTING = ["scored_on", "network", "method"]
LEAST_SEEDS = 3  # fewer: points only, no interval


def load(store: Place = None) -> pd.DataFrame:
    """Return every record of a store, a row each (`kind` "round" or "score"); empty where there is none."""
    place = open_store(store)
    folders = dict.fromkeys(name.split("/")[0] for name in place.names("*/record*.jsonl"))
    return pd.DataFrame([record for folder in folders for record in read_records(folder, place)])


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Return mean and half-width of Student's t interval; the half-width is NaN for fewer than three values."""
    series = pd.Series(list(values), dtype=float).dropna()
    if len(series) < LEAST_SEEDS:
        return float(series.mean()), math.nan
    return float(series.mean()), float(stats.t.ppf((1 + level) / 2, len(series) - 1) * stats.sem(series))


def at_sparsities(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return, for each run and each sparsity asked for, the score of its first round at or beyond it, if it has one.

    Adds the columns `at` (the sparsity asked for) and `sparsity` (the one reached). Dense runs stand at 0 alone.

    Raises
    ------
    ValueError
        If the records mix several experiments of one data set, network, method and seed: choose among them first.
    """
    scores = records[records["kind"] == "score"].assign(sparsity=lambda r: 1 - r["density"])
    mixed = scores.groupby([*SETTING, "seed"])["experiment"].nunique()
    if (mixed > 1).any():
        scored_on, network, method, seed = mixed.idxmax()
        what = f"{mixed.max()} experiments of {method} with {network} on {scored_on}, seed {seed}"
        raise ValueError(f"the records mix {what}; choose among them first, a table takes one a seed")
    rows = [scores[scores["method"] == "dense"].assign(at=0.0)]
    for at in sparsities:
        first = _first_rounds(records, at)[["experiment", "round"]]
        rows.append(scores[scores["method"] != "dense"].merge(first, on=["experiment", "round"]).assign(at=at))
    return pd.concat(rows, ignore_index=True)


def _first_rounds(records: pd.DataFrame, at: float) -> pd.DataFrame:
    """Return each experiment's record of its first round at or beyond a sparsity."""
    found = records[(records["kind"] == "round") & (1 - records["density"] >= at - 1e-12)]
    return found.sort_values("round", kind="stable").drop_duplicates("experiment")


def accuracy_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return mean test accuracy by data set, network, method and sparsity, in long form.

    Returns
    -------
    pandas.DataFrame
        Columns scored_on, network, method, at, sparsity (mean reached), accuracy (mean over seeds, in [0, 1]),
        half_width (of the 95 % t interval; NaN below three seeds), seeds, rounds, image_epochs (mean cost of finding),
        score_image_epochs (of the one training that is scored), train_images, chance (the accuracy of guessing).
    """
    rows = []
    for key, group in at_sparsities(records, sparsities).groupby([*SETTING, "at"], sort=False):
        mean, half = interval(group["accuracy"])
        means = {name: name for name in ("image_epochs", "score_image_epochs", "train_images", "chance")}
        means |= {"rounds": "round"}
        row = dict(zip([*SETTING, "at"], key, strict=True)) | {"sparsity": group["sparsity"].mean(), "accuracy": mean}
        row |= {"half_width": half, "seeds": group["seed"].nunique()}
        rows.append(row | {name: group[column].mean() for name, column in means.items()})
    return pd.DataFrame(rows)


def paper_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return `accuracy_table` in the paper's shape: a row a method, a column a sparsity.

    A cell is "mean ± half-width (reached)", all in percent: the accuracy, its interval, and the mean sparsity reached,
    which is beyond the one asked for by as much as the method's steps are long.
    """
    table = accuracy_table(records, sparsities)
    reached = ["" if row.at == 0 else f" ({100 * row.sparsity:.1f})" for row in table.itertuples()]
    table["cell"] = [percent(r.accuracy, r.half_width) + at for r, at in zip(table.itertuples(), reached, strict=True)]
    table["column"] = ["dense" if at == 0 else level(at) for at in table["at"]]
    order = ["dense", *(level(at) for at in sparsities)]
    wide = table.pivot_table(index=SETTING, columns="column", values="cell", aggfunc="first", sort=False)
    wide = wide.reindex(columns=[name for name in order if name in wide]).fillna("-")
    wide.insert(0, "seeds", table.groupby(SETTING, sort=False)["seeds"].max())
    return wide.rename_axis(columns=None).reset_index().rename(columns={"scored_on": "dataset"})


def level(sparsity: float) -> str:
    """Return a sparsity as a heading: "95% sparse", "99.1% sparse"."""
    return f"{100 * sparsity:.4g}% sparse"


def percent(mean: float, half: float = math.nan) -> str:
    """Return "41.2 ± 1.3" (percent), or "41.2" without an interval."""
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


def rounds_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return how many rounds, and how many training-image passes, each method takes to reach each sparsity.

    Means over seeds; only methods that train in order to find (their rounds cost something of their own).
    """
    found = records[(records["kind"] == "round") & records["method"].isin(["colt", "imp", "matched", "union", "vote"])]
    rows = []
    for at in sparsities:
        first = _first_rounds(found, at)
        for (dataset, network, method), group in first.groupby(["dataset", "network", "method"], sort=False):
            row = {"dataset": dataset, "network": network, "method": method, "at": at, "rounds": group["round"].mean()}
            rows.append(row | {"image_epochs": group["image_epochs"].mean(), "seeds": len(group)})
    return pd.DataFrame(rows)


def paired(records: pd.DataFrame, method: str, other: str, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return the difference in accuracy of two methods, seed by seed: mean and 95 % interval at each sparsity.

    `sparsity` and `other_sparsity` are those reached: equal where one method follows the other's densities.

    A run of one seed shares initialisation, head and order of images, so the difference has less noise than either.
    """
    table = at_sparsities(records, sparsities)
    rows = []
    for (scored_on, network, at), group in table.groupby(["scored_on", "network", "at"], sort=False):
        by_seed = group.pivot_table(index="seed", columns="method", values="accuracy")
        reached = group.groupby("method")["sparsity"].mean()
        if {method, other} <= set(by_seed):
            difference = (by_seed[method] - by_seed[other]).dropna()
            mean, half = interval(difference)
            row = {"scored_on": scored_on, "network": network, "at": at, "difference": mean, "half_width": half}
            row |= {"seeds": len(difference), "sparsity": reached[method], "other_sparsity": reached[other]}
            rows.append(row)
    named = ["scored_on", "network", "at", "difference", "half_width", "seeds", "sparsity", "other_sparsity"]
    return pd.DataFrame(rows, columns=named)


def verdict(difference: pd.DataFrame, method: str, other: str) -> list[str]:
    """Say in words, a sentence a sparsity, what `paired` found and whether its interval excludes zero."""
    lines = []
    for row in difference.itertuples():
        points = f"{100 * row.difference:+.1f} points"
        if math.isnan(row.half_width):
            ending = f"from {row.seeds} seed(s), too few for an interval"
        else:
            clear = abs(row.difference) > row.half_width
            side = ("better" if row.difference > 0 else "worse") if clear else "no difference that these seeds can show"
            ending = f"± {100 * row.half_width:.1f} over {row.seeds} seeds: {side}"
        sides = f"{method} ({row.sparsity:.1%} sparse) against {other} ({row.other_sparsity:.1%})"
        lines.append(f"{sides}: {points} {ending}")
    return lines


def save(table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, each whole or not at all; return the paths."""
    forms = {
        "csv": table.to_csv(index=False),
        "md": table.to_markdown(index=False) + "\n",
        "tex": table.to_latex(index=False, escape=True),
    }
    return [write_text(Path(folder) / f"{name}.{ending}", text) for ending, text in forms.items()]
