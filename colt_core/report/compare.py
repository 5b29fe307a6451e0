"""One arm against another, paired by seed: the difference, what so many seeds can say about it, and the verdict."""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from .accuracy import at_sparsities, mean_height, scores_at
from .arms import SETTING, hashes, scores_by_arm
from .records import distinct, marked, metric_of
from .statistics import TINY, half_width, holm, paired_tests
from .words import ACCURACY, count_seeds, points, sized, spread, unit

COMPARED = ["scored_on", "network", "at", "difference", "half_width", "low", "high", "p", "p_holm", "p_equivalence"]
COMPARED += ["equivalent", "half_pooled", "detectable", "detectable_low", "detectable_high"]
COMPARED += ["seeds", "sparsity", "other_sparsity", "train_images", "experiments"]
PAIR = ["scored_on", "network", "method", "other"]
CELL = ["scored_on", "network"]
Margin: TypeAlias = float | pd.DataFrame  # one for all, or `half_gains`: a row a data set, network and seed
MARKS = ["metric", "higher_is_better"]  # further columns, where the metric is not accuracy


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
        Two arms, see `arms`; the difference is the first minus the second.
    sparsities
        For each, the first round at or beyond it. They are one family of tests: ask for all that the study looks at.
    margin
        Two arms are equivalent if their true difference is smaller; of accuracy in [0, 1].
    level
        Of the intervals; 1 - level is what all tests are held to.

    Returns
    -------
    pandas.DataFrame
        A row a sparsity: scored_on, network, at, difference, half_width (t interval), low and high (bootstrap; NaN
        below six seeds), p (paired t test), p_holm (the same by Holm's method over the sparsities), p_equivalence (two
        one-sided t tests), equivalent, half_pooled (as half_width, but with the spread of all comparisons of this
        sparsity in one, as if they were independent: it decides nothing), detectable (the smallest true difference that
        so many seeds of this spread find with 80 % power), detectable_low and detectable_high (its own interval, for
        the spread is an estimate), seeds, sparsity and other_sparsity (reached, or those at which the scores stand),
        train_images, experiments (the hashes); of another metric than accuracy also metric and higher_is_better. Below
        three seeds all but the difference is NaN. Where two runs reach unlike sparsities, the less sparse one's score
        is interpolated, linearly in log density, at the other's, if it was scored further on.

    Raises
    ------
    ValueError
        If the records have no such arm.
    """
    table, scores = _scores_at(records, sparsities)
    _check_arms(table, method, other)
    pairs = pairs_of(table, method, [other])
    return differences(table, pairs, margin, level, scores).drop(columns=["method", "other"])


def against(
    records: pd.DataFrame,
    method: str,
    others: Iterable[str],
    sparsities: Iterable[float],
    margin: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return `compare` of one arm with each of several that the records have; `method`, `other` and `verdict` last.

    Raises
    ------
    ValueError
        If the records have no such arm, or none of the others.
    """
    last = ["method", "other", "verdict"]
    table, scores = _scores_at(records, sparsities)
    there, named = set(table["method"]), list(others)
    found = [other for other in named if other in there]
    _check_arms(table, method, *(found or named))
    compared = with_verdicts(differences(table, pairs_of(table, method, found), margin, level, scores))
    return compared[[*(name for name in compared if name not in last), *last]]


