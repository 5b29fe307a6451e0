"""From records to tables in the paper's shape, with intervals over seeds; to Markdown, LaTeX and CSV."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

from .compute.store import open_store
from .files import write_text
from .studies.run import Place, read_records
from .training import RECIPES

SETTING = ["scored_on", "network", "method"]
LEAST_SEEDS = 3  # fewer: points only, no interval
OPTIONS = (
    "parts",
    "by",
    "rate",
    "target",
    "scope",
    "rewind",
    "pooling",
    "early_bird",
    "official",
    "network_args",
    "recipe",
)
SHARED = (
    "parts",
    "by",
    "rate",
    "scope",
    "rewind",
    "early_bird",
    "official",
)  # what those that follow COLT have in common with it
AT_ONCE = ("dense", "random", "reinit", "oneshot", "snip", "grasp", "synflow")  # no rounds of training of their own
UNITS = ("image_epochs", "flops", "seconds")
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)  # of `tables`
BULKY = ("pruned", "accuracies", "curves", "curve", "epochs_saved", "overlap", "score_data")
RESAMPLES = 1999
TINY = 1e-12  # differences of accuracies below it are rounding


def load(store: Place = None) -> pd.DataFrame:
    """Return every record of a store, a row each (`kind` "round" or "score"); empty where there is none."""
    place = open_store(store)
    folders = dict.fromkeys(name.split("/")[0] for name in place.names("*/record*.jsonl"))
    return pd.DataFrame([record for folder in folders for record in read_records(folder, place)])


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Return mean and half-width of Student's t interval; the half-width is NaN for fewer than three values."""
    series = _numbers(values)
    mean = float(series.mean()) if len(series) else math.nan
    spread = float(series.std(ddof=1)) if len(series) >= LEAST_SEEDS else math.nan
    return mean, float(_half_width(spread, len(series), level))


def _numbers(values: Iterable[float]) -> np.ndarray:
    series = np.array(list(values), dtype=float)
    return series[~np.isnan(series)]


def _half_width(spread: Any, count: Any, level: float = 0.95) -> Any:
    """Return the half-width of Student's t interval from standard deviation and number; NaN below three values."""
    bound = stats.t.ppf((1 + level) / 2, np.maximum(count, LEAST_SEEDS) - 1)
    return np.where(count >= LEAST_SEEDS, bound * spread / np.sqrt(np.maximum(count, 1)), math.nan)


def summary(values: Iterable[float], level: float = 0.95) -> dict[str, float]:
    """Return mean, half_width (Student's t), low and high (bootstrap, BCa) and seeds of one value a seed.

    Below three values the interval's ends are NaN. The resamples are the same each time.
    """
    series = _numbers(values)
    mean, half = interval(series, level)
    low, high = _bootstrap(series[None], level)[0]
    return {"mean": mean, "half_width": half, "low": float(low), "high": float(high), "seeds": len(series)}


def _bootstrap(values: np.ndarray, level: float) -> np.ndarray:
    """Return the ends of the BCa bootstrap interval of each row's mean; where nothing varies, the mean itself."""
    if values.shape[1] < LEAST_SEEDS:
        return np.full((len(values), 2), math.nan)
    ends = np.repeat(values.mean(1)[:, None], 2, 1)
    if (varied := np.ptp(values, axis=1) > TINY).any():
        options: dict[str, Any] = {"n_resamples": RESAMPLES, "method": "BCa", "confidence_level": level, "axis": -1}
        drawn = stats.bootstrap((values[varied],), np.mean, random_state=np.random.default_rng(0), **options)
        ends[varied] = np.stack(drawn.confidence_interval, 1)
    return ends


# --- which experiments are one arm -------------------------------------------------------------------------------


