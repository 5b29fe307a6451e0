"""Averaged copies, a variant of COLT: the copies' weights are averaged after every epoch, and one mask is cut."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..compute.copies import Copy, Watch
from ..data import Images
from ..masks import Mask
from ..models import head_name
from ..tickets import Cost, Round, Ticket
from ..training import History, Recipe, Training
from .checks import check_several, one_head, refuse
from .cycles import Choose, Networks, Search, begin, beside, copies_of, cost_of, cycles, magnitude_masks
from .method import Look, Method


def averaged(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float = 0.15,
    target: float = 0.991,
    *,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find tickets as IMP does, but train by local SGD: a copy a partition, averaged after every epoch.

    With P workers a round takes a P-th of IMP's sequential steps, and the copies meet as often as there are epochs.
    Weights and running statistics are averaged (heads too, where all copies have the same classes); the optimiser's
    momentum begins anew after each average. The lowest fraction `rate` of the averaged weights goes. What a round tells
    of its copies (`accuracies`, `curves`) they had before the average.

    Parameters
    ----------
    network, parts, recipe, target, densities, **options
        As for `colt`.
    rate
        The fraction of the remaining weights that goes each round.

    Yields
    ------
    Round
        Round 0 is dense.

    Raises
    ------
    ValueError
        At the call, before any training.

    References
    ----------
    Local SGD: arXiv 1805.09767. Averages of lottery tickets: arXiv 2208.10842, 2305.14852.
    """
    check_several(parts, "averaged")
    search = begin(network, parts, recipe, rate, target, densities, options)
    refuse(search.options, "copies that are averaged")

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(
            copies[:1], mask, search.step(mask, number), search.options.scope
        )  # averaged, they are all alike
        return kept, kept[0]

    return cycles(search, choose, train=_local_sgd)


def _local_sgd(
    search: Search, ticket: Ticket, number: int, choose: Choose, before: list[Copy]
) -> tuple[list[Copy], Cost]:
    """Train the copies of a round an epoch at a time, and average them after each."""
    networks, trainings = copies_of(search, ticket, number)
    own = not one_head(search.network, search.parts)
    head = f"{head_name(search.network)}." if own else None
    copies = [Copy(network, training) for network, training in zip(networks, trainings, strict=True)]
    cost = Cost()
    for epoch in range(max(_epochs(training) for training in trainings)):
        # Of unequal parts one may have an epoch less: its copy stands still, and is averaged as it is.
        going = [copy for copy in copies if epoch < _epochs(copy.training)]
        pieces = [_piece(copy.training, epoch) for copy in going]
        watch = _watch(search, number, copies, going)
        trained = beside(search, [copy.network for copy in going], pieces, watch=watch)
        average(networks, head)
        cost += Cost.beside(map(cost_of, trained))
        for copy, piece in zip(going, trained, strict=True):
            copy.history = _joined(copy.history, piece.history, copy.training)
    return copies, cost


def _watch(search: Search, number: int, copies: list[Copy], going: list[Copy]) -> Watch | None:
    """Return what tells whoever watches the search of an epoch: the histories since the round began."""
    told, done = search.where.watch, [copy.history for copy in going]
    if told is None:
        return None
    places = [copies.index(copy) for copy in going]
    return lambda i, history: told(number, places[i], _joined(done[i], history, going[i].training))


def _epochs(training: Training) -> int:
    """Return the epochs of a training, one that is begun counted whole."""
    first = training.first_step // training.steps_per_epoch
    return math.ceil(training.end / training.steps_per_epoch) - first


def _piece(training: Training, epoch: int) -> Training:
    """Return one epoch of a training."""
    whole, first = training.steps_per_epoch, training.first_step // training.steps_per_epoch
    begins, ends = max(training.first_step, (first + epoch) * whole), (first + epoch + 1) * whole
    return replace(training, first_step=begins, steps=min(ends, training.end) - begins)


def _joined(done: History, more: History, training: Training) -> History:
    """Return the history of a training from those of its pieces."""
    return History(
        [*done.epochs, *more.epochs], _epochs(training), done.images + more.images, done.steps + more.steps,
        done.seconds + more.seconds, metric=more.metric,
    )  # fmt: skip


@torch.no_grad()
def average(networks: Networks, head: str | None = None) -> None:
    """Give all networks the mean of their weights and running statistics; `head`: but not what begins like this."""
    states = [network.state_dict() for network in networks]
    for name, first in states[0].items():
        if first.is_floating_point() and not (head and name.startswith(head)):
            # In float64: the order of the copies shall not show in the last bit.
            mean = torch.stack([state[name].cpu().double() for state in states]).mean(0)
            for state in states:
                state[name].copy_(mean)


AVERAGED = Method(
    name="averaged",
    about="copies averaged after every epoch (local SGD), one cut of the average, at COLT's densities",
    law=r"m_{t+1} = \operatorname{top}(|\bar w|;\, m_t) \text{ of density } d_{t+1}, \qquad w_i \leftarrow "
    r"\bar w = \frac{1}{P}\sum_{j=1}^{P} w_j \text{ after every epoch}",
    papers=("1805.09767", "2208.10842", "2305.14852"),
    find=lambda s: s.over_partitions(averaged, densities=s.trajectory()),
    look=Look("averaged copies", "#661100", "H"),
    follows="colt",
    takes="densities",
    trains="copies",
    contender=True,
)
