"""What finding costs: rounds, image passes, FLOPs and seconds to a sparsity; what an equal cost buys."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..methods import recorded
from .accuracy import first_rounds, means
from .arms import arms, check_seeds, hashes, scores_by_arm
from .records import check_columns
from .statistics import half_width

UNITS = ("image_epochs", "flops", "seconds")


def reach(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return what each method spends until it reaches each sparsity: rounds, image passes, FLOPs, seconds.

    Means over the seeds that reach it, each with the half-width of its 95 % t interval (`rounds_half_width`, ...);
    only methods that train round by round in order to find.
    """
    found = arms(records)
    by_rounds = [name for name in found["method"].unique() if recorded(name).by_rounds]
    found = found[(found["kind"] == "round") & found["method"].isin(by_rounds)].assign(method=lambda r: r["arm"])
    check_seeds(found, "dataset")
    key = ["dataset", "network", "method", "at"]
    reached = [first_rounds(found, at).assign(at=at) for at in dict.fromkeys(sparsities)]
    groups = pd.concat([found.head(0).assign(at=0.0), *reached]).groupby(key, sort=False)
    columns = {}
    for name, column in ({"rounds": "round"} | {unit: unit for unit in UNITS if unit in found}).items():
        columns[name] = groups[column].mean()
        columns[f"{name}_half_width"] = half_width(groups[column].std(), groups[column].count())
    columns |= {"seeds": groups["seed"].nunique()} | images_at_hand(groups)
    return pd.DataFrame(columns | {"experiments": groups["experiment"].agg(hashes)}).reset_index()


def images_at_hand(groups: Any) -> dict[str, Any]:
    """Return the column that says how large the data set at hand was (a fifth of TinyImageNet, say)."""
    return {"train_images": groups["train_images"].max()} if "train_images" in groups.obj else {}


def rounds_table(records: pd.DataFrame, sparsities: Iterable[float]) -> pd.DataFrame:
    """Return how many rounds, and how many training-image passes, each method takes to reach each sparsity.

    Means over seeds: the short form of `reach`.
    """
    spent = reach(records, sparsities)
    check_columns(spent, ["image_epochs"] if len(spent) else [])
    return spent.reindex(columns=["dataset", "network", "method", "at", "rounds", "image_epochs", "seeds"])


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
    scores = scores_by_arm(records).sort_values("round", kind="stable")
    if not len(scores):
        scores = scores.assign(**{unit: 0.0})
    check_columns(scores, [unit])
    run = ["experiment", "scored_on", "method", "seed"]
    bought = []
    for budget in dict.fromkeys(budgets):
        affordable = scores[scores[unit] <= budget].assign(budget=budget)
        bought.append(affordable.drop_duplicates(run, keep="last"))
    table = pd.concat(bought) if bought else scores.head(0).assign(budget=0.0)
    return means(table, "budget", {"rounds": "round", "spent": unit})
