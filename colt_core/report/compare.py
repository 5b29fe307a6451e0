"""One arm against another, paired by seed: the difference, what so many seeds can say about it, and the verdict."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from .accuracy import at_sparsities
from .arms import SETTING, hashes
from .records import marked, metric_of
from .statistics import holm, paired_tests
from .words import ACCURACY, count_seeds, points, sized, spread, unit

COMPARED = ["scored_on", "network", "at", "difference", "half_width", "low", "high", "p", "p_holm", "p_equivalence"]
COMPARED += ["equivalent", "detectable", "seeds", "sparsity", "other_sparsity", "train_images", "experiments"]
PAIR = ["scored_on", "network", "method", "other"]
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
        one-sided t tests), equivalent, detectable (the smallest true difference that so many seeds of this spread find
        with 80 % power), seeds, sparsity and other_sparsity (reached), train_images, experiments (the hashes); of
        another metric than accuracy also metric and higher_is_better. Below three seeds all but the difference is NaN.

    Raises
    ------
    ValueError
        If the records have no such arm.
    """
    table = at_sparsities(records, sparsities)
    _check_arms(table, method, other)
    return differences(table, pairs_of(table, method, [other]), margin, level).drop(columns=["method", "other"])


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
    table = at_sparsities(records, sparsities)
    there, named = set(table["method"]), list(others)
    found = [other for other in named if other in there]
    _check_arms(table, method, *(found or named))
    compared = with_verdicts(differences(table, pairs_of(table, method, found), margin, level))
    return compared[[*(name for name in compared if name not in last), *last]]


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
    """Return the mean over several sparsities of the difference in accuracy of two arms, paired by seed.

    One test in place of one a sparsity. Columns as of `compare`; `at` is the mean of the sparsities asked for, and only
    seeds count that have scores at all of them.
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


def differences(table: pd.DataFrame, pairs: pd.DataFrame, margin: float = 0.01, level: float = 0.95) -> pd.DataFrame:
    """Carry `compare` out on a table of `at_sparsities` for many pairs (scored_on, network, method, other) at once."""
    both = side_by_side(table, pairs)
    groups = both.groupby([*PAIR, "at"], sort=False)
    columns = {name: groups[name].mean() for name in ("sparsity", "sparsity_other", "train_images")}
    found = pd.DataFrame(columns).rename(columns={"sparsity_other": "other_sparsity"})
    found["experiments"] = [hashes(*sides) for sides in groups[["experiment", "experiment_other"]].agg(list).values]
    found = found.assign(**paired_tests(groups["difference"].agg(list).tolist(), margin, level)).reset_index()
    found["p_holm"] = found.groupby(PAIR, sort=False)["p"].transform(holm) if len(found) else found["p"]
    return marked(found[["method", "other", *COMPARED]], *metric_of(table))


def mean_differences(
    table: pd.DataFrame, pairs: pd.DataFrame, sparsities: Iterable[float], margin: float = 0.01, level: float = 0.95
) -> pd.DataFrame:
    """Carry `over_sparsities` out, as `differences` does `compare`."""
    both = side_by_side(table, pairs)
    both = both[both.groupby([*PAIR, "seed"])["at"].transform("nunique") == len(set(sparsities))]
    values = ["difference", "sparsity", "sparsity_other", "train_images", "at"]
    by_seed = both.groupby([*PAIR, "seed"], sort=False)[values].mean().reset_index()
    groups = by_seed.groupby(PAIR, sort=False)
    found = groups[values[1:]].mean().rename(columns={"sparsity_other": "other_sparsity"})
    found = found.assign(**paired_tests(groups["difference"].agg(list).tolist(), margin, level)).reset_index()
    behind = both.groupby(PAIR, sort=False)[["experiment", "experiment_other"]].agg(list).values
    found = found.assign(p_holm=found["p"], experiments=[hashes(*sides) for sides in behind])
    return marked(found[["method", "other", *COMPARED]], *metric_of(table))


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
        return found.replace("equivalent", f"equivalent within {points(margin, metric)}")
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
