"""How well a ticket trains: `evaluate()` and the `Score` that it gives."""

import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .. import models
from ..data import Dataset
from ..seeding import choose_device, reproducible
from ..settings import shown
from ..training import Drive, Objective, Recipe, Training, epochs, objective_for
from ..training.loop import followed, plainly
from ..training.objective import check_objective, measured, scored
from .ticket import Ticket

Head = Literal["fresh", "own"]


def _by_name(value: str) -> property:
    """Return a property that gives one of a score's values by accuracy's name, where that is its metric."""

    def get(score: "Score") -> Any:
        if score.metric != "accuracy":
            raise AttributeError(f"this score is of {score.metric}, not of accuracy: see {value}")
        return getattr(score, value)

    return property(get, doc=f"`{value}`, where the metric is accuracy.")


@dataclass(frozen=True)
class Score:
    """How well a ticket trains.

    Attributes
    ----------
    value
        The metric on the test set, last epoch. Only to report: no choice may rest on it.
    validation_value
        The metric on the validation split, last epoch.
    best_epoch, best_validation_value, best_value
        Of the epoch that was best on validation, kept apart; `best_value` is its test metric.
    chance
        The metric of a network that has learnt nothing: of accuracy one over the number of classes; None: unknown.
    train_images, test_images
        How many images it was trained and tested on.
    image_epochs, seconds
        What this one training cost.
    curve
        The epochs of its `training.History`.
    metric, higher_is_better
        The metric's name and direction.
    others
        The objective's further measures of the test images, last epoch, by name.
    """

    value: float
    validation_value: float
    best_epoch: int
    best_validation_value: float
    best_value: float
    chance: float | None
    train_images: int
    test_images: int
    image_epochs: int
    seconds: float
    curve: list[dict[str, float]] = field(repr=False, default_factory=list)
    metric: str = "accuracy"
    higher_is_better: bool = True
    others: dict[str, float] = field(default_factory=dict)

    accuracy = _by_name("value")
    validation_accuracy = _by_name("validation_value")
    best_validation_accuracy = _by_name("best_validation_value")
    best_accuracy = _by_name("best_value")

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain Python objects, its values by the metric's name: "accuracy", "validation_accuracy", ...

        Metric and direction are said where they are not accuracy's, others where there are any.
        """
        told = {name.replace("value", self.metric): value for name, value in vars(self).items()}
        if self.metric == "accuracy":
            del told["metric"], told["higher_is_better"]
        if not self.others:
            del told["others"]
        return told

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Score":
        """Return the score of a stored dict; what is not known of it is left at its default, or None."""
        metric = values.get("metric", "accuracy")
        known: dict[str, Any] = {"metric": metric}
        for one in fields(cls):
            stored = one.name.replace("value", metric)
            if stored in values:
                known[one.name] = values[stored]
            elif one.default is MISSING and one.default_factory is MISSING:
                known.setdefault(one.name, None)
        return cls(**known)


def evaluate(
    ticket: Any,
    data: Dataset,
    recipe: Recipe,
    seed: int = 0,
    device: str | torch.device = "auto",
    threads: int = 1,
    *,
    objective: Objective | None = None,
    head: Head | None = None,
    drive: Drive = plainly,
) -> Score:
    """Train a ticket from theta0 on a full training set, with a fresh head, and test it.

    All of the recipe is trained, also from weights that were rewound to step k: those have k steps more behind them.
    The head, the order of the images and their augmentation come from `seed` alone, so tickets scored with one seed
    differ in nothing but themselves. On data of other classes or another image size this is transfer.

    Parameters
    ----------
    ticket
        What to score: a ticket, a round's, the one in a file, or any module as it stands (the dense ticket at these
        weights).
    data
        Trained on `data.train`; `data.validation` is scored each epoch, `data.test` at the end.
    recipe
        How to train.
    device, threads
        Where; CPU threads.
    objective
        What is learnt, and by which metric it is scored; None: what the network declares, else cross-entropy.
    head
        "fresh": a new head, drawn from `seed`; "own": theta0's. By default fresh, where the network has a head that is
        not its ticket's own (`Ticket.scored_anew`).
    drive
        As for `training.train`.

    Raises
    ------
    ValueError, FloatingPointError
        As `train`; for a fresh head of a network that has none.

    References
    ----------
    arXiv 2212.12770, section III.
    """
    if head not in (None, "fresh", "own"):
        raise ValueError(f"unknown head {head!r}; allowed: fresh, own")
    if not isinstance(data, Dataset):
        raise ValueError(f"data must be a Dataset, load('cifar10') for example, not {type(data).__name__}")
    if isinstance(ticket, nn.Module):
        ticket = Ticket.of(ticket)
    elif isinstance(ticket, str | Path):
        ticket = Ticket.load(ticket)
    elif not isinstance(ticket := getattr(ticket, "ticket", ticket), Ticket):  # of a round
        raise ValueError(f"ticket must be a Ticket, a Round, a ticket's file or a module, not {shown(ticket)}")
    if objective is not None:
        check_objective(objective)
    fresh = head == "fresh" or (head is None and ticket.scored_anew(len(data.classes)))
    network = ticket.model(len(data.classes) if fresh else None, seed)
    mask = ticket.mask_for(network, fresh_head=fresh)
    objective = (objective or objective_for(network)).fitted(data.train)
    training = Training(data.train, recipe, mask, data.validation, seed, threads, objective=objective)
    history = followed(epochs(network, training, device, drive))
    where, start = choose_device(device), time.perf_counter()
    with reproducible(where, seed, threads):
        last, others = scored(objective, network, data.test), measured(objective, network, data.test)
    assert history.best_state is not None and history.best_epoch is not None
    # The test set is looked at twice only where the best epoch is not the last; no choice rests on either.
    if (best := history.best_epoch) != len(history.epochs) - 1:
        models.fill(network, history.best_state)
        with reproducible(where, seed, threads):
            best_value = scored(objective, network, data.test)
    else:
        best_value = last
    validation = f"validation_{objective.metric}"
    return Score(
        value=last,
        validation_value=history.epochs[-1][validation],
        best_epoch=best,
        best_validation_value=history.epochs[best][validation],
        best_value=best_value,
        chance=objective.chance(data.train),
        train_images=len(data.train),
        test_images=len(data.test),
        image_epochs=history.images,
        seconds=history.seconds + time.perf_counter() - start,
        curve=history.epochs,
        metric=objective.metric,
        higher_is_better=objective.higher_is_better,
        others=others,
    )
