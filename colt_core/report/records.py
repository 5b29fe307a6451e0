"""Records as every table takes them: each once, whole, and of which metric."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..compute.store import open_store
from ..studies.records import KEY, Place, read_records
from .words import ACCURACY

NUMBERS = ["round", "score"]  # the kinds that tables rest on; "failed" is told in words, any other passed over
LABELS = ["dataset", "network", "method", "seed"]  # an experiment's hash stands for one of each
NAMED = ["kind", "experiment", *LABELS]
MEASURED = ["round", "density"]  # of rounds and scores
HOW = "hand in rows of cc.report.load or cc.study"


def load(store: Place = None, experiments: Iterable[str] | None = None) -> pd.DataFrame:
    """Return the records of a store, a row each (`kind` "round", "score" or "failed"); empty where there is none.

    Runs that are damaged are left out, with a warning that names each. `experiments` are the hashes of those wanted;
    None: all.
    """
    place, found = open_store(store), []
    wanted = (name.split("/")[0] for name in place.names("*/record*.jsonl")) if experiments is None else experiments
    for folder in dict.fromkeys(wanted):
        try:
            found += read_records(folder, place)
        except ValueError as problem:
            warnings.warn(f"left out: {problem}", UserWarning, stacklevel=2)
    return pd.DataFrame(found)


def distinct(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records, each once: what is handed in twice counts once, in every table and figure.

    A record is one of its experiment, kind, round, and data and way of scoring (and `study`, where there is such a
    column: see `answer`). Of copies one with `warnings` is kept, else the first.

    Raises
    ------
    ValueError
        In one line: there are no records, columns or values are missing, copies of one record differ, or one experiment
        has several seeds (data sets, networks, methods).
    """
    _check_whole(records)
    records = records.assign(**{name: math.nan for name in MEASURED if name not in records})
    one = [name for name in ("study", "experiment") if name in records]
    _check_labels(records, one)
    keys = records.reindex(columns=[*one, *KEY]).reset_index(drop=True)
    again = keys.duplicated(keep=False)
    if not again.any():
        return records
    again &= records["kind"].isin(NUMBERS).to_numpy()
    _check_copies(records[again.to_numpy()], keys[again])
    silent = [not warned(value) for value in warnings_column(records)]
    first = keys.iloc[np.argsort(silent, kind="stable")].drop_duplicates().index
    return records.iloc[np.sort(first)]