def arms(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records with a column `arm`: the method, in brackets the settings in which its experiments differ.

    Settings count that differ, the seed apart, between experiments of one data set, network and method within these
    records: "colt (parts 3)". Of recipes, network arguments and early-bird stopping the fields that differ are named.
    A score on another data set is told apart, "colt from cifar100", where the same arm of another source stands there.
    """
    identity = ["experiment", "dataset", "network", "method"]
    known = [name for name in (*identity, *OPTIONS) if name in records]
    groups: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in records[known].drop_duplicates().to_dict("records"):
        groups.setdefault(tuple(row[name] for name in identity[1:]), {})[row["experiment"]] = _settings(row)
    names = {(e, *key): _arm(key[-1], s, group) for key, group in groups.items() for e, s in group.items()}
    named = records.assign(arm=[names[key] for key in records[identity].itertuples(index=False, name=None)])
    if "scored_on" not in named:
        return named.assign(scored_on=None)
    foreign = named["scored_on"].notna() & (named["scored_on"] != named["dataset"])
    if foreign.any():
        foreign &= named.groupby(["scored_on", "network", "arm"])["dataset"].transform("nunique") > 1
        named.loc[foreign, "arm"] += " from " + named.loc[foreign, "dataset"]
    return named


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's settings as one flat dict, what is a description in JSON opened up."""
    flat: dict[str, Any] = {}
    for name in OPTIONS:
        value: Any = row.get(name)
        missing = value is None or value != value  # NaN
        if name in ("network_args", "recipe"):
            flat |= {} if missing else json.loads(value)
        elif name == "official":
            flat[name] = "no" if missing else value
        elif name == "early_bird":
            flat |= {name: "no"} if missing else {name: "yes", **json.loads(value)}
        else:
            flat[name] = "default" if missing else value
    return {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in flat.items()}


def _arm(method: str, settings: dict[str, Any], group: dict[str, dict[str, Any]]) -> str:
    """Name one experiment by what sets it apart from its group."""
    varied = [name for name in settings if len({other.get(name) for other in group.values()}) > 1]
    told = [f"{n} {settings[n]:g}" if isinstance(settings[n], float) else f"{n} {settings[n]}" for n in varied]
    return f"{method} ({', '.join(told)})" if told else method


def scored(records: pd.DataFrame) -> pd.DataFrame:
    """Return every score, a row each, with the columns `arm` (see `arms`) and `sparsity`."""
    named = arms(records)
    scores = named[named["kind"] == "score"]
    return scores.assign(sparsity=1 - scores["density"]).reset_index(drop=True)


def _scores(records: pd.DataFrame) -> pd.DataFrame:
    """Return the scores, `method` the arm, `finder` the plain method; refuse two experiments of one arm and seed."""
    scores = scored(records)
    scores = scores.assign(finder=scores["method"], method=scores["arm"])
    mixed = scores.groupby([*SETTING, "seed"])["experiment"].nunique()
    if (mixed > 1).any():
        scored_on, network, method, seed = mixed.idxmax()
        what = f"{mixed.max()} experiments of {method} with {network} on {scored_on}, seed {seed}"
        raise ValueError(f"the records mix {what}; choose among them first, a table takes one a seed")
    return scores


# --- accuracy ----------------------------------------------------------------------------------------------------


def at_sparsities(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return, for each run and each sparsity asked for, the score of its first round at or beyond it, if it has one.

    Adds the columns `at` (the sparsity asked for), `sparsity` (the one reached) and `finder` (the plain method);
    `method` holds the arm, see `arms`. Dense runs stand at 0 alone.

    Raises
    ------
    ValueError
        If the records mix several experiments of one data set, network, arm and seed: choose among them first.
    """
    return _at(_scores(records), records, sparsities)


def _at(scores: pd.DataFrame, records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    dense = scores["finder"] == "dense"
    rows = [scores[dense].assign(at=0.0)]
    for at in sparsities:
        first = _first_rounds(records, at)[["experiment", "round"]]
        rows.append(scores[~dense].merge(first, on=["experiment", "round"]).assign(at=at))
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
        Columns scored_on, network, method (see `arms`), at, sparsity (mean reached), accuracy (mean over seeds, in
        [0, 1]), half_width (of the 95 % t interval; NaN below three seeds), seeds, rounds, image_epochs (mean cost of
        finding), score_image_epochs (of the one training that is scored), chance (the accuracy of guessing),
        train_images (of the data set as it is at hand), experiments (the hashes behind the row).
    """
    return _accuracies(at_sparsities(records, sparsities))


def _accuracies(table: pd.DataFrame) -> pd.DataFrame:
    names = ("image_epochs", "score_image_epochs", "chance")
    return _means(table, "at", {"rounds": "round"} | {name: name for name in names if name in table})


def _means(table: pd.DataFrame, by: str, others: dict[str, str], setting: list[str] = SETTING) -> pd.DataFrame:
    """Return mean accuracy and interval over seeds by setting and `by`, and the plain means of other columns."""
    groups = table.groupby([*setting, by], sort=False)
    accuracy = groups["accuracy"]
    columns = {"sparsity": groups["sparsity"].mean(), "accuracy": accuracy.mean()}
    columns |= {"half_width": _half_width(accuracy.std(), accuracy.count()), "seeds": groups["seed"].nunique()}
    others = others | {name: name for name in ("train_images",) if name in table}
    columns |= {name: groups[column].mean() for name, column in others.items()}
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(_hashes)}).reset_index()


def _hashes(*experiments: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(name for several in experiments for name in several))


def at_rounds(records: pd.DataFrame, rounds: Iterable[int]) -> pd.DataFrame:
    """Return mean accuracy and sparsity after equal numbers of rounds, with 95 % intervals over seeds.

    Columns as in `accuracy_table`, `rounds` in place of `at`; only rounds that were scored.
    """
    scores = _scores(records)
    table = scores[scores["round"].isin(list(rounds))].assign(rounds=scores["round"]).sort_values("rounds")
    return _means(table, "rounds", {"image_epochs": "image_epochs"})