def _scores_at(records: pd.DataFrame, sparsities: Iterable[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `at_sparsities`, and all scores, between which is interpolated."""
    records = distinct(records)
    scores = scores_by_arm(records)
    return scores_at(scores, records, sparsities), scores


def _check_arms(table: pd.DataFrame, *names: str) -> None:
    for name in names:
        if not (table["method"] == name).any():
            raise ValueError(f"no scores of {name!r} here; there are: {', '.join(dict.fromkeys(table['method']))}")


def over_sparsities(
    records: pd.DataFrame,
    method: str,
    other: str,
    sparsities: Iterable[float],
    margin: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the difference in accuracy of two arms over several sparsities, paired by seed: one test, not one a level.

    It is that of their mean heights over log density, from the first to the last sparsity that both were scored at;
    of a single one, or where they share no range, the mean of the differences. Columns as of `compare`; `at` is the
    mean of the sparsities asked for, and only seeds count that have scores at all of them.
    """
    wanted = list(sparsities)
    table = at_sparsities(records, wanted)
    found = mean_differences(table, pairs_of(table, method, [other]), wanted, margin, level)
    return found.drop(columns=["method", "other"])


def pairs_of(table: pd.DataFrame, method: str, others: Iterable[str]) -> pd.DataFrame:
    """Return an arm with each of some others wherever both have scores, as `differences` takes them."""
    cells = {name: rows[["scored_on", "network"]].drop_duplicates() for name, rows in table.groupby("method")}
    nowhere = table.head(0)[["scored_on", "network"]]
    mine = cells.get(method, nowhere)
    found = [mine.merge(cells.get(other, nowhere)).assign(method=method, other=other) for other in others]
    return pd.concat(found, ignore_index=True)


def differences(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    margin: Margin = 0.01,
    level: float = 0.95,
    scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Carry `compare` out on a table of `at_sparsities` for many pairs (scored_on, network, method, other) at once.

    `scores` are those between which is interpolated; None: the table's. Where the margin is `half_gains`, a last column
    has its mean.
    """
    both = with_margin(at_equal_density(side_by_side(table, pairs), table if scores is None else scores), margin)
    groups = both.groupby([*PAIR, "at"], sort=False)
    columns = {name: groups[name].mean() for name in ("sparsity", "sparsity_other", "train_images")}
    found = pd.DataFrame(columns).rename(columns={"sparsity_other": "other_sparsity"})
    found["experiments"] = [hashes(*sides) for sides in groups[["experiment", "experiment_other"]].agg(list).values]
    found = tested(found, groups, margin, level)
    found["p_holm"] = found.groupby(PAIR, sort=False)["p"].transform(holm) if len(found) else found["p"]
    found["half_pooled"] = pooled(found, level)
    return marked(found[_columns(margin)], *metric_of(table))


def mean_differences(
    table: pd.DataFrame, pairs: pd.DataFrame, sparsities: Iterable[float], margin: Margin = 0.01, level: float = 0.95
) -> pd.DataFrame:
    """Carry `over_sparsities` out, as `differences` does `compare`."""
    both, by_seed = _over_sparsities(table, pairs, sparsities)
    groups = with_margin(by_seed, margin).groupby(PAIR, sort=False)
    values = ["sparsity", "sparsity_other", "train_images", "at"]
    found = groups[values].mean().rename(columns={"sparsity_other": "other_sparsity"})
    found = tested(found, groups, margin, level)
    behind = both.groupby(PAIR, sort=False)[["experiment", "experiment_other"]].agg(list).values
    found = found.assign(p_holm=found["p"], experiments=[hashes(*sides) for sides in behind])
    found["half_pooled"] = pooled(found, level)
    return marked(found[_columns(margin)], *metric_of(table))


def _over_sparsities(
    table: pd.DataFrame, pairs: pd.DataFrame, sparsities: Iterable[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return pairs of runs that were scored at all sparsities, and their differences over them, a row a seed."""
    both = side_by_side(table, pairs)
    both = both[both.groupby([*PAIR, "seed"])["at"].transform("nunique") == len(set(sparsities))]
    runs = both.groupby([*PAIR, "seed"], sort=False)
    by_seed = runs[["difference", "sparsity", "sparsity_other", "train_images", "at"]].mean()
    by_seed["difference"] = [_over_density(rows, metric_of(table)[0]) for _, rows in runs]
    return both, by_seed.reset_index()


# --- the margin of equivalence -----------------------------------------------------------------------------------


def half_gains(table: pd.DataFrame, sparsities: Iterable[float] | None = None) -> pd.DataFrame:
    """Return half of what IMP at COLT's rate gains over a random mask: a margin within which arms count as equivalent.

    Parameters
    ----------
    table
        Of `at_sparsities`, with the arms matched and random.
    sparsities
        Over all of these, as `over_sparsities`; None: at each.

    Returns
    -------
    pandas.DataFrame
        Columns scored_on, network, seed and margin, and where it is told at each sparsity, at.
    """
    pairs = pairs_of(table, "matched", ["random"])
    if sparsities is None:
        runs, places = at_equal_density(side_by_side(table, pairs), table), [*CELL, "at", "seed"]
    else:
        runs, places = _over_sparsities(table, pairs, sparsities)[1], [*CELL, "seed"]
    return runs.assign(margin=runs["difference"] / 2)[[*places, "margin"]]


def with_margin(runs: pd.DataFrame, margin: Margin) -> pd.DataFrame:
    """Return pairs of runs with the margin of their data set, network and seed; NaN where that is not known."""
    if isinstance(margin, float | int):
        return runs
    return runs.merge(margin, on=[name for name in margin if name != "margin"], how="left")


def tested(found: pd.DataFrame, groups: Any, margin: Margin, level: float) -> pd.DataFrame:
    """Return a table with `paired_tests` of its groups of runs; with the margin's mean, where each seed has its own."""
    differences = groups["difference"].agg(list).tolist()
    if isinstance(margin, float | int):
        return found.assign(**paired_tests(differences, margin, level)).reset_index()
    bounds = groups["margin"].agg(list).tolist()
    return found.assign(**paired_tests(differences, bounds, level), margin=groups["margin"].mean()).reset_index()


def _columns(margin: Margin) -> list[str]:
    return ["method", "other", *COMPARED, *(() if isinstance(margin, float | int) else ("margin",))]


def side_by_side(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of many pairs of arms, a row a seed and sparsity, with the difference of their scores."""
    metric, _ = metric_of(table)
    lacking = {} if "train_images" in table else {"train_images": math.nan}
    names = [*SETTING, "finder", "at", "seed", metric, "sparsity", "train_images", "experiment"]
    runs = table.assign(**lacking)[names]
    shared = ["seed", *SETTING[:2], "train_images"]
    both = pairs.merge(runs, on=SETTING)
    both = both.merge(runs.rename(columns={"method": "other"}), on=[*shared, "other"], suffixes=("", "_other"))
    dense = (both["finder"] == "dense") | (both["finder_other"] == "dense")  # stands beside every sparsity
    both = both[dense | (both["at"] == both["at_other"])]
    difference = both[metric] - both[f"{metric}_other"]
    return both.assign(at=both[["at", "at_other"]].max(axis=1), difference=difference)


def _over_density(rows: pd.DataFrame, metric: str) -> float:
    """Return the difference of two runs: of their mean heights over log density, where both were scored.

    At sparsities that they share it is the area between them over its width; of two such the mean of both differences.
    """
    sides = [
        (rows[s].to_numpy(), rows[m].to_numpy())
        for s, m in (("sparsity", metric), ("sparsity_other", f"{metric}_other"))
    ]
    curves = [places for places, _ in sides if places.any()]  # dense stands beside every sparsity
    low, high = max(min(places) for places in curves), min(max(places) for places in curves)
    if not low < high - TINY:
        return float(rows["difference"].mean())
    one, two = (mean_height(*side, low, high) if side[0].any() else float(side[1].mean()) for side in sides)
    return one - two


def at_equal_density(both: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of runs with scores at one density each, interpolated where their rounds do not meet.

    A run's scores by one way of scoring are a curve: another way's, under a teacher for example, are another arm.
    """
    metric, _ = metric_of(table)
    curves = {key: _curve(rows, metric) for key, rows in table.groupby(["experiment", "method", "scored_on", "seed"])}
    rows = both.to_dict("records")
    for row in rows:
        less, more = ("", "_other") if row["sparsity"] <= row["sparsity_other"] else ("_other", "")
        low, high = row[f"sparsity{less}"], row[f"sparsity{more}"]
        arm = row["other" if less else "method"]
        places, scores = curves[row[f"experiment{less}"], arm, row["scored_on"], row["seed"]]
        met = not 0 < low < high - TINY or high >= 1  # of a network of which nothing is left there is no log density
        if not met and len(places) and (wanted := -math.log1p(-high)) <= places[-1]:
            row[f"{metric}{less}"], row[f"sparsity{less}"] = float(np.interp(wanted, places, scores)), high
            row["difference"] = row[metric] - row[f"{metric}_other"]
    return pd.DataFrame(rows, columns=both.columns)


def _curve(rows: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a run's scores over minus log density, each place once."""
    rows = rows[rows["sparsity"] < 1]
    places, first = np.unique(-np.log1p(-rows["sparsity"].to_numpy(dtype=float)), return_index=True)
    return places, rows[metric].to_numpy(dtype=float)[first]


def pooled(found: pd.DataFrame, level: float) -> np.ndarray:
    """Return the half-width of each comparison with the spread that all of one network, data and sparsity have."""
    counts, halves = found["seeds"].to_numpy(dtype=float), found["half_width"].to_numpy(dtype=float)
    free = np.where(np.isnan(halves), 0, counts - 1)
    unit = half_width(1.0, counts, level)  # of a standard deviation of one
    squares = np.where(free > 0, free * (halves / np.where(free > 0, unit, 1)) ** 2, 0)
    groups = [found[name] for name in (*SETTING[:2], "at")]
    freedom = pd.Series(free, found.index).groupby(groups).transform("sum").to_numpy()
    spread = np.sqrt(
        pd.Series(squares, found.index).groupby(groups).transform("sum").to_numpy() / np.maximum(freedom, 1)
    )
    bound = stats.t.ppf((1 + level) / 2, np.maximum(freedom, 1))
    return np.where(free > 0, bound * spread / np.sqrt(np.maximum(counts, 1)), math.nan)


# --- what a row says ---------------------------------------------------------------------------------------------


def verdict(row: Any) -> str:
    """Return what a row of `compare` says: better, worse, equivalent, better or worse yet equivalent, undecided.

    Better and worse are held to 5 % by the p value that Holm's method has adjusted, and mean the metric's own
    direction; "too few seeds" without an interval. Every table, notebook and sentence says what this says.
    """
    if math.isnan(row.half_width):
        return "too few seeds"
    lower_is_better = getattr(row, "higher_is_better", True) == 0  # beside rows of accuracy it may be NaN
    found = []
    if row.p_holm < 0.05:
        found.append("better" if (row.difference > 0) != lower_is_better else "worse")
    if row.equivalent:
        found.append("equivalent")
    return ", yet ".join(found) or "undecided"


def with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of differences with a column `verdict`."""
    return table.assign(verdict=[verdict(row) for row in table.itertuples()])


def conclusion(table: pd.DataFrame, method: str, other: str, margin: float = 0.01) -> list[str]:
    """Say in words, a sentence a sparsity, what `compare` found (`verdict`), equivalent within the margin."""
    lines = []
    for row in table.itertuples():
        metric = _metric(row)
        found = f"{spread(row.difference, row.half_width, metric)} {unit(metric)} over {count_seeds(row.seeds)}"
        sides = f"{_where(row)}{method} ({row.sparsity:.1%} sparse) against {other} ({row.other_sparsity:.1%})"
        lines.append(f"{sides}: {found}: {_ending(row, metric, margin)}")
    return lines


def _ending(row: Any, metric: str, margin: float) -> str:
    """Return the verdict of a row with what a reader needs beside it."""
    found = verdict(row)
    if found == "too few seeds":
        return "too few for a conclusion"
    if found != "undecided":
        within = getattr(row, "margin", margin)
        return found.replace("equivalent", f"equivalent within {points(round(within, 4), metric)}")
    if abs(row.difference) > row.half_width:
        return f"undecided after correction (p = {row.p_holm:.2f})"
    shown = f"{100 * row.detectable:.1f}" if metric == ACCURACY else f"{row.detectable:.2g}"
    return f"undecided; the smallest difference that these seeds could have shown is {shown} {unit(metric)}"


def _metric(row: Any) -> str:
    metric = getattr(row, "metric", ACCURACY)
    return metric if isinstance(metric, str) else ACCURACY


def _where(row: Any) -> str:
    images = getattr(row, "train_images", math.nan)
    return "" if math.isnan(images) else f"{sized(row.scored_on, images)}: "
