"""What share of IMP's gain over a random mask a method recovers; the way from random to dense; and in which regime."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import masks, models
from ..models.build import skeleton
from ..training import Recipe
from .accuracy import at_sparsities
from .arms import SETTING, arms, called_by, hashes
from .questions import answered
from .records import distinct, load, marked, metric_of, metrics
from .statistics import TINY, fieller, interval
from .transfer import SHARED, told
from .words import ACCURACY, count_seeds

FULL = 0.005  # of accuracy: where IMP gains less than half a point over random, a share of it says nothing
LADDER = ("random", "colt", "consensus", "matched", "dense")
# What an arm and its controls have in common, whatever they go by.
FIXED = ["dataset", "scored_by", "densities", "recipe", "network_args", "scope", "rewind", "early_bird", "official"]
FIXED += ["objective"]
HEADS = ("own head", "fresh head")  # scored as found but for the head
GAINS = ["scored_on", "network", "method", "finder", "seed", "score", "gain", "full", "share", "matched", "random"]
GAINS += ["sparsities", "train_images", "experiment"]
EXTRA = ("options", "finding")  # a control with settings of its own is a further arm, not the control


def gains(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return, for each arm and seed, its gain over the random mask and IMP's at the same densities: more is better.

    All are means over the sparsities of runs that have a score at each. An arm is held against the `matched` and the
    `random` runs of its settings; where an experiment's densities are named, against those at the same densities,
    however they are split. Arms that the records have no such runs for are left out. One scored with a head of its own
    is held against controls with the usual head where there are none with its own: the head is part of what it is.

    Returns
    -------
    pandas.DataFrame
        Columns scored_on, network, method (the arm), finder, seed, score, gain (arm minus random), full (matched minus
        random), share (gain / full; NaN where `full` is under half a point of accuracy, or not above 0 of another
        metric), matched and random (the arms), sparsities, train_images, experiment; of another metric its name too.
    """
    levels = list(dict.fromkeys(sparsities))
    table = at_sparsities(records, levels)
    metric, higher = metric_of(table)
    table = table[table["finder"] != "dense"].assign(value=lambda rows: rows[metric] * (1 if higher else -1))
    rows: list[dict[str, Any]] = []
    for (scored_on, network), cell in table.groupby(SETTING[:2], sort=False):
        runs = cell.groupby(["method", "seed"])["value"].agg(["mean", "count"])
        means = runs["mean"].where(runs["count"] == len(levels)).unstack("method")
        several = cell.drop_duplicates("method").to_dict("records")
        for mine in several:
            full, low = (_control(mine, several, kind) for kind in ("matched", "random"))
            if full and low and mine["method"] not in (full, low):
                about = {"scored_on": scored_on, "network": network, "method": mine["method"]}
                about |= {"finder": mine["finder"], "matched": full, "random": low, "sparsities": len(levels)}
                own = cell[cell["method"] == mine["method"]]
                rows += _by_seed(means, own, about, FULL if metric == ACCURACY else TINY)
    return marked(pd.DataFrame(rows, columns=GAINS), metric, True)


def _by_seed(means: pd.DataFrame, own: pd.DataFrame, about: dict[str, Any], least: float) -> list[dict[str, Any]]:
    rows = []
    for seed, row in means.iterrows():
        score, full, low = (float(row[about[name]]) for name in ("method", "matched", "random"))
        if any(map(math.isnan, (score, full, low))):
            continue
        share = (score - low) / (full - low) if full - low >= least else math.nan
        mine = own[own["seed"] == seed]
        images = mine["train_images"].max() if "train_images" in mine else math.nan
        behind = {"train_images": images, "experiment": mine["experiment"].iloc[0]}
        values = {"seed": seed, "score": score, "gain": score - low, "full": full - low, "share": share}
        rows.append(about | values | behind)
    return rows


