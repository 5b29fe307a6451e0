"""Another network's tickets, laid over this one where their layers fit: transfer between tasks (see `cc.carried`)."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from .. import masks, models
from ..seeding import derive, generator
from ..settings import FrozenDict, JsonDict, Settings
from ..tickets import Round, Ticket
from ..tickets.carried import carried
from .method import Look, Method, Setting


class CarriedOptions(Settings):
    """Whose tickets are carried over: another network's, found by which method for what it declares.

    Controls: "random", a random mask with the same layers' densities over the carried weights; "redrawn", the mask over
    another initialisation of this network; without a source the network's own tickets stay as they are.
    """

    source: str | None = Field(None, min_length=1)
    source_args: JsonDict = FrozenDict()
    of: Literal["colt", "imp", "matched"] = "colt"
    control: Literal["random", "redrawn"] | None = None


def _followed(experiment: Any) -> Any:
    own = CarriedOptions(**experiment.options)
    other: dict[str, Any] = {"network": own.source, "network_args": own.source_args} if own.source else {}
    other["rate"] = None if experiment.rate == CARRIED.rate else experiment.rate  # not given: that method's own
    return experiment.changed(method=own.of, options={}, scores=None, score_on=None, scoring=None, **other)


def _find(setting: Setting) -> Iterator[Round]:
    """Return the rounds; a network of which nothing fits is refused before the search."""
    own = setting.own
    if own.source:
        other = models.build(own.source, len(setting.data.classes), setting.seed, **own.source_args)
        carried(Ticket.of(other), setting.network)
    return _carried(setting)


def _carried(setting: Setting) -> Iterator[Round]:
    own, about = setting.own, {**setting.options["provenance"]}
    for found in setting.remaining():
        about |= {"parent": found.ticket.hash}
        ticket = carried(found.ticket, setting.network) if own.source else found.ticket
        ticket = ticket.derived(**about, carried=own.source)
        if own.control == "random":
            rng = generator(setting.seed, "carried", found.number)
            ticket = ticket.derived(mask=masks.random_like(ticket.mask, rng), **about, control="random")
        elif own.control == "redrawn":
            ticket = ticket.redraw(derive(setting.seed, "carried"), **about, control="redrawn")
        yield Round(found.number, ticket, cost=found.cost)


CARRIED = Method(
    name="carried",
    about="another network's tickets where its layers fit: an encoder as a classifier, an autoencoder as a VAE",
    law=r"m^{\mathrm{here}}_{l} = m^{\mathrm{there}}_{l}, \quad \theta^{\mathrm{here}}_{0,l} = "
    r"\theta^{\mathrm{there}}_{0,l} \text{ for each layer } l \text{ of equal shape; the others stay whole}",
    papers=("2010.02350",),
    find=_find,
    look=Look("carried over", "#CC6677", (5, 0, 180)),
    follows=_followed,
    options=CarriedOptions,
    trains="never",
)
