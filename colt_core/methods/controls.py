"""Controls made from another method's rounds: what of a ticket matters, its layout, its mask or its initial weights?"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from .. import masks
from ..seeding import derive, generator
from ..settings import Settings
from ..tickets import Round
from .method import Look, Method


def random(rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None) -> Iterator[Round]:
    """Yield, for each round, theta0 under a random mask that keeps as many weights in each layer as the round's.

    `provenance` replaces what the round's ticket says of the experiment that made it; the ticket is named as parent.
    """
    for found in rounds:
        mask = masks.random_like(found.ticket.mask, generator(seed, "random mask", found.number))
        about = {**(provenance or {}), "control": "random", "drawn": seed}
        # A control keeps the round's number and cost: without that round it could not have been made.
        yield Round(found.number, found.ticket.derived(mask=mask, **about), cost=found.cost)


def reinit(rounds: Iterable[Round], seed: int = 0, provenance: Mapping[str, Any] | None = None) -> Iterator[Round]:
    """Yield, for each round, its mask over another random initialisation; `provenance` as for `random`."""
    for found in rounds:
        about = {**(provenance or {}), "control": "reinit", "drawn": seed}
        yield Round(found.number, found.ticket.redraw(derive(seed, "reinit"), **about), cost=found.cost)


class RandomOptions(Settings):
    """The method whose layers' densities a random mask is to have; None: COLT's."""

    layers_of: Literal["matched", "union", "consensus", "oneshot", "initial"] | None = None


def _layers_of(experiment: Any) -> Any:
    """Return the experiment whose rounds a random mask follows."""
    other = experiment.options.get("layers_of") or "colt"
    return experiment.changed(method=other, options={}, scores=None, score_on=None, scoring=None)


class ReinitOptions(Settings):
    """The method whose masks are laid over another initialisation; None: COLT's."""

    of: Literal["matched", "refill", "regroup", "super"] | None = None


def _of(experiment: Any) -> Any:
    """Return the experiment whose masks are taken."""
    other = experiment.options.get("of") or "colt"
    return experiment.changed(method=other, options={}, scores=None, score_on=None, scoring=None)


RANDOM = Method(
    name="random",
    about="a random mask with the layer densities of COLT's",
    law=r"m_t \text{ uniform among masks with } |m_{t,l}| = |m^{\mathrm{COLT}}_{t,l}| \text{ in each layer } l",
    papers=("1803.03635",),
    find=lambda s: random(s.remaining(), s.seed, s.options["provenance"]),
    look=Look("random, same layers", "#999999", "v"),
    follows=_layers_of,
    options=RandomOptions,
    trains="never",
    control=True,
)
REINIT = Method(
    name="reinit",
    about="COLT's mask over another random initialisation",
    law=r"(m^{\mathrm{COLT}}_t,\, \theta_0'), \qquad \theta_0' \text{ drawn anew}",
    papers=("1803.03635",),
    find=lambda s: reinit(s.remaining(), s.seed, s.options["provenance"]),
    look=Look("re-drawn weights", "#CC79A7", "P"),
    follows=_of,
    options=ReinitOptions,
    trains="never",
)