def _control(mine: dict[str, Any], several: list[dict[str, Any]], kind: str) -> str | None:
    """Return the plainest arm of one kind that shares most settings; all, where densities are COLT's own."""

    def alike(row: dict[str, Any]) -> int:
        return sum(told(mine.get(name)) == told(row.get(name)) for name in SHARED)

    def extra(row: dict[str, Any]) -> int:
        return sum(told(row.get(name)) not in ("", "{}", None) for name in EXTRA)

    def same(row: dict[str, Any], *names: str) -> bool:
        return all(told(mine.get(name)) == told(row.get(name)) for name in names)

    of_kind = [row for row in several if row["finder"] == kind]
    fitting = [row for row in of_kind if same(row, *FIXED)]
    if not fitting and told(mine.get("scored_by")) in HEADS:  # a transformed ticket keeps its head, a mask has none
        rest = [name for name in FIXED if name != "scored_by"]
        fitting = [row for row in of_kind if same(row, *rest) and told(row.get("scored_by")) in ("", None, "as found")]
    if told(mine.get("densities")) in ("", None):  # then whoever follows another has its densities, and no one else's
        fitting = [row for row in fitting if alike(row) == len(SHARED) and same(row, "finding")]
    best = max(fitting, key=lambda row: (-extra(row), alike(row)), default=None)
    return str(best["method"]) if best else None


def shares(records: pd.DataFrame, sparsities: Iterable[float], level: float = 0.95) -> pd.DataFrame:
    """Return the share of IMP's gain over random that each arm recovers: the ratio of the mean gains over seeds.

    Columns scored_on, network, method, share, low and high (Fieller's interval; NaN below three seeds, or where IMP's
    gain is not told from zero), gain, full, full_half (half-width), seeds, experiments.
    """
    return shares_of(gains(records, sparsities), level)