def at_costs(records: pd.DataFrame, budgets: Iterable[float], unit: str = "image_epochs") -> pd.DataFrame:
    """Return mean accuracy and sparsity of what each method has found for an equal cost of training.

    Parameters
    ----------
    records
        Rows of `load` or `study`.
    budgets
        What may be spent on finding. Of each run the last scored round counts that cost no more.
    unit
        "image_epochs", "flops" or "seconds".

    Returns
    -------
    pandas.DataFrame
        Columns as in `accuracy_table`, `budget` in place of `at`, and `spent`, the mean cost of the rounds taken.

    Raises
    ------
    ValueError
        For an unknown unit.
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; allowed: {', '.join(UNITS)}")
    scores = _scores(records).sort_values("round", kind="stable")
    affordable = [scores[scores[unit] <= budget].assign(budget=budget) for budget in budgets]
    last = [rows.drop_duplicates(["experiment", "scored_on", "seed"], keep="last") for rows in affordable]
    table = pd.concat(last) if last else scores.head(0).assign(budget=0.0)
    return _means(table, "budget", {"rounds": "round", "spent": unit})


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
    return _areas(_scores(records), low, high)


def _areas(scores: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    groups = scores.groupby(["experiment", "seed", *SETTING], sort=False)
    images = {"train_images": ("train_images", "max")} if "train_images" in scores else {}
    runs = groups.agg(places=("sparsity", list), heights=("accuracy", list), **images).reset_index()
    covers = [min(p) <= low + TINY and max(p) >= high - TINY for p in runs["places"]]
    runs = runs[np.array(covers, dtype=bool)]
    pairs = zip(runs["places"], runs["heights"], strict=True)
    means = [_mean_height(np.array(p), np.array(h), low, high) for p, h in pairs]
    runs = runs.assign(accuracy=np.array(means, dtype=float), low=low, sparsity=high)
    columns = [*SETTING, "low", "high", "accuracy", "half_width", "seeds", "train_images", "experiments"]
    return _means(runs, "low", {}).rename(columns={"sparsity": "high"}).reindex(columns=columns)


def _mean_height(sparsity: np.ndarray, accuracy: np.ndarray, low: float, high: float) -> float:
    """Return the mean of the piecewise linear curve over -log(1 - sparsity) between two sparsities."""
    order = np.argsort(sparsity)
    places, heights = -np.log1p(-sparsity[order]), accuracy[order]
    ends = -np.log1p(-np.array([low, high]))
    within = places[(places > ends[0]) & (places < ends[1])]
    at = np.array([ends[0], *within, ends[1]])
    return float(integrate.trapezoid(np.interp(at, places, heights), at) / (ends[1] - ends[0]))


def paper_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return `accuracy_table` in the paper's shape: a row a method, a column a sparsity.

    A cell is "mean ± half-width (reached)", all in percent: the accuracy, its interval, and the mean sparsity reached,
    which is beyond the one asked for by as much as the method's steps are long.
    """
    return _paper(accuracy_table(records, sparsities), sparsities)


def _paper(table: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    reached = ["" if row.at == 0 else f" ({100 * row.sparsity:.1f})" for row in table.itertuples()]
    table["cell"] = [percent(r.accuracy, r.half_width) + at for r, at in zip(table.itertuples(), reached, strict=True)]
    table["column"] = ["dense" if at == 0 else level(at) for at in table["at"]]
    order = ["dense", *(level(at) for at in sparsities)]
    wide = table.pivot_table(index=SETTING, columns="column", values="cell", aggfunc="first", sort=False)
    wide = wide.reindex(columns=[name for name in order if name in wide]).fillna("-")
    wide.insert(0, "seeds", table.groupby(SETTING, sort=False)["seeds"].max())
    if "train_images" in table:
        wide.insert(0, "training images", table.groupby(SETTING, sort=False)["train_images"].max().astype(int))
    return wide.rename_axis(columns=None).reset_index().rename(columns={"scored_on": "dataset"})


def level(sparsity: float) -> str:
    """Return a sparsity as a heading: "95% sparse", "99.1% sparse"."""
    return f"{100 * sparsity:.4g}% sparse"


def percent(mean: float, half: float = math.nan) -> str:
    """Return "41.2 ± 1.3" (percent), or "41.2" without an interval."""
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


# --- cost --------------------------------------------------------------------------------------------------------


def reach(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return what each method spends until it reaches each sparsity: rounds, image passes, FLOPs, seconds.

    Means over the seeds that reach it, each with the half-width of its 95 % t interval (`rounds_half_width`, ...);
    only methods that train round by round in order to find.
    """
    found = arms(records)
    found = found[(found["kind"] == "round") & ~found["method"].isin(AT_ONCE)].assign(method=lambda r: r["arm"])
    key = ["dataset", "network", "method", "at"]
    groups = pd.concat([_first_rounds(found, at).assign(at=at) for at in sparsities]).groupby(key, sort=False)
    columns = {}
    for name, column in ({"rounds": "round"} | {unit: unit for unit in UNITS if unit in found}).items():
        columns[name] = groups[column].mean()
        columns[f"{name}_half_width"] = _half_width(groups[column].std(), groups[column].count())
    columns |= {"seeds": groups["seed"].nunique()} | _images(groups)
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(_hashes)}).reset_index()


def _images(groups: Any) -> dict[str, Any]:
    """Return the column that says how large the data set at hand was (a fifth of TinyImageNet, say)."""
    return {"train_images": groups["train_images"].max()} if "train_images" in groups.obj else {}


def rounds_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return how many rounds, and how many training-image passes, each method takes to reach each sparsity.

    Means over seeds: the short form of `reach`.
    """
    return reach(records, sparsities)[["dataset", "network", "method", "at", "rounds", "image_epochs", "seeds"]]


def overlaps(records: pd.DataFrame) -> pd.DataFrame:
    """Return, for each arm and round, how far the partitions' masks agree beyond chance, with intervals over seeds.

    Columns dataset, network, method (the arm), round, density, jaccard, chance (within each layer), gap (the one less
    the other), half_width (of the gap), seeds, train_images, experiments. Only rounds in which several copies were
    pruned.
    """
    found = arms(records)
    found = found[found["kind"] == "round"]
    found = found[[isinstance(overlap, dict) for overlap in found["overlap"]]]
    values = {name: [float(overlap[name]) for overlap in found["overlap"]] for name in ("jaccard", "chance")}
    found = found.assign(**values, method=found["arm"]).assign(gap=lambda r: r["jaccard"] - r["chance"])
    groups = found.groupby(["dataset", "network", "method", "round"], sort=False)
    columns = {name: groups[name].mean() for name in ("density", "jaccard", "chance", "gap")}
    columns |= {
        "half_width": _half_width(groups["gap"].std(), groups["gap"].count()),
        "seeds": groups["seed"].nunique(),
        **_images(groups),
    }
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(_hashes)}).reset_index()


