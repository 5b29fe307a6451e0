"""Every table that a store has the records for, and how tables are written: Markdown, LaTeX and CSV."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..files import write_text
from ..methods import recorded
from ..studies.records import Place
from ..training import RECIPES
from .accuracy import all_areas, by_rounds, counted, in_papers_shape, mean_scores, scores_at
from .arms import called, scores_by_arm
from .compare import differences, with_verdicts
from .cost import reach
from .records import distinct, load, metrics
from .statistics import TINY
from .transfer import SHARED, source_by_target, told
from .trouble import failures
from .words import ACCURACY

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)  # where no study says which
ORDER = ("colt", "matched", "imp", "random", "union", "dense")  # of controls in tables; others stand behind
BULKY = ("pruned", "accuracies", "curves", "curve", "epochs_saved", "overlap", "score_data")


def tables(
    store: Place = None,
    records: pd.DataFrame | None = None,
    out: str | Path | None = None,
    sparsities: Iterable[float] | None = None,
    margin: float = 0.01,
) -> dict[str, pd.DataFrame]:
    """Return every table that a store has the records for; with `out`, save each there under its name.

    Experiments of different recipes or network arguments, and scores of different metrics, never meet in a mean or a
    difference. The sparsities of a pair are one family of tests: give a study's own `levels` for its records. By
    default they are `LEVELS`, and where an experiment was scored at others alone, those, in whole percent.

    Returns
    -------
    dict
        "accuracy-<recipe>" (or another metric): `paper_table`; "rounds", where channels were cut whole: `by_rounds`;
        "reach"; "compare": COLT and other contenders against
        the controls, with the verdict; "area": over the sparsities that all runs of a cell cover; "transfer": source
        (rows) by target (columns). Those without rows are left out.
    """
    records = (load(store) if records is None else records).drop(columns=list(BULKY), errors="ignore")
    pieces: dict[str, list[pd.DataFrame]] = {}
    if len(records):
        records = distinct(records)
        lacking = {name: "{}" for name in ("recipe", "network_args") if name not in records}
        groups = records.assign(**lacking).groupby(["recipe", "network_args"], sort=False)
        for (recipe, arguments), group in groups:
            about = {"recipe": _recipe_name(str(recipe)), "network_args": arguments}
            asked = levels_of(group) if sparsities is None else dict.fromkeys(sparsities)
            for name, table in _tables(group, about["recipe"], list(asked), margin):
                pieces.setdefault(name, []).append(pd.DataFrame(about, index=table.index).join(table))
    return joined([{name: pd.concat(several, ignore_index=True) for name, several in pieces.items()}], out)


def levels_of(records: pd.DataFrame) -> list[float]:
    """Return the sparsities that show what was scored: `LEVELS`, and of a run scored elsewhere that, in whole percent.

    Where every round of a run was scored the usual ones do; its last round if it comes to none of them.
    """
    rounds = records[records["kind"] == "round"].drop_duplicates(["experiment", "round"])
    rounds = rounds.assign(counted=counted(rounds))
    scored = records[records["kind"] == "score"][["experiment", "round"]].drop_duplicates()
    found = set(LEVELS)
    for name, own in rounds[rounds["counted"] > 0].groupby("experiment"):
        seen = own[own["round"].isin(scored.loc[scored["experiment"] == name, "round"])]["counted"]
        firsts = {min(reached) for level in LEVELS if (reached := [s for s in own["counted"] if s >= level - TINY])}
        others = [sparsity for sparsity in seen if sparsity not in firsts]
        others = ([] if len(others) < len(seen) else others[-1:]) if len(seen) == len(own) else others
        found |= {math.floor(100 * (sparsity + TINY)) / 100 for sparsity in others}
    return sorted(found - {0.0})


def joined(several: Iterable[dict[str, pd.DataFrame]], out: str | Path | None = None) -> dict[str, pd.DataFrame]:
    """Return the tables of several calls of `tables`, of a study's pieces say, one below the other; save them."""
    pieces: dict[str, list[pd.DataFrame]] = {}
    for found in several:
        for name, table in found.items():
            pieces.setdefault(name, []).append(table)
    whole = {name: pd.concat(parts, ignore_index=True) for name, parts in sorted(pieces.items())}
    if out:
        for name, table in whole.items():
            save(table, str(out), name)
    return whole


DETAILS = {"experiments", "low", "high", "p", "p_equivalence", "half_pooled", "detectable_low", "detectable_high"}
DETAILS |= {"other_sparsity", "equivalent"}  # of a table, what only a second look asks for


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for a screen: three digits, arms by the names that figures use, no hashes.

    Shares of accuracy (accuracies, differences, half-widths) become percent, or points, and their columns say so.
    """
    shown = table.drop(columns=[name for name in DETAILS if name in table and name not in ("low", "high")])
    shown = shown.drop(columns=["low", "high"], errors="ignore") if "difference" in table else shown
    for name in [name for name in ("method", "other") if name in shown]:
        shown = shown.assign(**{name: [called(str(arm)) for arm in shown[name]]})
    plain = metrics(table).eq(ACCURACY).all() if "metric" in table else True
    units = {"difference": "points", "half_width": "± points", "detectable": "detectable, points"}
    units |= {
        "accuracy": "accuracy, %",
        "at": "at, % sparse",
        "sparsity": "% sparse",
        "low": "from, %",
        "high": "to, %",
    }
    for name in [name for name in shown if name in units and plain and pd.api.types.is_float_dtype(shown[name])]:
        shown = shown.assign(**{name: 100 * shown[name]}).rename(columns={name: units[name]})
    if len(shown) > 1:
        same = [name for name in ("recipe", "network_args", "metric", "higher_is_better") if name in shown]
        shown = shown.drop(columns=[name for name in same if shown[name].astype(str).nunique() == 1])
    zero = [name for name in shown if str(name).endswith("_half_width") and not shown[name].fillna(0).any()]
    shown = shown.drop(columns=zero).apply(lambda column: [_three(value) for value in column])
    return shown.rename(columns=_headed)


def _headed(name: str) -> str:
    """Return a column's name as a heading: words, "± rounds" of a half-width."""
    known = {"image_epochs": "training images seen", "p_holm": "p (Holm)", "scored_on": "scored on"}
    if name.endswith("_half_width"):
        return f"± {_headed(name.removesuffix('_half_width'))}"
    return known.get(name, name.replace("_", " "))


