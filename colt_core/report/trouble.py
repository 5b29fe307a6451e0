"""What went wrong beside the numbers: records that carry warnings, and experiments that failed."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..tickets.round import NOTHING_LEARNT
from .arms import arms
from .records import NUMBERS, distinct, metrics, score_values, warned, warnings_column


def warnings(records: pd.DataFrame) -> pd.DataFrame:
    """Return every warning that records carry, a row each; a score that is no number is one, too.

    Returns
    -------
    pandas.DataFrame
        Columns experiment, method, dataset, seed, round, warning. Without a row where all is well.
    """
    found = _told(records)
    columns = ["experiment", "method", "dataset", "seed", "round"]
    rows = found[[*columns, "warning"]].explode("warning").dropna(subset="warning")
    return rows.drop_duplicates().reset_index(drop=True)


def _told(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rounds and scores with a column `warning`, a list each."""
    found = distinct(records)
    found = found[found["kind"].isin(NUMBERS)]
    told = [warned(value) for value in warnings_column(found)]
    lost = found["kind"].eq("score") & pd.isna(score_values(found))
    for texts, bad, metric in zip(told, lost, metrics(found), strict=True):
        if bad:
            texts.append(f"{metric} is not a number")
    return found.assign(warning=told)


def say_warnings(records: pd.DataFrame) -> list[str]:
    """Say in a sentence how many records carry warnings; nothing where none does."""
    found = _told(records)
    count = int(found["warning"].map(bool).sum())
    return [say_warned(count, len(found))] if count else []


def say_warned(count: int, of: int) -> str:
    """Say how many of some records carry warnings, and where to read them."""
    return f"{count} of {of} records carry warnings: see cc.report.warnings"


def copy_at_chance(record: Mapping[str, Any]) -> bool:
    """Tell whether a copy of a round learnt nothing: how far its mask agrees with another's then says nothing."""
    return any(sign in text for text in warned(record.get("warnings")) for sign in NOTHING_LEARNT)


# --- failed experiments ------------------------------------------------------------------------------------------


def failures(records: pd.DataFrame) -> pd.DataFrame:
    """Return the arms of which experiments failed, a row each, and what ended them.

    A failure that a later round of the same experiment has overtaken does not count.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, network, method (see `arms`), failed and seeds (how many, of how many), note ("failed: why" of
        all, else "1 of 3 seeds failed: why"). Without a row where all is well.
    """
    columns = ["dataset", "network", "method", "failed", "seeds", "note"]
    named = arms(records).assign(method=lambda r: r["arm"])
    failed = _failed(named)
    seeds = named.groupby(columns[:3], sort=False)["seed"].nunique()
    rows = []
    for key, group in failed.groupby(columns[:3], sort=False):
        count, of = group["seed"].nunique(), int(seeds[key])
        why = "; ".join(dict.fromkeys(str(problem) for problem in group["problem"]))
        rows.append((*key, count, of, f"failed: {why}" if count == of else f"{count} of {of} seeds failed: {why}"))
    return pd.DataFrame(rows, columns=columns)


def _failed(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records of failures that stand: no round has been found since."""
    found = records[records["kind"] == "failed"]
    why = found["problem"] if "problem" in found else pd.Series(None, found.index, dtype=object)
    last = records[records["kind"] == "round"].groupby("experiment")["round"].max()
    overtaken = found["experiment"].map(last).astype(float) >= found["round"].astype(float)
    return found.assign(problem=why.fillna("nobody says why"))[~overtaken]


def with_failures(table: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's table with a column `note`, and a row for each arm without a number; as it is without any."""
    if not len(failed):
        return table
    key = ["dataset", "network", "method"]
    notes = failed.set_index(key)["note"]
    told = table.reindex(columns=list(dict.fromkeys([*key, *table])))
    told = told.assign(note=[notes.get(arm, "") for arm in told[key].itertuples(index=False, name=None)])
    there = set(told[key].itertuples(index=False, name=None))
    rows = notes[[arm not in there for arm in notes.index]].reset_index().assign(seeds=0)
    if not len(told):
        return rows
    return pd.concat([told, rows.reindex(columns=told.columns, fill_value="-")], ignore_index=True)
