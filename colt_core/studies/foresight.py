"""What makes a run's numbers mean nothing, said before anything is trained: `doubts()`."""

from .. import data as datasets
from ..methods import method_of
from .arithmetic import keep_factor
from .experiment import Experiment
from .inputs import dataset_of


def doubts(experiment: Experiment, load: bool = True) -> list[str]:
    """Return a sentence on each setting that makes nonsense look like a result; none where all is well.

    Of a method that follows COLT they are those of the COLT run.

    Parameters
    ----------
    load
        Whether to load the data to count its classes; else only sets whose names tell are looked at.
    """
    e = [experiment, *experiment.references()][-1]
    if method_of(e.method).copies_of(e) < 2:
        return []
    found = []
    classes = datasets.count_classes(e.dataset) or (len(dataset_of(e.dataset).classes) if load else 0)
    alone = e.parts - classes % e.parts if classes // e.parts == 1 else 0
    if e.by == "class" and alone:
        found.append(
            f"{alone} of {e.parts} copies have a single class to learn: they reach 100 % at loss 0 whatever they keep, "
            f"so neither that nor the agreement of their masks means anything; take at most {classes // 2} partitions, "
            "or another split"
        )
    keep = keep_factor(e.rate, e.parts, 1 - e.rate)
    if e.method == "colt" and e.densities is None and keep < 1 - e.target:
        found.append(
            f"a single round may end it: {e.parts} copies that lose {e.rate:.0%} each, independently, leave "
            f"{_share(keep)} of the weights, less than the target's {_share(1 - e.target)}; no cycle follows, and "
            "layers may be left without a weight (collapse); take a lower rate or fewer partitions"
        )
    return found


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"
