"""What the text study says: accuracy against what is cut, the super tickets chosen, and the answer with its power."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from ..report.compare import with_verdicts
from ..report.statistics import LEAST_SEEDS, TINY, holm, interval, paired_tests, seeds_needed

MARGIN = 0.01  # of accuracy: the point that the paper's gain is about
CELL = ["corpus", "setting"]
TESTED = ["difference", "half_width", "p", "p_equivalence", "equivalent", "detectable", "seeds"]
DECISIVE = (("winning", "dense", "test"), ("winning", "random", "test"))
QUESTIONS = (
    *DECISIVE,
    ("random", "dense", "test"),
    ("losing", "dense", "test"),
    # The paper reports on the very texts that it chooses by. What a choice among equals gains there, random shows.
    ("winning", "dense", "validation"),
    ("random", "dense", "validation"),
)


def by_percent(records: pd.DataFrame, margin: float = MARGIN, level: float = 0.95) -> pd.DataFrame:
    """Return a row for each corpus, setting, order and percent: accuracy, and its difference to dense, paired by seed.

    Parameters
    ----------
    records
        `runs.records` or `runs.run_study`.
    margin
        Accuracy within which two networks count as equivalent.

    Returns
    -------
    pandas.DataFrame
        Columns corpus, setting, order, percent, heads, blocks, share (of the encoder's weights that is cut, a mean),
        test and test_half (mean and half-width), then of the difference in test accuracy: difference, half_width, p,
        p_holm (over one corpus), p_equivalence, equivalent, detectable (with 80 % power), seeds, verdict.
    """
    rows, differences = [], []
    for (corpus, setting), cell in records.groupby(CELL, sort=False):
        dense = cell[cell["order"] == "dense"].set_index("seed")["test"]
        for (order, percent), runs in cell.groupby(["order", "percent"], sort=False):
            mean, half = interval(runs["test"], level)
            about = {"corpus": corpus, "setting": setting, "order": order, "percent": percent}
            about |= {"heads": runs["heads"].mean(), "blocks": runs["blocks"].mean(), "share": runs["share"].mean()}
            rows.append(about | {"test": mean, "test_half": half})
            paired = (runs.set_index("seed")["test"] - dense).dropna()
            differences.append([] if order == "dense" else paired.tolist())
    columns = [*CELL, "order", "percent", "heads", "blocks", "share", "test", "test_half"]
    table = _tested(pd.DataFrame(rows, columns=columns), differences, margin, level)
    table["p_holm"] = table.groupby(CELL, sort=False)["p"].transform(holm)
    return with_verdicts(table).sort_values([*CELL, "order", "percent"], ignore_index=True)


def chosen(records: pd.DataFrame) -> pd.DataFrame:
    """Return each seed's best ticket of each order, chosen by validation accuracy among the percentages it has.

    Random and losing tickets are chosen as winning ones are: what the choice itself gains, they gain too. Of equals the
    one that cuts least is taken. Dense is no candidate; it is a row of its own.

    Returns
    -------
    pandas.DataFrame
        Columns corpus, setting, seed, order, percent, share, validation, test.
    """
    best = records.sort_values(["validation", "percent"], ascending=[False, True], kind="stable")
    best = best.drop_duplicates([*CELL, "seed", "order"]).sort_values([*CELL, "seed", "order"], ignore_index=True)
    return best[[*CELL, "seed", "order", "percent", "share", "validation", "test"]]


def answer(records: pd.DataFrame, margin: float = MARGIN, level: float = 0.95) -> pd.DataFrame:
    """Return what the chosen tickets say about the one-point question, and how well it could have been answered.

    Two rows a corpus decide, by Holm's method: chosen winning tickets minus dense, and minus equally chosen random
    ones, on the test texts. The others are described. Only seeds that have all percentages of both arms count.

    Returns
    -------
    pandas.DataFrame
        Columns corpus, setting, arm, other, scored_on, difference, half_width, p, p_holm, p_equivalence, equivalent,
        detectable (with 80 % power), power (of finding `margin`), seeds, needed (seeds for 80 % power), verdict.
    """
    rows, differences = [], []
    for about, values in _questions(_whole(records)):
        rows.append(about | {"power": power(values, margin, level)})
        differences.append(values)
    table = _tested(
        pd.DataFrame(rows, columns=[*CELL, "arm", "other", "scored_on", "power"]), differences, margin, level
    )
    decides = [(r.arm, r.other, r.scored_on) in DECISIVE for r in table.itertuples()]
    table["p_holm"] = table["p"].where(decides).groupby([table[c] for c in CELL], sort=False).transform(holm)
    spreads = zip(table["half_width"], table["seeds"], strict=True)
    table["needed"] = [seeds_needed(half, seeds, margin, level) for half, seeds in spreads]
    table = with_verdicts(table)
    table["verdict"] = table["verdict"].where(np.array(decides, dtype=bool), "described")
    return table


def power(differences: Iterable[float], margin: float = MARGIN, level: float = 0.95) -> float:
    """Return the chance that a paired t test finds a true difference of `margin` where differences spread as these do.

    NaN for fewer than three.
    """
    values = np.array(list(differences), dtype=float)
    if len(values) < LEAST_SEEDS:
        return math.nan
    if np.ptp(values) < TINY:
        return 1.0
    freedom, size = len(values) - 1, margin * math.sqrt(len(values)) / values.std(ddof=1)
    bound = stats.t.ppf((1 + level) / 2, freedom)
    return float(stats.nct.sf(bound, freedom, size) + stats.nct.cdf(-bound, freedom, size))


def _whole(records: pd.DataFrame) -> pd.DataFrame:
    """Leave out a seed's order that lacks a percentage which any order has: its choice would be among fewer."""
    cut = records["order"] != "dense"
    counts = records.groupby([*CELL, "order", "seed"], sort=False)["percent"].transform("nunique")
    wanted = records["percent"].where(cut).groupby([records[c] for c in CELL], sort=False).transform("nunique")
    return records[(counts == wanted) | ~cut]


def _questions(records: pd.DataFrame) -> Iterator[tuple[dict[str, object], list[float]]]:
    for (corpus, setting), cell in chosen(records).groupby(CELL, sort=False):
        for arm, other, scored_on in QUESTIONS:
            arms = cell.pivot(index="seed", columns="order", values=scored_on)
            if arm in arms and other in arms:
                about = {"corpus": corpus, "setting": setting, "arm": arm, "other": other, "scored_on": scored_on}
                yield about, (arms[arm] - arms[other]).dropna().tolist()


def _tested(table: pd.DataFrame, differences: list[list[float]], margin: float, level: float) -> pd.DataFrame:
    """Return a table with the columns of `paired_tests` that are told; a row without pairs has none of them."""
    tests = paired_tests([row or [math.nan] for row in differences], margin, level)
    found = table.assign(**{name: tests[name] for name in TESTED})
    return found.assign(seeds=[len(row) for row in differences])
