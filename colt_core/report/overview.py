"""What a store holds, ready to be looked at: runs once each, arms by short names, seeds collapsed, verdicts."""

import json
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..models import in_words
from ..studies.experiment import SETTINGS
from .accuracy import scores_at
from .arms import arms
from .compare import differences, pairs_of, with_verdicts
from .records import left, metric_of, score_values
from .statistics import TINY, interval
from .tables import LEVELS
from .words import ACCURACY

PLACE = ["scored_on", "net", "arm"]
COLLAPSED = [*PLACE, "method", "step", "density", "sparsity", "half_width", "seeds", "chance", "train_images"]
COLLAPSED += ["experiment", "round"]


def overview(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores, and the rounds, a row each, with the columns that filters and pictures need.

    Adds `net` (the network with its settings), `arm` (see `arms`, with short names), `sparsity`; `scored_on` of rounds
    is that of their run's scores. A run whose target was raised later is there once.
    """
    if not len(records):
        return pd.DataFrame(), pd.DataFrame()
    told = zip(records["network"], records["network_args"], strict=True)
    records = _once(records.assign(net=[in_words(name, json.loads(given or "{}")) for name, given in told]))
    named = pd.concat([arms(group, short=True) for _, group in records.groupby("net", sort=False)])
    named = named.assign(sparsity=1 - left(named)) if "density" in named else named
    scores, rounds = (named[named["kind"] == kind] for kind in ("score", "round"))
    where = scores.drop_duplicates("experiment").set_index("experiment")["scored_on"].astype(object)
    rounds = rounds.assign(scored_on=rounds["experiment"].map(where).astype(object).fillna(rounds["dataset"]))
    return scores.reset_index(drop=True), rounds.reset_index(drop=True)


def _once(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records with runs that differ in their target alone, and agree as far as both go, made one."""
    if "target" not in records:
        return records
    about = [name for name in SETTINGS if name in records and name != "target"]
    runs = records[["experiment", "target", *about]].astype(dict.fromkeys(about, str)).drop_duplicates("experiment")
    rounds = records[records["kind"] == "round"]
    by_run = rounds.groupby("experiment")
    found = {name: dict(zip(rows["round"], rows["density"], strict=True)) for name, rows in by_run}
    one: dict[str, str] = {}
    for _, group in runs.groupby(about, sort=False):
        names = sorted(group["experiment"], key=lambda name: len(found.get(name, {})))
        longest = names[-1]
        far = found.get(longest, {})
        one |= {name: longest for name in names[:-1] if found.get(name, {}).items() <= far.items()}
    if not one:
        return records
    targets = runs.set_index("experiment")["target"]
    merged = records["experiment"].map(lambda name: one.get(name, name))
    records = records.assign(experiment=merged, target=merged.map(targets), _own=merged == records["experiment"])
    keys = ["experiment", "kind", "round", *(name for name in ("scored_on", "scored_by") if name in records)]
    kept = records.sort_values("_own", ascending=False, kind="stable").drop_duplicates(keys)
    return kept.sort_index().drop(columns="_own")


def collapsed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with seeds collapsed, a row an arm and density; `scores` is of `overview`.

    Columns scored_on, net, arm, method, step, density (geometric mean; of channels cut whole what is left of the
    weights), sparsity, the metric (mean), half_width (of the 95 % t interval; NaN below three seeds), seeds, chance,
    train_images; experiment and round of the score that lies nearest to the mean. The scores of runs meet by their
    order where all have as many, else by their round, and only where the most seeds of the arm do.
    """
    metric, better = metric_of(scores)
    scores = scores.assign(**{metric: score_values(scores)})
    scores = scores[scores[metric].notna()]
    lacking = {name: math.nan for name in ("chance", "train_images") if name not in scores}
    scores = scores.assign(**lacking, density=left(scores))
    rows, about = [], {"metric": metric, "higher_is_better": better}
    for place, group in scores.groupby(PLACE, sort=False):
        runs = group.groupby("experiment")
        ranks = runs["density"].rank(method="first", ascending=False)
        step = ranks if runs.size().nunique() == 1 else group["round"]
        seeds = group.groupby(step)["seed"].transform("nunique")  # a mean of fewer would bend the line by who is in it
        for number, some in group[seeds == seeds.max()].groupby(step):
            mean, half = interval(some[metric])
            nearest = some.loc[(some[metric] - mean).abs().idxmin()]
            density = float(np.exp(np.log(some["density"]).mean()))
            told = [some["method"].iloc[0], int(number), density, 1 - density, half, some["seed"].nunique()]
            told += [some["chance"].iloc[0], some["train_images"].mean(), nearest["experiment"], int(nearest["round"])]
            rows.append(dict(zip(COLLAPSED, (*place, *told), strict=True)) | {metric: mean} | about)
    named = [metric, *about] if metric != ACCURACY else [metric]  # accuracy where none is named
    return pd.DataFrame(rows, columns=[*COLLAPSED, *named])


def beside(scores: pd.DataFrame, rounds: pd.DataFrame, arm: str, margin: float = 0.01) -> pd.DataFrame:
    """Return what `compare` says of one arm minus each other at the sparsities where most can be held against it.

    Parameters
    ----------
    scores, rounds
        Of `overview`, on one data set and of one network.
    arm
        The arm that the others are held against.

    Returns
    -------
    pandas.DataFrame
        As `against`, with `verdict`. Without rows where nothing can be compared.
    """
    metric, _ = metric_of(scores)
    table = scores.assign(finder=scores["method"], method=scores["arm"], network=scores["net"])
    table = table.assign(**{metric: score_values(table)})
    table = table[table[metric].notna()].drop_duplicates(["arm", "seed", "round", "scored_on"])
    levels = _levels(table, rounds, arm)
    others = [name for name in dict.fromkeys(table["method"]) if name != arm]
    at = scores_at(table, rounds, levels)
    return with_verdicts(differences(at, pairs_of(at, arm, others), margin, 0.95, table))


def _levels(scores: pd.DataFrame, rounds: pd.DataFrame, arm: str) -> list[float]:
    """Return for each score of an arm the sparsity at which the most runs have one, too: their next round on."""
    scored = set(zip(scores["experiment"], scores["round"], strict=True))
    runs = []
    for name, rows in rounds[rounds["experiment"].isin(set(scores["experiment"]))].groupby("experiment"):
        rows = rows.sort_values("round")
        runs.append((name, rows["round"].to_numpy(), np.maximum.accumulate(rows["sparsity"].to_numpy(dtype=float))))
    mine = set(scores.loc[scores["arm"] == arm, "experiment"])
    best: dict[frozenset[tuple[str, int]], tuple[int, bool, float]] = {}
    for level in sorted({*(n / 100 for n in range(5, 100)), *LEVELS, 0.991}):
        hits = {}
        for name, numbers, sparsities in runs:
            first = int(np.searchsorted(sparsities, level - TINY))
            if first < len(numbers) and (name, numbers[first]) in scored:
                hits[name] = int(numbers[first])
        own = frozenset((name, hits[name]) for name in mine if name in hits)
        if own:
            found = (len(hits), level in LEVELS, level)
            best[own] = max(best.get(own, found), found)
    whole = [found for own, found in best.items() if not any(own < other for other in best)]
    return _apart(sorted(level for _, _, level in whole))


def _apart(levels: Iterable[float]) -> list[float]:
    """Return the levels, at most six of them: as many comparisons as a reader takes in."""
    several = list(levels)
    step = max(1, math.ceil(len(several) / 6))
    return several[::-1][::step][::-1]