# --- one arm against another -------------------------------------------------------------------------------------

COMPARED = ["scored_on", "network", "at", "difference", "half_width", "low", "high", "p", "p_holm", "p_equivalence"]
COMPARED += ["equivalent", "detectable", "seeds", "sparsity", "other_sparsity", "train_images", "experiments"]


def compare(
    records: pd.DataFrame,
    method: str,
    other: str,
    sparsities: Iterable[float],
    margin: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the difference in accuracy of two arms, seed by seed, and what so many seeds can say about it.

    A run of one seed shares initialisation, head and order of images, so the difference has less noise than either.
    The dense network is compared, as it is, with the other arm at each sparsity.

    Parameters
    ----------
    records
        Rows of `load` or `study`.
    method, other
        Two arms, see `arms`; the difference is the first less the second.
    sparsities
        For each, the first round at or beyond it.
    margin
        Two arms are equivalent if their true difference is smaller, in [0, 1].
    level
        Of the intervals; 1 - level is what all tests are held to.

    Returns
    -------
    pandas.DataFrame
        A row a sparsity: scored_on, network, at, difference, half_width (t interval), low and high (bootstrap), p
        (paired t test), p_holm (the same by Holm's method over the sparsities), p_equivalence (two one-sided t tests),
        equivalent, detectable (the smallest true difference that so many seeds of this spread find with 80 % power),
        seeds, sparsity and other_sparsity (reached), train_images, experiments (the hashes). Below three seeds all but
        the difference is NaN.

    Raises
    ------
    ValueError
        If the records have no such arm.
    """
    table = at_sparsities(records, sparsities)
    for name in (method, other):
        if not (table["method"] == name).any():
            raise ValueError(f"no scores of {name!r} here; there are: {', '.join(dict.fromkeys(table['method']))}")
    return _differences(table, _pair(table, method, other), margin, level)[COMPARED]


def paired(records: pd.DataFrame, method: str, other: str, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return the difference in accuracy of two methods, seed by seed: mean and 95 % interval at each sparsity.

    `sparsity` and `other_sparsity` are those reached: equal where one method follows the other's densities. The short
    form of `compare`; empty where the records have no such arms.
    """
    named = ["scored_on", "network", "at", "difference", "half_width", "seeds", "sparsity", "other_sparsity"]
    named += ["train_images"]
    table = at_sparsities(records, sparsities)
    return _differences(table, _pair(table, method, other), 0.01, 0.95)[named]


def over_sparsities(
    records: pd.DataFrame,
    method: str,
    other: str,
    sparsities: Iterable[float],
    margin: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the mean over several sparsities of the difference in accuracy of two arms, paired by seed.

    One test in place of one a sparsity. Columns as of `compare`; `at` is the mean of the sparsities asked for, and only
    seeds count that have scores at all of them.
    """
    wanted = list(sparsities)
    table = at_sparsities(records, wanted)
    both = _side_by_side(table, _pair(table, method, other))
    cell = ["scored_on", "network"]
    whole = both.groupby([*cell, "seed"])["at"].transform("nunique") == len(set(wanted))
    values = ["difference", "sparsity", "sparsity_other", "train_images", "at"]
    means = both[whole].groupby([*cell, "seed"], sort=False)[values].mean().reset_index()
    groups = means.groupby(cell, sort=False)
    found = groups[values[1:]].mean().rename(columns={"sparsity_other": "other_sparsity"})
    found = found.assign(**_statistics(groups["difference"].agg(list).tolist(), margin, level)).reset_index()
    hashes = both[whole].groupby(cell, sort=False)[["experiment", "experiment_other"]].agg(list).values
    return found.assign(p_holm=found["p"], experiments=[_hashes(*sides) for sides in hashes])[COMPARED]


def _pair(table: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Return the two arms wherever both have scores, a row a data set and network, as `_differences` takes them."""
    cells = [table[table["method"] == name][["scored_on", "network"]].drop_duplicates() for name in (method, other)]
    return cells[0].merge(cells[1]).assign(method=method, other=other)


def _differences(table: pd.DataFrame, pairs: pd.DataFrame, margin: float, level: float) -> pd.DataFrame:
    """Carry `compare` out on a table of `at_sparsities` for many pairs (scored_on, network, method, other) at once."""
    both, cell = _side_by_side(table, pairs), ["scored_on", "network", "method", "other"]
    groups = both.groupby([*cell, "at"], sort=False)
    means = {name: groups[name].mean() for name in ("sparsity", "sparsity_other", "train_images")}
    found = pd.DataFrame(means).rename(columns={"sparsity_other": "other_sparsity"})
    found["experiments"] = [_hashes(*sides) for sides in groups[["experiment", "experiment_other"]].agg(list).values]
    found = found.assign(**_statistics(groups["difference"].agg(list).tolist(), margin, level)).reset_index()
    found["p_holm"] = found.groupby(cell, sort=False)["p"].transform(holm) if len(found) else found["p"]
    return found[["method", "other", *COMPARED]]


def _side_by_side(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of many pairs of arms, a row a seed and sparsity, with the difference of their accuracies."""
    lacking = {} if "train_images" in table else {"train_images": math.nan}
    names = [*SETTING, "finder", "at", "seed", "accuracy", "sparsity", "train_images", "experiment"]
    runs = table.assign(**lacking)[names]
    shared = ["seed", *SETTING[:2], "train_images"]
    both = pairs.merge(runs, on=SETTING)
    both = both.merge(runs.rename(columns={"method": "other"}), on=[*shared, "other"], suffixes=("", "_other"))
    dense = (both["finder"] == "dense") | (both["finder_other"] == "dense")  # stands beside every sparsity
    both = both[dense | (both["at"] == both["at_other"])]
    return both.assign(at=both[["at", "at_other"]].max(axis=1), difference=both["accuracy"] - both["accuracy_other"])


def _statistics(differences: list[list[float]], margin: float, level: float) -> dict[str, np.ndarray]:
    """Return the columns of `compare` that rest on each row's differences, one a seed."""
    counts = np.array([len(row) for row in differences], dtype=int)
    names = ("difference", "half_width", "low", "high", "p", "p_equivalence", "detectable")
    columns = {name: np.full(len(counts), math.nan) for name in names}
    for count in sorted(set(counts)):
        here = np.flatnonzero(counts == count)
        for name, values in _of_equal_counts(np.array([differences[i] for i in here]), margin, level).items():
            columns[name][here] = values
    return columns | {"equivalent": columns["p_equivalence"] < 1 - level, "seeds": counts}


def _of_equal_counts(differences: np.ndarray, margin: float, level: float) -> dict[str, np.ndarray]:
    """Return the same for an array (comparisons, seeds)."""
    count, means = differences.shape[1], differences.mean(1)
    if count < LEAST_SEEDS:
        return {"difference": means}
    spread = np.where(np.ptp(differences, axis=1) > TINY, differences.std(1, ddof=1), 0)
    error, sizes = spread / math.sqrt(count), np.abs(means)
    low, high = _bootstrap(differences, level).T
    columns = {"difference": means, "half_width": _half_width(spread, count, level), "low": low, "high": high}
    columns["p"] = np.minimum(1, 2 * _tail(sizes, error, count))
    # Of the two one-sided tests the one against the nearer margin has the larger p.
    columns["p_equivalence"] = _tail(margin - sizes, error, count)
    return columns | {"detectable": _noncentrality(count, level) * error}


def _tail(distance: np.ndarray, error: np.ndarray, count: int) -> np.ndarray:
    """Return the chance that Student's t exceeds distance / error; without any spread it is 0, 1/2 or 1."""
    certain = np.where(np.abs(distance) < TINY, 0.5, distance < 0)
    return np.where(error == 0, certain, stats.t.sf(distance / np.where(error == 0, 1, error), count - 1))


@lru_cache(maxsize=256)
def _noncentrality(count: int, level: float, power: float = 0.8) -> float:
    """Return the true difference, in standard errors, that a two-sided paired t test finds with this power."""
    bound = stats.t.ppf((1 + level) / 2, count - 1)

    def lacking(size: float) -> float:
        return float(stats.nct.sf(bound, count - 1, size) - power)

    return float(optimize.brentq(lacking, 0, 4 * bound + 4))


def seeds_needed(half_width: float, seeds: float, margin: float = 0.01, level: float = 0.95) -> float:
    """Return how many seeds a paired t test needs to find a difference of `margin` with 80 % power.

    From the half-width of the 95 % t interval that so many seeds gave, which tells the spread; NaN without one, and
    infinity beyond 10,000.
    """
    if not half_width >= 0 or not seeds >= LEAST_SEEDS:
        return math.nan
    spread = half_width * math.sqrt(seeds) / float(stats.t.ppf((1 + level) / 2, seeds - 1))
    enough = (n for n in range(2, 10_001) if _noncentrality(n, level) * spread / math.sqrt(n) <= margin)
    return next(enough, math.inf)


def holm(values: Iterable[float]) -> np.ndarray:
    """Return p values adjusted by Holm's step-down method; those that are NaN stay so and do not count."""
    p = np.array(list(values), dtype=float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    steps = p[order] * np.arange(len(order), 0, -1)
    p[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else p[order]
    return p


def decided(row: Any) -> str:
    """Return what a row of `compare` says: better, worse, equivalent, better or worse yet equivalent, undecided.

    Better and worse are held to 5 % by the p value that Holm's method has adjusted; "too few seeds" without one.
    """
    if math.isnan(row.half_width):
        return "too few seeds"
    found = [("better" if row.difference > 0 else "worse")] if row.p_holm < 0.05 else []
    return ", yet ".join([*found, *(["equivalent"] if row.equivalent else [])]) or "undecided"


def spread(difference: float, half_width: float = math.nan) -> str:
    """Return a difference in points: "-0.4 ± 1.1", or "-0.4" without an interval."""
    return f"{100 * difference:+.1f}" + ("" if math.isnan(half_width) else f" ± {100 * half_width:.1f}")


def conclusion(table: pd.DataFrame, method: str, other: str, margin: float = 0.01) -> list[str]:
    """Say in words, a sentence a sparsity, what `compare` found (`decided`), equivalent within the margin."""
    lines = []
    for row in table.itertuples():
        ending = decided(row).replace("equivalent", f"equivalent within {points(margin)}")
        if ending == "too few seeds":
            ending = "too few for a conclusion"
        elif ending == "undecided" and abs(row.difference) > row.half_width:
            ending = f"undecided after correction (p = {row.p_holm:.2f})"
        elif ending == "undecided":
            shown = f"the smallest difference that these seeds could have shown is {100 * row.detectable:.1f} points"
            ending = f"undecided; {shown}"
        found = spread(row.difference, row.half_width)
        sides = f"{_where(row)}{method} ({row.sparsity:.1%} sparse) against {other} ({row.other_sparsity:.1%})"
        lines.append(f"{sides}: {found} points over {count_seeds(row.seeds)}: {ending}")
    return lines


def count_seeds(count: int) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def points(share: float) -> str:
    """Return a share in points: "1 point", "0.5 points"."""
    return f"{100 * share:g} point" if share == 0.01 else f"{100 * share:g} points"


def verdict(difference: pd.DataFrame, method: str, other: str) -> list[str]:
    """Say in words, a sentence a sparsity, what `paired` found and whether its interval excludes zero."""
    lines = []
    for row in difference.itertuples():
        told = f"{100 * row.difference:+.1f} points"
        if math.isnan(row.half_width):
            ending = f"from {count_seeds(row.seeds)}, too few for an interval"
        else:
            clear = abs(row.difference) > row.half_width
            side = ("better" if row.difference > 0 else "worse") if clear else "no difference that these seeds can show"
            ending = f"± {100 * row.half_width:.1f} over {row.seeds} seeds: {side}"
        sides = f"{_where(row)}{method} ({row.sparsity:.1%} sparse) against {other} ({row.other_sparsity:.1%})"
        lines.append(f"{sides}: {told} {ending}")
    return lines


def sized(dataset: str, images: float) -> str:
    """Return "tinyimagenet (18,000 training images)": the number tells a part of a data set from the whole."""
    return f"{dataset} ({images:,.0f} training images)"


def _where(row: Any) -> str:
    images = getattr(row, "train_images", math.nan)
    return "" if math.isnan(images) else f"{sized(row.scored_on, images)}: "


# --- transfer ----------------------------------------------------------------------------------------------------

AGAINST = {
    "own": "the target's own ticket",
    "random": "a random mask with the same layer densities",
    "reinit": "the same mask over a re-drawn initialisation",
    "dense": "the dense network",
}


def transfers(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return mean test accuracy of every source's tickets on every target, and of the controls.

    Parameters
    ----------
    records
        Rows of `load` or `study`, of `Study.transfers()` for example.
    sparsities
        For each, the first round at or beyond it.

    Returns
    -------
    pandas.DataFrame
        Columns source, target, network, method, at, sparsity, accuracy, half_width (of the 95 % t interval), seeds,
        rounds, image_epochs and score_image_epochs (the cost of finding and of the one training that is scored),
        chance, train_images and source_images (how large the data sets at hand were), experiments. On the diagonal
        stand the targets' own tickets; dense stands there alone.
    """
    if not _any_carried(records):
        columns = [
            "source",
            "target",
            "network",
            "method",
            "at",
            "sparsity",
            "accuracy",
            "half_width",
            "seeds",
            "rounds",
        ]
        columns += ["image_epochs", "score_image_epochs", "chance", "train_images", "experiments", "source_images"]
        return pd.DataFrame(columns=columns)
    table = _carried(at_sparsities(records, sparsities))
    sizes = records[records["kind"] == "round"].groupby("dataset")["train_images"].max()
    table = table.assign(method=table["method"].str.replace(r" from .*$", "", regex=True))
    setting = ["dataset", *SETTING]
    named = (name for name in ("image_epochs", "score_image_epochs", "chance") if name in table)
    means = _means(table, "at", {"rounds": "round"} | {name: name for name in named}, setting)
    return means.assign(source_images=means["dataset"].map(sizes)).rename(
        columns={"dataset": "source", "scored_on": "target"}
    )


def _any_carried(records: pd.DataFrame) -> bool:
    """Tell whether any ticket was scored on another data set than its own."""
    return "scored_on" in records and bool(
        (records["scored_on"].notna() & (records["scored_on"] != records["dataset"])).any()
    )


def _carried(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of data sets between which tickets were carried."""
    moved = table[table["scored_on"] != table["dataset"]]
    ends = {*moved["dataset"], *moved["scored_on"]}
    return table[table["dataset"].isin(ends) & table["scored_on"].isin(ends)]


def transfer_gains(
    records: pd.DataFrame, sparsities: Iterable[float], margin: float = 0.01, level: float = 0.95
) -> pd.DataFrame:
    """Return what each source's COLT tickets are worth on each target beside the controls, paired by seed.

    Returns
    -------
    pandas.DataFrame
        Columns source, target, arm, against (see `AGAINST`) and those of `compare`; Holm's method goes over the whole
        matrix of each control. On the diagonal the target's own ticket. Rows of source and target "all" hold the mean
        over every pair of different data sets, of those seeds that have them all. Empty where no ticket was carried.
    """
    columns = ["source", "target", "arm", "against", *(c for c in COMPARED if c != "scored_on")]
    if not _any_carried(records):
        return pd.DataFrame(columns=columns)
    table = _carried(at_sparsities(records, sparsities))
    plain = table["arm"].str.replace(r" from .*$", "", regex=True)
    # Names depend on what else the records hold: arms are told apart by their settings instead.
    table = table.assign(settings=[_settings_of(row) for row in table.to_dict("records")])
    ids = [table["finder"], table["settings"], table["dataset"]]
    table = table.assign(method=ids[0].str.cat(ids[1:], sep="|"), arm=plain)
    rows = [
        row
        for ticket in table[table["finder"] == "colt"].drop_duplicates(["method", "scored_on"]).to_dict("records")
        for row in _against(ticket, table)
    ]
    named = ["scored_on", "network", "method", "other"]
    pairs = pd.DataFrame(rows, columns=[*named, "source", "arm", "against"], dtype=object)
    found = _differences(table, pairs[named], margin, level).merge(pairs, on=named)
    cell = ["network", "arm", "against"]
    off = found["source"] != found["scored_on"]
    found["p_holm"] = found[off].groupby(cell, sort=False)["p"].transform(holm)
    whole = pd.concat([found, _over_all_pairs(table, pairs, cell, margin, level)], ignore_index=True)
    return whole.rename(columns={"scored_on": "target"})[columns]


def _settings_of(row: dict[str, Any]) -> str:
    """Return what two arms of different methods must share to be compared, as text; of dense what it trains by."""
    shared = ("network_args", "recipe", "official")
    names = shared if row["finder"] == "dense" else (*shared, *SHARED, "target")
    return json.dumps([_told(row.get(name)) for name in names])


def _against(ticket: dict[str, Any], table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row for each control of one source's tickets on one target."""
    cell = table[(table["scored_on"] == ticket["scored_on"]) & (table["network"] == ticket["network"])]
    source, target = ticket["dataset"], ticket["scored_on"]
    trained = _settings_of({**ticket, "finder": "dense"})
    wanted = {kind: f"{kind}|{ticket['settings']}|{source}" for kind in ("random", "reinit")}
    wanted |= {"dense": f"dense|{trained}|{target}"}
    wanted = ({"own": f"colt|{ticket['settings']}|{target}"} if source != target else {}) | wanted
    for kind, other in wanted.items():
        if (cell["method"] == other).any():
            names = {name: ticket[name] for name in ("scored_on", "network", "method", "arm")}
            yield names | {"other": other, "source": source, "against": kind}


def _over_all_pairs(
    table: pd.DataFrame, pairs: pd.DataFrame, cell: list[str], margin: float, level: float
) -> pd.DataFrame:
    """Return the mean difference over every pair of different data sets, of those seeds that have them all."""
    runs = _side_by_side(table, pairs[pairs["source"] != pairs["scored_on"]])
    counts = runs.groupby([*cell, "at", "seed"])["difference"].transform("size")
    runs = runs[counts == counts.groupby([runs[name] for name in [*cell, "at"]]).transform("max")]
    values = ["difference", "sparsity", "sparsity_other"]
    means = runs.groupby([*cell, "at", "seed"], sort=False)[values].mean().reset_index()
    groups = means.groupby([*cell, "at"], sort=False)
    found = groups[["sparsity", "sparsity_other"]].mean().rename(columns={"sparsity_other": "other_sparsity"})
    found = found.assign(**_statistics(groups["difference"].agg(list).tolist(), margin, level)).reset_index()
    found = found.assign(scored_on="all", source="all", train_images=math.nan, experiments="")
    found["p_holm"] = found.groupby(["network", "arm"], sort=False)["p"].transform(holm)
    return found


def transfer_conclusion(gains: pd.DataFrame, margin: float = 0.01) -> list[str]:
    """Say in words what `transfer_gains` found, a sentence a pair, control and sparsity; first over all pairs."""
    lines, named = [], gains.assign(scored_on=gains["target"])
    for against, rows in named[named["source"] == "all"].groupby("against", sort=False):
        lines += conclusion(rows, "mean over all pairs, the source's ticket", AGAINST[str(against)], margin)
    for (source, target, against), rows in named.groupby(["source", "target", "against"], sort=False):
        if source != target:
            lines += conclusion(rows, f"ticket of {source}", AGAINST[str(against)], margin)
    return lines


# --- everything in a store ---------------------------------------------------------------------------------------


def tables(
    store: Place = None,
    records: pd.DataFrame | None = None,
    out: str | Path | None = None,
    sparsities: Iterable[float] = LEVELS,
    margin: float = 0.01,
) -> dict[str, pd.DataFrame]:
    """Return every table that a store has the records for; with `out`, save each there under its name.

    Experiments of different recipes or network arguments never meet in a mean or a difference.

    Returns
    -------
    dict
        "accuracy-<recipe>": `paper_table`; "reach"; "compare": COLT and consensus against the controls; "area": over
        the sparsities that all runs of a cell cover; "transfer": source (rows) by target (columns). Those without
        rows are left out.
    """
    records = (load(store) if records is None else records).drop(columns=list(BULKY), errors="ignore")
    lacking = {name: "{}" for name in ("recipe", "network_args") if name not in records}
    pieces: dict[str, list[pd.DataFrame]] = {}
    if len(records):
        keys = ["recipe", "network_args"]
        for (recipe, arguments), group in records.assign(**lacking).groupby(keys, sort=False):
            about = {"recipe": _recipe_name(str(recipe)), "network_args": arguments}
            for name, table in _tables(group, list(sparsities), margin):
                table = pd.DataFrame(about, index=table.index).join(table)
                pieces.setdefault(f"accuracy-{about['recipe']}" if name == "accuracy" else name, []).append(table)
    found = {name: pd.concat(several, ignore_index=True) for name, several in sorted(pieces.items())}
    for name, table in found.items() if out else ():
        save(table, str(out), name)
    return found


@lru_cache(maxsize=256)
def _recipe_name(text: str) -> str:
    """Return a ready recipe's name, else a short hash of the recipe."""
    ready = {json.dumps(recipe.model_dump(mode="json"), sort_keys=True): name for name, recipe in RECIPES.items()}
    return ready.get(text) or f"recipe-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _tables(records: pd.DataFrame, sparsities: list[float], margin: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield names and tables of records of one recipe and network."""
    if len(spent := reach(records, sparsities)):
        yield "reach", spent
    scores = _scores(records)
    table = _at(scores, records, sparsities)
    if len(table):
        yield "accuracy", _paper(_accuracies(table), sparsities)
    if len(compared := _differences(table, _controls(table), margin, 0.95)):
        yield "compare", compared
    if len(areas := _all_areas(scores)):
        yield "area", areas
    if (table["scored_on"] != table["dataset"]).any():
        yield "transfer", _transfer(table)


def _controls(table: pd.DataFrame) -> pd.DataFrame:
    """Pair each arm of COLT and consensus with the control of each kind that is most alike."""
    rows = []
    for (scored_on, network), cell in table.groupby(["scored_on", "network"], sort=False):
        one = cell.drop_duplicates("method").to_dict("records")
        for mine in (row for row in one if row["finder"] in ("colt", "consensus")):
            for kind in ("colt", "matched", "imp", "random", "union", "dense"):
                if kind != mine["finder"] and (other := _control(mine, [r for r in one if r["finder"] == kind])):
                    rows.append((scored_on, network, mine["method"], other))
    return pd.DataFrame(rows, columns=["scored_on", "network", "method", "other"], dtype=object)


def _told(value: Any) -> str:
    """Return a setting as text; one that a record does not have is as if it were not set."""
    return "" if value is None or value != value else str(value)


def _control(mine: dict[str, Any], others: list[dict[str, Any]]) -> str | None:
    """Return the arm of one kind that shares most settings; one that follows COLT must share all of COLT's."""

    def alike(row: dict[str, Any]) -> int:
        return sum(_told(mine.get(name)) == _told(row.get(name)) for name in SHARED)

    places = {mine["dataset"], mine["scored_on"]}
    others = [
        r for r in others if r["dataset"] == mine["dataset"] or (r["finder"] == "dense" and r["dataset"] in places)
    ]
    same = [row for row in others if _told(row.get("official")) == _told(mine.get("official"))]
    others = same if others and others[0]["finder"] == "dense" and same else others
    fitting = [row for row in others if row["finder"] in ("imp", "dense") or alike(row) == len(SHARED)]
    return str(max(fitting, key=alike)["method"]) if fitting else None


def _all_areas(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `area` for each data set and network, over the sparsities that all runs with two scores or more cover."""
    parts = []
    for _, cell in scores.groupby(["scored_on", "network"], sort=False):
        ends = cell.groupby(["experiment", "seed"])["sparsity"].agg(["min", "max", "size"])
        low, high = ends[ends["size"] > 1]["min"].max(), ends[ends["size"] > 1]["max"].min()
        if low < high < 1:
            parts.append(_areas(cell, low, high))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _transfer(table: pd.DataFrame) -> pd.DataFrame:
    """Return source by target: "mean ± half-width" in percent of every arm and sparsity; on the diagonal its own."""
    table = _carried(table)
    table = table.assign(method=table["arm"].str.replace(r" from .*$", "", regex=True))
    key = ["network", "method", "at", "dataset", "scored_on"]
    cells = table.groupby(key, sort=False)["accuracy"].agg(lambda values: percent(*interval(values)))
    wide = cells.unstack().fillna("-")
    return wide.rename_axis(columns=None).reset_index().rename(columns={"dataset": "source"})


def save(table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, each whole or not at all; return the paths."""
    forms = {
        "csv": table.to_csv(index=False),
        "md": table.to_markdown(index=False) + "\n",
        "tex": table.to_latex(index=False, escape=True),
    }
    return [write_text(Path(folder) / f"{name}.{ending}", text) for ending, text in forms.items()]
