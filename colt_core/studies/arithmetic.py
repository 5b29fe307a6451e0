"""The arithmetic of rounds: how fast masks shrink, before anyone trains."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def keep_factor(rate: float, parts: int = 1, overlap: float | None = 1.0) -> float:
    """Return the share of a round's weights that is left after it.

    Parameters
    ----------
    rate
        The fraction of its weights that each copy loses, in (0, 1).
    parts
        Copies whose masks are overlapped; 1 is IMP.
    overlap
        The share of the weights kept so far that each further copy keeps too, in [0, 1]: `1 - rate` where the masks are
        independent, 1 where they are identical. None: the least there can be, where every copy drops other weights.

    References
    ----------
    arXiv 2212.12770, section III: the overlap of P masks keeps between 1 - P rate and 1 - rate.
    """
    if overlap is None:
        return max(0.0, 1 - parts * rate)
    return (1 - rate) * overlap ** (parts - 1)


def rounds_to(target: float, keep: float) -> int:
    """Return the rounds to a sparsity if each keeps the share `keep`; weights counted as if they were continuous."""
    if not (0 < target < 1 and 0 < keep < 1):
        raise ValueError(f"target and keep must lie strictly between 0 and 1, not {target} and {keep}")
    return math.ceil(math.log(1 - target) / math.log(keep) - 1e-9)


def kept_by_round(weights: int, rate: float, target: float, kept: int | None = None, share: float = 1.0) -> list[int]:
    """Return how many weights are left after every round in which exactly `round(rate * kept)` of them go.

    Parameters
    ----------
    weights
        How many there are.
    rate
        The fraction of what is left that a round removes.
    target
        The sparsity at which it ends; it ends too where a round would remove nothing.
    kept
        How many are left at the beginning, the list's first number; by default all.
    share
        The share of the weights that the target counts which these are, where it counts others too.
    """
    counts = [weights if kept is None else kept]
    while (1 - counts[-1] / weights) * share < target - 1e-12 and (lost := round(rate * counts[-1])):
        counts.append(counts[-1] - lost)
    return counts


def what_if(rate: float, parts: int, overlap: float, imp_rate: float, target: float) -> "pd.DataFrame":
    """Return the densities that arithmetic gives COLT, IMP at its own rate and IMP at COLT's, to a target sparsity.

    Parameters
    ----------
    rate, parts, overlap
        COLT's, see `keep_factor`.
    imp_rate
        IMP's own.
    target
        The sparsity to stop at.

    Returns
    -------
    pandas.DataFrame
        Columns method, round, density, keep; round 0 is dense. A round of any of them costs one pass of the recipe over
        the training set: P copies train on a P-th each.
    """
    import pandas as pd

    colt = keep_factor(rate, parts, overlap)
    keeps = {"imp": 1 - imp_rate, "colt": colt, "matched": colt}
    rows = [
        {"method": method, "round": number, "density": keep**number, "keep": keep}
        for method, keep in keeps.items()
        for number in range(rounds_to(target, keep) + 1)
    ]
    return pd.DataFrame(rows)