def _three(value: Any) -> Any:
    """Write a number with three digits; whole ones whole, with thousands set apart. "40.4 ± 2.3" keeps to one line."""
    if isinstance(value, str):
        return value.replace(" ± ", "\u00a0±\u00a0")
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return value
    value = float(value)
    if np.isnan(value):
        return "-"
    if abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"


@lru_cache(maxsize=256)
def _recipe_name(text: str) -> str:
    """Return a ready recipe's name, else a short hash of the recipe."""
    ready = {json.dumps(recipe.model_dump(mode="json"), sort_keys=True): name for name, recipe in RECIPES.items()}
    return ready.get(text) or f"recipe-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _tables(
    records: pd.DataFrame, recipe: str, sparsities: list[float], margin: float
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield names and tables of records of one recipe and network."""
    spent = reach(records, sparsities)
    if len(spent):
        yield "reach", spent
    scores, named = records["kind"] == "score", metrics(records)
    failed = failures(records)
    for metric in [*named[scores].unique()] or [ACCURACY] * bool(len(failed)):
        rows = records[~scores | (named == metric)]
        for name, table in _of_one_metric(rows, sparsities, margin, failed):
            yield f"{metric}-{recipe}" if name == "means" else name, table


def _of_one_metric(
    records: pd.DataFrame, sparsities: list[float], margin: float, failed: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the tables that rest on scores."""
    scores = scores_by_arm(records)
    table = scores_at(scores, records, sparsities)
    if len(table) or len(failed):
        yield "means", in_papers_shape(mean_scores(table), sparsities, failed)
    if "density_effective" in records and records["density_effective"].notna().any() and len(scores):
        yield "rounds", by_rounds(records).drop(columns="at")
    compared = differences(table, _controls(table), margin, 0.95, scores)
    if len(compared):
        yield "compare", with_verdicts(compared)
    areas = all_areas(scores)
    if len(areas):
        yield "area", areas
    if (table["scored_on"] != table["dataset"]).any():
        yield "transfer", source_by_target(table)


# --- whom a ticket is held against -------------------------------------------------------------------------------


def _controls(table: pd.DataFrame) -> pd.DataFrame:
    """Pair each arm of a contender (COLT, consensus) with the control of each kind that is most alike."""
    rows = []
    for (scored_on, network), cell in table.groupby(["scored_on", "network"], sort=False):
        one = cell.drop_duplicates("method").to_dict("records")
        kinds = sorted({row["finder"] for row in one if recorded(row["finder"]).control}, key=_place)
        for mine in (row for row in one if recorded(row["finder"]).contender):
            for kind in (kind for kind in kinds if kind != mine["finder"]):
                other = _control(mine, [row for row in one if row["finder"] == kind])
                if other is not None:
                    rows.append((scored_on, network, mine["method"], other))
    return pd.DataFrame(rows, columns=["scored_on", "network", "method", "other"], dtype=object)


def _place(control: str) -> tuple[int, str]:
    return ORDER.index(control) if control in ORDER else len(ORDER), control


def _control(mine: dict[str, Any], others: list[dict[str, Any]]) -> str | None:
    """Return the arm of one kind that shares most settings; one that follows COLT must share all of COLT's."""

    def alike(row: dict[str, Any]) -> int:
        return sum(told(mine.get(name)) == told(row.get(name)) for name in SHARED)

    def same(row: dict[str, Any], name: str) -> bool:
        return told(mine.get(name)) == told(row.get(name))

    others = [row for row in others if same(row, "scored_by") and _beside(row, mine)]
    switched = [row for row in others if same(row, "official")]
    if others and others[0]["finder"] == "dense" and switched:
        others = switched
    fitting = [row for row in others if _free(row["finder"]) or alike(row) == len(SHARED)]
    return str(max(fitting, key=alike)["method"]) if fitting else None


def _beside(row: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Tell whether a control was found on the same data; the dense network may be the target's too."""
    places = {mine["dataset"], mine["scored_on"]} if row["finder"] == "dense" else {mine["dataset"]}
    return row["dataset"] in places


def _free(finder: str) -> bool:
    """Tell whether a control goes its own way, so that it need not share COLT's settings; COLT itself must."""
    method = recorded(finder)
    return method.follows is None and method.trains != "copies"


# --- written -----------------------------------------------------------------------------------------------------


def save(table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, each whole or not at all; return the paths."""
    forms = {
        "csv": table.to_csv(index=False),
        "md": table.to_markdown(index=False) + "\n",
        "tex": table.to_latex(index=False, escape=True),
    }
    return [write_text(Path(folder) / f"{name}.{ending}", text) for ending, text in forms.items()]