def shares_of(found: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return `shares` of a table of `gains`; a column `study` sets runs apart."""
    names = [*(name for name in ("study",) if name in found), *SETTING]
    rows = []
    for key, group in found.groupby(names, sort=False):
        share, low, high = fieller(group["gain"], group["full"], level)
        full, half = interval(group["full"], level)
        about = dict(zip(names, key, strict=True))
        about |= {"share": share, "low": low, "high": high, "gain": group["gain"].mean(), "full": full}
        about |= {"full_half": half, "seeds": group["seed"].nunique(), "train_images": group["train_images"].max()}
        rows.append(about | {"experiments": hashes(group["experiment"])})
    columns = [*names, "share", "low", "high", "gain", "full", "full_half", "seeds", "train_images", "experiments"]
    return pd.DataFrame(rows, columns=columns)


def answered_gains(results: str | Path) -> pd.DataFrame:
    """Return `gains` of every reference study that was asked beforehand and is over, by the names of its arms.

    Parameters
    ----------
    results
        Where the studies lie, as of `predictions`; those without a store there, without IMP or scored by
        another metric than accuracy are passed over.

    Returns
    -------
    pandas.DataFrame
        The columns of `gains` after `study`, its name, and `run`, which says what was trained, in a line.
    """
    found = []
    for path, study in answered(results):
        if not (path / "store").is_dir():
            continue
        records = called_by(load(path / "store"), study)
        own = records[records["called"].notna()]
        if set(metrics(own[own["kind"] == "score"])) != {ACCURACY}:
            continue
        table = gains(own, study.levels)
        if len(table):
            one = study.experiment(next(iter(study.methods)), study.seeds[0])
            about = f"{one.dataset}, {models.in_words(one.network, one.network_args)}, {one.recipe.epochs} epochs"
            run = f"{study.name}: {about}, {count_seeds(table['seed'].nunique())}"
            found.append(table.assign(study=study.name, run=run))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["study", "run", *GAINS])


# --- the way from random to dense --------------------------------------------------------------------------------


def ladder(records: pd.DataFrame, sparsities: Iterable[float], steps: Iterable[str] = LADDER) -> pd.DataFrame:
    """Return what each step of a way between arms adds, paired by seed: random, COLT, consensus, matched, dense.

    `steps` are arms (see `arms`); those that the records lack are passed over. All are means over the sparsities.

    Returns
    -------
    pandas.DataFrame
        Columns scored_on, network, method, score (mean over the seeds that all arms share), difference (to the step
        before; NaN of the first), half_width, seeds.
    """
    levels = list(dict.fromkeys(sparsities))
    table = at_sparsities(records, levels)
    metric, _ = metric_of(table)
    rows = []
    for (scored_on, network), cell in table.groupby(SETTING[:2], sort=False):
        runs = cell.groupby(["method", "seed"])[metric].agg(["mean", "count"])
        dense = runs.index.get_level_values("method") == "dense"
        means = runs["mean"].where((runs["count"] == len(levels)) | dense).unstack("method")
        there = [name for name in steps if name in means]
        means = means[there].dropna()
        for before, name in zip([None, *there], there, strict=False):
            step = means[name] - means[before] if before else pd.Series([math.nan])
            difference, half = interval(step)
            about = {"scored_on": scored_on, "network": network, "method": name, "score": means[name].mean()}
            rows.append(about | {"difference": difference, "half_width": half, "seeds": len(means)})
    return pd.DataFrame(rows)


def spent(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return what finding cost each arm, and what it gave: means over the sparsities, then over seeds.

    Columns scored_on, network, method, accuracy (or another metric), half_width, passes (over the training set), steps
    (optimiser steps that follow one another: of copies side by side the longest's), seeds. The cost is that of the
    sparsest ticket.
    Arms whose records do not count steps are left out, dense ones too.
    """
    levels = list(dict.fromkeys(sparsities))
    table = at_sparsities(records, levels)
    metric, higher = metric_of(table)
    table = table.assign(steps=table["steps"].astype(float) if "steps" in table else math.nan)
    table = table[(table["finder"] != "dense") & table["steps"].notna()]
    table = table.assign(passes=table["image_epochs"] / table["train_images"])
    runs = table.groupby([*SETTING, "seed"], sort=False)
    by_seed = runs.agg(value=(metric, "mean"), passes=("passes", "max"), steps=("steps", "max"))
    by_seed = by_seed[runs["at"].nunique() == len(levels)]
    rows = []
    for key, group in by_seed.groupby(SETTING, sort=False):
        mean, half = interval(group["value"])
        about = dict(zip(SETTING, key, strict=True)) | {metric: mean, "half_width": half}
        costs = {name: group[name].mean() for name in ("passes", "steps")}
        rows.append(about | costs | {"seeds": len(group)})
    columns = [*SETTING, metric, "half_width", "passes", "steps", "seeds"]
    return marked(pd.DataFrame(rows, columns=columns), metric, higher)


# --- regimes -----------------------------------------------------------------------------------------------------


def regimes(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return a row a regime: how small the network, how short the trainings, and how much IMP gains there at all.

    Columns dataset, train_images, network, weights (prunable), epochs (a training), steps (of a COLT copy), rate (or
    the densities), seeds, dense (accuracy, in [0, 1]), matched_minus_random, half_width.
    """
    records, levels = arms(distinct(records)), list(dict.fromkeys(sparsities))
    rows = []
    lacking = {name: "{}" for name in ("network_args",) if name not in records}
    for key, cell in records.assign(**lacking).groupby(["dataset", "network", "network_args", "recipe"], sort=False):
        dataset, network, arguments, recipe = map(str, key)
        own = cell[cell["scored_on"].isna() | (cell["scored_on"] == dataset)]
        if not (own["kind"] == "score").any():
            continue
        found = gains(own, levels).drop_duplicates(["seed", "matched", "random"])
        difference, half = interval(found.groupby("seed")["full"].mean())  # of several splits the mean: one a seed
        dense = own[(own["kind"] == "score") & (own["method"] == "dense")]
        colts, how = own[own["method"] == "colt"], Recipe(**json.loads(recipe))
        images = int(own["train_images"].max()) if "train_images" in own else 0
        split = colts[colts["by"] != "order"] if "by" in colts else colts  # split by order each copy sees every image
        parts = int(split["parts"].min()) if len(split) else 1
        rows.append(
            {
                "dataset": dataset,
                "train_images": images,
                "network": models.in_words(network, json.loads(arguments)),
                "weights": _weights(network, arguments),
                "epochs": how.epochs,
                "steps": how.total(max(1, images // parts)),
                "rate": _pace(colts if len(colts) else own),
                "seeds": found["seed"].nunique() or own["seed"].nunique(),
                "dense": dense["accuracy"].mean() if "accuracy" in dense else math.nan,
                "matched_minus_random": difference,
                "half_width": half,
            }
        )
    return pd.DataFrame(rows)


def _weights(network: str, arguments: str) -> float:
    """Return the number of prunable weights; NaN of a network that this process cannot build."""
    try:
        built = skeleton(network, 10, json.loads(arguments))
    except (ValueError, TypeError, OSError):
        return math.nan
    return masks.size({name: built.get_parameter(name) for name in models.prunable(built)})


def _pace(rows: pd.DataFrame) -> str:
    """Say how fast weights go: the densities that are named, else the rates."""
    named = [value for value in rows.get("densities", ()) if isinstance(value, str)]
    if named:
        return "to " + ", ".join(f"{density:g}" for density in json.loads(named[0]))
    return ", ".join(f"{rate:g}" for rate in np.unique(rows["rate"]))
