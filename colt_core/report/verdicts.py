"""The answer in one table: claim, verdict, one number, and the runs that it rests on."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from .answer import FAST, Answer
from .arms import called
from .compare import verdict
from .words import level, sized, spread

# What the paper says, or what must hold for it to mean something; the control; what the verdict on COLT minus it means.
NOT_WORSE = {"worse": "fails", "equivalent": "holds", "better": "holds", "better, yet equivalent": "holds"}
NOT_WORSE["worse, yet equivalent"] = "holds"  # by less than half of what IMP gains
BETTER = {"better": "holds", "worse": "fails", "equivalent": "fails", "better, yet equivalent": "holds"}
BETTER["worse, yet equivalent"] = "fails"
NOTHING = 0.01  # of a Jaccard index: agreement that is worth nothing
CLAIMS = (
    ("as accurate as the unpruned network", "dense", NOT_WORSE),
    ("as accurate as IMP at the same densities", "matched", NOT_WORSE),
    ("as accurate as IMP at its usual rate", "imp", NOT_WORSE),
    ("the overlap picks weights: better than a random mask with its layer densities", "random", BETTER),
    ("the overlap matters: better than the union of the same copies", "union", BETTER),
)


def verdicts(found: Answer) -> pd.DataFrame:
    """Return a row a claim: whether it holds, fails, or is undecided or untested; one number; its scope.

    The number is that of the first study's first run, the longest trainings; how the others end is counted beside it.
    """
    rows = [_accuracy(found, *claim) for claim in CLAIMS]
    rows.insert(3, _rounds(found))
    rows += [_learnt(found), _moved(found), _untested(found)]
    return pd.DataFrame([row for row in rows if row], columns=["claim", "verdict", "number", "scope"])


def _runs(found: Answer, other: str) -> list[Any]:
    """Return the rows of COLT minus a control over all sparsities, those with enough seeds, the first study's first."""
    whole = found.differences[found.differences["whole"] & found.differences["other"].eq(other)]
    return [row for row in whole.itertuples() if verdict(row) != "too few seeds"]


def _accuracy(found: Answer, claim: str, other: str, means: dict[str, str]) -> tuple[str, ...] | None:
    """Return a claim about accuracy, over all sparsities."""
    runs = _runs(found, other)
    if not runs:
        return None
    first, said = runs[0], [means.get(verdict(row), "undecided") for row in runs]
    number = f"{spread(first.difference, first.half_width)} points"
    return claim, said[0], number, f"{_where(first)}, {first.seeds} seeds{_others(said[1:])}"


def _where(row: Any) -> str:
    return f"`{row.study}`: {row.network}, {sized(row.scored_on, row.train_images)}"


def _others(said: Iterable[str]) -> str:
    counts = Counter(said)
    told = ", ".join(f"{word} in {count}" for word, count in counts.most_common())
    return f"; other runs: {told}" if counts else ""


def _rounds(found: Answer) -> tuple[str, ...] | None:
    """Return the claim about rounds, at the highest sparsity of the run that the other rows are about."""
    runs = _runs(found, "imp")
    if not runs:
        return None
    first = runs[0]
    rows = found.rounds.xs((first.study, first.network, first.scored_on), level=("study", "network", "dataset"))
    at, last = rows.index[-1], rows.iloc[-1]
    said = [f"{'holds' if last['colt'] < last[other] else 'fails'} against {called(other)}" for other in FAST[1:]]
    told = [f"{called(other)} {last[other]:.0f}" for other in FAST[1:]]
    number = f"{last['colt']:.0f} cycles; {', '.join(told)} rounds"
    return "in fewer rounds than IMP", ", ".join(said), number, f"{_where(first)}, to {level(at)}; each costs the same"


def _learnt(found: Answer) -> tuple[str, ...] | None:
    """Return the claim that the copies' agreement means something: in the first cycle, beyond theta0's share of it."""
    table = found.agreement
    rows = [row for row in table[table["round"] == 1].itertuples() if not math.isnan(row.learnt_half)]
    if not rows:
        return None
    said = []
    for row in rows:
        low, high = row.learnt - row.learnt_half, row.learnt + row.learnt_half
        nothing = low > -NOTHING and high < NOTHING
        said.append("fails" if nothing else "holds" if low > 0 else "undecided")
    study = next(iter(found.levels))[0]
    order = sorted(range(len(rows)), key=lambda i: not str(rows[i].dataset).startswith(f"{study}: "))
    first, others = rows[order[0]], [said[i] for i in order[1:]]
    name, _, data = str(first.dataset).partition(": ")
    number = f"{first.learnt:+.3f} ± {first.learnt_half:.3f} of Jaccard index"
    scope = f"`{name}`: {sized(data, first.train_images)}, {first.network}, cycle 1, {first.seeds} seeds"
    scope += f"; fails means under {NOTHING:g}{_others(others)}"
    return "the copies agree on more than they were born with", said[order[0]], number, scope


def _moved(found: Answer) -> tuple[str, ...] | None:
    """Return the claim about transfer: the mean over all pairs of data sets, minus the target's own tickets."""
    rows = found.gains[found.gains["source"].eq("all") & found.gains["against"].eq("own")]
    if not len(rows):
        return None
    said = list(dict.fromkeys(NOT_WORSE.get(verdict(row), "undecided") for row in rows.itertuples()))
    numbers = [f"{spread(row.difference, row.half_width)}" for row in rows.itertuples()]
    scope = (
        f"mean of all pairs of {', '.join(found.among)}, at {' and '.join(level(row.at) for row in rows.itertuples())}"
    )
    return "tickets transfer: as good as the target's own", " / ".join(said), f"{' / '.join(numbers)} points", scope


def _untested(found: Answer) -> tuple[str, ...] | None:
    """Name what the paper shows and no run here has."""
    lacking = found.say_evidence()[-1].partition(": ")[2]
    return ("the same with the paper's networks and 50 epochs", "untested", "-", f"not in `results/`: {lacking}")
