"""Controls made from another method's rounds: what of a ticket matters, its layout, its mask or its initial weights?"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .. import masks
from ..seeding import derive, generator
from ..tickets import Round, Ticket


def random(rounds: Iterable[Round], seed: int = 0) -> Iterator[Round]:
    """Yield, for each round, theta0 under a random mask that keeps as many weights in each layer as the round's."""
    for found in rounds:
        mask = masks.random_like(found.ticket.mask, generator(seed, "random mask", found.number))
        ticket = replace(found.ticket, mask=mask, provenance=found.ticket.provenance | {"random": seed})
        yield _control(found, ticket)


def reinit(rounds: Iterable[Round], seed: int = 0) -> Iterator[Round]:
    """Yield, for each round, its mask over another random initialisation."""
    for found in rounds:
        yield _control(found, found.ticket.redraw(derive(seed, "reinit")))


def _control(found: Round, ticket: Ticket) -> Round:
    """The control keeps the round's number and cost: without that round it could not have been made."""
    return Round(found.number, ticket, cost=found.cost)