def check_columns(records: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise a `ValueError` unless the records have these columns."""
    lacking = [name for name in names if name not in records]
    if lacking:
        raise ValueError(f"the records lack {', '.join(lacking)}: {HOW}")


def _check_whole(records: pd.DataFrame) -> None:
    """Refuse no records, and such as lack what every table needs: pandas would leave them out without a word."""
    if not len(records):
        raise ValueError(f"no records: {HOW} once something has run")
    check_columns(records, NAMED)
    _check_values(records, ["kind"])
    _check_values(records[records["kind"].isin([*NUMBERS, "failed"])], NAMED)
    numbers, scores = records[records["kind"].isin(NUMBERS)], records[records["kind"] == "score"]
    _check_values(numbers, MEASURED)
    _check_values(scores, ["scored_on"])
    named = set(metrics(scores))
    check_columns(records, [*named, *(["higher_is_better"] if named - {ACCURACY} else [])])


def _check_values(records: pd.DataFrame, names: list[str]) -> None:
    if not len(records):
        return
    check_columns(records, names)
    empty = records[names].isna()
    if empty.any(axis=None):
        row = records[empty.any(axis=1)].iloc[0]
        lacking = ", ".join(name for name in names if pd.isna(row[name]))
        raise ValueError(f"a record of experiment {row['experiment']} lacks {lacking}: {HOW}")


def _check_labels(records: pd.DataFrame, one: list[str]) -> None:
    about = records[[*one, *LABELS]].drop_duplicates()
    twice = about[about.duplicated(one, keep=False)]
    if len(twice):
        rows = twice[twice["experiment"] == twice["experiment"].iloc[0]]
        name = next((n for n in LABELS if rows[n].nunique(dropna=False) > 1), LABELS[0])
        told = " and ".join(str(value) for value in rows[name].unique())
        raise ValueError(f"records of experiment {rows['experiment'].iloc[0]} say {name} {told}: a hash stands for one")


def _check_copies(records: pd.DataFrame, keys: pd.DataFrame) -> None:
    """Refuse two records of one key that say different things."""
    groups = keys.groupby(list(keys), dropna=False, sort=False).ngroup().to_numpy()
    for what, values in (("density", records["density"].to_numpy(dtype=float)), ("", score_values(records))):
        several = pd.Series(values).round(12).groupby(groups).nunique(dropna=False) > 1
        if several.any():
            here = groups == several.idxmax()
            row, metric = records[here].iloc[0], metrics(records[here]).iloc[0]
            told = " and ".join(f"{value:.6g}" for value in dict.fromkeys(values[here]))
            where = f", scored on {row['scored_on']}" if row["kind"] == "score" else ""
            about = f"two records of experiment {row['experiment']}, round {row['round']:g}{where}"
            raise ValueError(f"{about}, differ: {what or metric} {told}; keep one of them")


# --- warnings ----------------------------------------------------------------------------------------------------


def warnings_column(records: pd.DataFrame) -> Iterable[Any]:
    """Return each record's `warnings`, a list of short texts; None where it has none."""
    return records["warnings"] if "warnings" in records else [None] * len(records)


def warned(value: Any) -> list[str]:
    """Return a record's warnings as a list: old records have none."""
    return [str(text) for text in value] if isinstance(value, list | tuple) else []


# --- metrics -----------------------------------------------------------------------------------------------------


def score_values(records: pd.DataFrame) -> np.ndarray:
    """Return each record's score by its own metric as a number; NaN where it is none (None, infinite, a round's)."""
    named, found = metrics(records).to_numpy(), np.full(len(records), math.nan)
    for name in set(named) & set(records):
        here = named == name
        found[here] = pd.to_numeric(records.loc[here, name], errors="coerce")
    return np.where(np.isfinite(found), found, math.nan)


LOWER = ("mse", "nats", "kl", "frechet")  # measures of which less is better


def left(records: pd.DataFrame) -> np.ndarray:
    """Return the density that each ticket really has: of channels cut whole, the weights left when it is compact."""
    density = records["density"].astype(float)
    real = records["density_effective"].astype(float) if "density_effective" in records else density
    return real.fillna(density).to_numpy()


def metric_of(records: pd.DataFrame) -> tuple[str, bool]:
    """Return the metric of some records' scores, or of a table made of them: its name, and whether higher is better.

    Raises
    ------
    ValueError
        If they mix several.
    """
    scores = records[records["kind"] == "score"] if "kind" in records else records
    if "metric" not in scores or not len(scores):
        return ACCURACY, True
    names = sorted(set(metrics(scores)))
    if len(names) > 1:
        raise ValueError(f"the records mix the metrics {' and '.join(names)}; choose among them first")
    return names[0], names[0] == ACCURACY or bool(scores["higher_is_better"].iloc[0])


def metrics(records: pd.DataFrame) -> pd.Series:
    """Return each record's metric: accuracy where none is named."""
    if "metric" not in records:
        return pd.Series(ACCURACY, records.index)
    return records["metric"].astype(object).where(records["metric"].notna(), ACCURACY)


def measured_by(records: pd.DataFrame, measure: str, higher_is_better: bool | None = None) -> pd.DataFrame:
    """Return records whose scores are told by another of their measures, `psnr` for example, in place of the metric.

    Scores without it are left out; the metric's chance level is not the measure's, and goes. Unless said, higher is
    better but of errors, bounds and distances (`LOWER`).

    Raises
    ------
    ValueError
        If no score has it.
    """
    scores = records["kind"] == "score"
    if measure not in records or not records.loc[scores, measure].notna().any():
        raise ValueError(f"no score has a column {measure!r}")
    higher_is_better = measure not in LOWER if higher_is_better is None else higher_is_better
    kept = records[~scores | records[measure].notna()].copy()
    scores = kept["kind"] == "score"
    kept.loc[scores, ["metric", "chance"]] = [measure, math.nan]
    return kept.assign(higher_is_better=kept.get("higher_is_better", True)).assign(
        higher_is_better=lambda table: table["higher_is_better"].astype(object).where(~scores, higher_is_better)
    )


def marked(table: pd.DataFrame, metric: str, higher_is_better: bool) -> pd.DataFrame:
    """Return a table that says its metric and direction, where that is not accuracy."""
    return table if metric == ACCURACY else table.assign(metric=metric, higher_is_better=higher_is_better)
