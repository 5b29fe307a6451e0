"""What a choice on validation is worth on the test set, beside an arm that was chosen in the same way: `best_of`."""

import pandas as pd

from .arms import arms
from .records import left, metric_of


def best_of(records: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Choose for each seed an arm's ticket by validation, and report its test score minus the dense network's.

    Picking the best of several looks better than it is: hold what it gains against an arm of random cuts that was
    picked in the same way, seed by seed. The dense ticket, round 0, is no candidate.

    Parameters
    ----------
    records
        Of `study`; rounds of the arm scored, and the dense network's scores for the same seeds.
    arm
        Its name, see `arms`.

    Returns
    -------
    pandas.DataFrame
        A row a seed: `seed`, `round`, `sparsity` (chosen), the metric's test value under its own name, `dense`, `gain`.

    Raises
    ------
    ValueError
        In one line: no scores of the arm, or of the dense network; scores on several data sets, of several networks
        or in several ways.
    """
    named = arms(records)
    scores = named[named["kind"] == "score"]
    mine = scores[(scores["arm"] == arm) & (scores["round"] > 0)]
    for name, several in {"scored_on": "on several data sets", "network": "of several networks"}.items():
        if name in mine and mine[name].nunique() > 1:
            raise ValueError(f"the records have scores {several} ({', '.join(sorted(set(mine[name])))}): take one")
    dense = scores[scores["method"] == "dense"]
    for name in ("scored_on", "network", "scored_by"):  # the dense network's that were made as the arm's were
        if name in scores and len(mine):
            dense = dense[dense[name].fillna("") == mine[name].fillna("").iloc[0]]
    if not len(mine) or not len(dense):
        raise ValueError(f"there are no scores of {arm if not len(mine) else 'the dense network'} to choose among")
    if dense["seed"].duplicated().any():
        raise ValueError("the records have several dense networks of one seed: take one")
    dense = dense.set_index("seed")
    metric, higher_is_better = metric_of(scores)
    best = chosen(mine, metric, higher_is_better).set_index("seed")
    best = best.join(dense[metric].rename("dense"), how="inner").reset_index()
    best["sparsity"] = 1 - left(best)
    best["gain"] = (best[metric] - best["dense"]) * (1 if higher_is_better else -1)
    return best[["seed", "round", "sparsity", metric, "dense", "gain"]]


def chosen(scores: pd.DataFrame, metric: str, higher_is_better: bool) -> pd.DataFrame:
    """Return each seed's score of the best validation metric; of equal ones what was cut least, never round 0."""
    cut = scores[scores["round"] > 0]
    validation = cut[f"validation_{metric}"] if higher_is_better else -cut[f"validation_{metric}"]
    order = cut.assign(rank=validation).sort_values(["rank", "round"], ascending=[False, True], kind="stable")
    return order.drop_duplicates("seed").sort_values("seed", ignore_index=True)
