"""Accuracy against measured speed: `pareto()`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .. import masks, report
from ..report.statistics import interval
from ..report.words import ACCURACY
from ..studies.experiment import Experiment
from ..studies.inputs import dataset_of
from ..studies.records import Place, saved_rounds
from ..tickets import Round, Ticket
from .speed import speed

if TYPE_CHECKING:
    import pandas as pd


CELL = ["network", "scored_on", "arm", "round"]


def pareto(
    experiments: Iterable[Experiment],
    records: "pd.DataFrame",
    store: Place = None,
    *,
    batch: int = 256,
    threads: int = 1,
    **how: Any,
) -> "pd.DataFrame":
    """Hold the accuracy of scored tickets against the speed that they are measured to have.

    Density says little of speed: a mask of scattered zeros makes nothing faster. A ticket of each arm and round, of
    the first seed whose files are there, is timed beside the dense network, see `speed`, in the form that was scored:
    a silent one when compact, any other under its mask, for what the normalisation of its dead channels has learnt is
    in its score and not in its compact form.

    Parameters
    ----------
    experiments, records
        Finished experiments, and what `study` returned of them.
    store
        Where their tickets are.
    batch, threads, **how
        As for `speed`; without `shape`, images are as large as those of the data set that the ticket is scored on.

    Returns
    -------
    pandas.DataFrame
        A row a network, data set, arm and scored round: `network`, `scored_on`, `method` (the arm), `round`, `density`,
        `form` (compact, masked, dense), `density_effective` (weights left in it), `accuracy`, `half_width`, `seeds`,
        `flops` (of dense's), `faster` (of dense's speed, measured), `fastest` and `slowest` (by the quartiles of both).

    Raises
    ------
    ValueError
        As `speed`; for no scores; where no `shape` is given and the data set cannot be read.
    FileNotFoundError
        Where the tickets of an arm are missing, every seed's.
    """
    import pandas as pd

    jobs = list(experiments)
    named = report.arms(records)
    scores = named[(named["kind"] == "score") & named["experiment"].isin({job.hash for job in jobs})]
    scores = scores[(scores["round"] > 0) | (scores["method"] == "dense")]  # all begin with the same dense ticket
    if not len(scores):
        raise ValueError("no records: there is no scored ticket to hold against its speed")
    if (metric := report.metric_of(scores)[0]) != ACCURACY:
        raise ValueError(f"accuracy is held against speed, and these are scored by {metric}")
    cells = dict(iter(scores.groupby(CELL, sort=False)))
    rows: list[dict[str, Any]] = []
    lost: dict[Any, FileNotFoundError] = {}
    for job in {job.hash: job for job in jobs}.values():  # in their order: the first seed comes first
        open_ = {cell: alike for cell, alike in cells.items() if job.hash in set(alike["experiment"])}
        for found in _there(job, store, open_, lost) if open_ else ():
            for cell in [cell for cell in open_ if cell[-1] == found.number]:
                alike = cells.pop(cell)
                mean, half = interval(alike.groupby("seed")["accuracy"].mean())
                about = dict(zip(("network", "scored_on", "method", "round"), cell, strict=True))
                about |= {"density": found.density, "accuracy": mean, "half_width": half}
                about |= {"seeds": alike["seed"].nunique()}
                seen = {"shape": dataset_of(job.score_on or job.dataset).train.shape} if "shape" not in how else {}
                rows.append(about | _timed(found.ticket, batch, threads, how | seen))
    for cell in cells:
        if cell in lost:
            raise lost[cell]
    if not rows:
        raise ValueError("the store holds no tickets of these experiments: name the one that does, store=...")
    return pd.DataFrame(rows).sort_values(["network", "method", "round"], kind="stable", ignore_index=True)


def _there(job: Experiment, store: Place, cells: Iterable[Any], lost: dict[Any, FileNotFoundError]) -> Iterator[Round]:
    """Yield an experiment's rounds up to the first whose file is missing: the next seed's may be there."""
    try:
        yield from saved_rounds(job, store)
    except FileNotFoundError as problem:
        lost.update(dict.fromkeys(cells, problem))


def _timed(ticket: Ticket, batch: int, threads: int, how: dict[str, Any]) -> dict[str, Any]:
    """Return how much smaller and faster a ticket is, in the form that was scored, than the dense network."""
    if ticket.density == 1:
        return {"form": "dense", "density_effective": 1.0} | dict.fromkeys(
            ("flops", "faster", "slowest", "fastest"), 1.0
        )
    silent = bool(ticket.architecture.get("silent"))
    # What cannot be made compact is refused here: `speed` would leave that form out.
    left = masks.count(ticket.effective()) / masks.size(ticket.mask) if silent else ticket.density
    table = speed(ticket, batches=[batch], threads=[threads], **how).set_index("form")
    form = "compact" if silent else "masked"
    dense, small = table.loc["dense"], table.loc[form]
    return {
        "form": form,
        "density_effective": left,
        "flops": small["flops"] / dense["flops"],
        "faster": small["faster"],
        "slowest": dense["low"] / small["high"],
        "fastest": dense["high"] / small["low"],
    }
