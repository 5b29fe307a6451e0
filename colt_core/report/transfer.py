"""Tickets carried over to other data sets: source by target, and what they gain on each control."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from .accuracy import at_sparsities, means
from .arms import SETTING
from .compare import (
    COMPARED,
    MARKS,
    Margin,
    at_equal_density,
    conclusion,
    differences,
    side_by_side,
    tested,
    with_margin,
)
from .records import check_columns, distinct, marked, metric_of
from .statistics import holm, interval
from .words import written

AGAINST = {
    "own": "the target's own ticket",
    "random": "a random mask with the same layer densities",
    "reinit": "the same mask over a re-drawn initialisation",
    "dense": "the dense network",
}
TRAINED_BY = ("network_args", "recipe", "official", "objective", "scored_by")
# What those that follow COLT have in common with it.
SHARED = ("parts", "by", "rate", "scope", "rewind", "early_bird", "official", "objective")


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
        stand the targets' own tickets; dense stands there alone. Empty where no ticket was carried.
    """
    return matrix_of(distinct(records), sparsities)


def matrix_of(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Carry `transfers` out on distinct records, which may be none."""
    costs = ["image_epochs", "score_image_epochs", "chance"]
    if not _any_carried(records):
        columns = ["source", "target", "network", "method", "at", "sparsity", "accuracy", "half_width", "seeds"]
        return pd.DataFrame(columns=[*columns, "rounds", *costs, "train_images", "experiments", "source_images"])
    check_columns(records, ["train_images"])
    table = carried(at_sparsities(records, sparsities))
    sizes = records[records["kind"] == "round"].groupby("dataset")["train_images"].max()
    table = table.assign(method=without_source(table["method"]))
    others = {"rounds": "round"} | {name: name for name in costs if name in table}
    found = means(table, "at", others, ["dataset", *SETTING])
    found = found.assign(source_images=found["dataset"].map(sizes))
    return found.rename(columns={"dataset": "source", "scored_on": "target"})


def _any_carried(records: pd.DataFrame) -> bool:
    """Tell whether any ticket was scored on another data set than its own."""
    if not len(records):
        return False
    scores = records[records["kind"] == "score"]
    return bool(len(scores) and (scores["scored_on"] != scores["dataset"]).any())


def carried(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of data sets between which tickets were carried."""
    moved = table[table["scored_on"] != table["dataset"]]
    ends = {*moved["dataset"], *moved["scored_on"]}
    return table[table["dataset"].isin(ends) & table["scored_on"].isin(ends)]


def without_source(arms: pd.Series) -> pd.Series:
    """Return arms without the data set that they come from: the source has a column of its own."""
    return arms.str.replace(r" from .*$", "", regex=True)


def source_by_target(table: pd.DataFrame) -> pd.DataFrame:
    """Return source by target: "mean ± half-width" of every arm and sparsity; on the diagonal its own."""
    metric, higher_is_better = metric_of(table)
    table = carried(table)
    table = table.assign(method=without_source(table["arm"]))
    key = ["network", "method", "at", "dataset", "scored_on"]
    groups = table.groupby(key, sort=False)[metric]
    cells = groups.agg(lambda values: written(*interval(values), metric))
    wide = cells.unstack().fillna("-").rename_axis(columns=None).reset_index()
    return marked(wide.rename(columns={"dataset": "source"}), metric, higher_is_better)


# --- gains -------------------------------------------------------------------------------------------------------


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
    return gains_of(distinct(records), sparsities, margin, level)


def gains_of(
    records: pd.DataFrame, sparsities: Iterable[float], margin: Margin = 0.01, level: float = 0.95
) -> pd.DataFrame:
    """Carry `transfer_gains` out on distinct records, which may be none; its margin may be `half_gains` as well."""
    columns = ["source", "target", "arm", "against", *(c for c in COMPARED if c != "scored_on")]
    columns += () if isinstance(margin, float | int) else ("margin",)
    if not _any_carried(records):
        return pd.DataFrame(columns=columns)
    table = _by_settings(carried(at_sparsities(records, sparsities)))
    tickets = table[table["finder"] == "colt"].drop_duplicates(["method", "scored_on"])
    rows = [row for ticket in tickets.to_dict("records") for row in _controls(ticket, table)]
    named = ["scored_on", "network", "method", "other"]
    pairs = pd.DataFrame(rows, columns=[*named, "source", "arm", "against"], dtype=object)
    found = differences(table, pairs[named], margin, level).merge(pairs, on=named)
    cell = ["network", "arm", "against"]
    off = found["source"] != found["scored_on"]
    found["p_holm"] = found[off].groupby(cell, sort=False)["p"].transform(holm)
    whole = pd.concat([found, _over_all_pairs(table, pairs, cell, margin, level)], ignore_index=True)
    marks = [name for name in MARKS if name in whole]
    return whole.rename(columns={"scored_on": "target"})[[*columns, *marks]]


def _by_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table, `method` naming finder, settings and source: arms' names depend on what else is there."""
    table = table.assign(settings=[_settings(row) for row in table.to_dict("records")])
    method = table["finder"].str.cat([table["settings"], table["dataset"]], sep="|")
    return table.assign(method=method, arm=without_source(table["arm"]))


def _settings(row: dict[str, Any]) -> str:
    """Return what two arms of different methods must share to be compared, as text; of dense what it trains by."""
    names = TRAINED_BY if row["finder"] == "dense" else dict.fromkeys((*TRAINED_BY, *SHARED, "target"))
    return json.dumps([told(row.get(name)) for name in names])


def told(value: Any) -> str:
    """Return a setting as text; one that a record does not have is as if it were not set."""
    return "" if value is None or value != value else str(value)


def _controls(ticket: dict[str, Any], table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row for each control of one source's tickets on one target."""
    cell = table[(table["scored_on"] == ticket["scored_on"]) & (table["network"] == ticket["network"])]
    source, target = ticket["dataset"], ticket["scored_on"]
    trained = _settings({**ticket, "finder": "dense"})
    wanted = {"own": f"colt|{ticket['settings']}|{target}"} if source != target else {}
    wanted |= {kind: f"{kind}|{ticket['settings']}|{source}" for kind in ("random", "reinit")}
    wanted |= {"dense": f"dense|{trained}|{target}"}
    for kind, other in wanted.items():
        if (cell["method"] == other).any():
            names = {name: ticket[name] for name in ("scored_on", "network", "method", "arm")}
            yield names | {"other": other, "source": source, "against": kind}


def _over_all_pairs(
    table: pd.DataFrame, pairs: pd.DataFrame, cell: list[str], margin: Margin, level: float
) -> pd.DataFrame:
    """Return the mean difference over every pair of different data sets, of those seeds that have them all."""
    off = pairs[pairs["source"] != pairs["scored_on"]]
    runs = with_margin(at_equal_density(side_by_side(table, off), table), margin)
    counts = runs.groupby([*cell, "at", "seed"])["difference"].transform("size")
    runs = runs[counts == counts.groupby([runs[name] for name in [*cell, "at"]]).transform("max")]
    values = ["difference", "sparsity", "sparsity_other", *(() if isinstance(margin, float | int) else ("margin",))]
    by_seed = runs.groupby([*cell, "at", "seed"], sort=False)[values].mean().reset_index()
    groups = by_seed.groupby([*cell, "at"], sort=False)
    found = groups[["sparsity", "sparsity_other"]].mean().rename(columns={"sparsity_other": "other_sparsity"})
    found = tested(found, groups, margin, level)
    found = found.assign(scored_on="all", source="all", train_images=math.nan, experiments="")
    found["p_holm"] = found.groupby(["network", "arm"], sort=False)["p"].transform(holm)
    return marked(found, *metric_of(table))


def transfer_conclusion(gains: pd.DataFrame, margin: float = 0.01) -> list[str]:
    """Say in words what `transfer_gains` found, a sentence a pair, control and sparsity; first over all pairs."""
    lines, named = [], gains.assign(scored_on=gains["target"])
    for kind, rows in named[named["source"] == "all"].groupby("against", sort=False):
        lines += conclusion(rows, "mean over all pairs, the source's ticket", AGAINST[str(kind)], margin)
    for (source, target, kind), rows in named.groupby(["source", "target", "against"], sort=False):
        if source != target:
            lines += conclusion(rows, f"ticket of {source}", AGAINST[str(kind)], margin)
    return lines
