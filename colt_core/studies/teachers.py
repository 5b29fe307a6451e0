"""The networks that teach: trained once, by cross-entropy in an experiment's recipe, and looked up afterwards."""

from torch import nn

from .. import models
from ..compute.checkpoints import train_kept
from ..compute.store import Store
from ..data import Dataset, Shape
from ..seeding import choose_device
from ..tickets import Ticket
from ..tickets.score import Head
from ..training import Training
from .experiment import Experiment


def teacher(
    called: str,
    experiment: Experiment,
    data: Dataset,
    store: Store,
    device: str,
    threads: int,
    ticket: Ticket | None = None,
) -> nn.Module:
    """Return a trained network: "dense", the experiment's own unpruned; "self", its ticket; or a network by its name.

    Raises
    ------
    ValueError
        For an unknown name; for "self" where no ticket is scored.
    FloatingPointError
        If its training diverges.
    """
    network, training = lesson(called, experiment, data, threads, ticket)
    train_kept(network, training, store, choose_device(device))
    return network


def untrained(called: str, experiment: Experiment, data: Dataset, ticket: Ticket | None = None) -> nn.Module:
    """Return the network that `teacher` would train, as it is before: what is refused is refused before any training.

    Raises
    ------
    ValueError
        In one line that names it: as `teacher`, and where it cannot learn to classify these images.
    """
    try:
        network, training = lesson(called, experiment, data, 1, ticket)
        training.check(network)
    except ValueError as problem:
        raise ValueError(f"{called!r}, which is to teach or to judge: {problem}") from None
    return network


def by_name(called: str, classes: int, shape: Shape, seed: int = 0) -> nn.Module:
    """Return a network that is only named, for images of a shape: our own take grey ones too. Errors as `build`."""
    if shape[0] != 3 and called in models.NETWORKS:
        return models.build(called, classes, seed, channels=shape[0])
    return models.build(called, classes, seed)


def head_of(experiment: Experiment, ticket: Ticket | None = None) -> Head | None:
    """Return the head of an experiment's scores: what its `scoring` says, else the usual one (None).

    A head that a ticket has learnt with its weights knows the classes of that data set: on another a fresh one.
    """
    if experiment.scoring and experiment.scoring.head:
        return experiment.scoring.head
    elsewhere = experiment.score_on not in (None, experiment.dataset)
    own = ticket is not None and ticket.architecture.get("own_head") and ticket.has_head
    return "fresh" if elsewhere and own else None


def lesson(
    called: str, experiment: Experiment, data: Dataset, threads: int, ticket: Ticket | None
) -> tuple[nn.Module, Training]:
    """Return the network that is to teach, as it is before, and its training."""
    classes, mask = len(data.classes), None
    if called == "self":
        if ticket is None:
            raise ValueError("a ticket is its own teacher when it is scored, not while it is looked for")
        head = head_of(experiment, ticket)
        fresh = ticket.scored_anew(classes) if head is None else head == "fresh"
        network = ticket.model(classes if fresh else None, experiment.seed)
        mask = ticket.mask_for(network, fresh_head=fresh)
    elif called == "dense":
        network = models.build(experiment.network, classes, experiment.seed, **experiment.network_args)
    else:
        network = by_name(called, classes, data.train.shape, experiment.seed)
    return network, Training(data.train, experiment.recipe, mask, data.validation, experiment.seed, threads)
