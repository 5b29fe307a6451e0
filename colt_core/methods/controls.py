"""Controls made from another method's rounds: what of a ticket matters, its layout, its mask or its initial weights?"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import masks
from ..seeding import derive, generator
from ..tickets import Round, Ticket


def random(rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None) -> Iterator[Round]:
    """Yield, for each round, theta0 under a random mask that keeps as many weights in each layer as the round's.

    `provenance` replaces what the round's ticket says of the experiment that made it; the ticket is named as parent.
    """
    for found in rounds:
        mask = masks.random_like(found.ticket.mask, generator(seed, "random mask", found.number))
        yield _control(found, replace(found.ticket, mask=mask), {"control": "random", "drawn": seed}, provenance)


def reinit(rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None) -> Iterator[Round]:
    """Yield, for each round, its mask over another random initialisation; `provenance` as for `random`."""
    for found in rounds:
        other = found.ticket.redraw(derive(seed, "reinit"))
        yield _control(found, other, {"control": "reinit", "drawn": seed}, provenance)


def _control(found: Round, ticket: Ticket, about: dict[str, Any], provenance: Mapping[str, Any] | None) -> Round:
    """The control keeps the round's number and cost: without that round it could not have been made."""
    about = found.ticket.provenance | dict(provenance or {}) | {"parent": found.ticket.hash} | about
    return Round(found.number, replace(ticket, provenance=about), cost=found.cost)
