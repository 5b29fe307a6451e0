"""Elastic tickets: another depth's tickets, stretched or squeezed, and what of them matters (2103.16547)."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from .. import masks, models
from ..masks import Mask
from ..seeding import derive, generator
from ..settings import Settings
from ..tickets import Round, Ticket
from ..tickets.elastic import Order, block_of
from ..tickets.elastic import elastic as stretched
from .method import Look, Method, Setting

Control = Literal["random", "permuted", "redrawn", "dense"]


class ElasticOptions(Settings):
    """Whose tickets are stretched: another network's, found by which method; in which order, and as which control.

    Without a source they are the network's own, which stay as they are.

    Controls: "random", a random mask with the same layers' densities over the copied weights; "permuted", each copied
    block's masks shuffled within their layers, those of first blocks kept; "redrawn", the mask over another
    initialisation of the target; "dense", the copied weights without a mask.
    """

    source: str | None = Field(None, min_length=1)
    of: Literal["colt", "imp", "matched"] = "colt"
    order: Order = "append"
    control: Control | None = None

    @field_validator("source")
    @classmethod
    def _a_network(cls, value: str | None) -> str | None:
        if value is not None and ":" not in value:  # other code is not imported to be read
            models.check_network(value)
        return value


def _followed(experiment: Any) -> Any:
    own = ElasticOptions(**experiment.options)
    network, rate = own.source or experiment.network, None if experiment.rate == ELASTIC.rate else experiment.rate
    how: dict[str, Any] = {"rate": rate, "options": {}, "scores": None, "score_on": None, "scoring": None}
    return experiment.changed(network=network, method=own.of, **how)  # a rate that nobody gave is that method's own


def _find(setting: Setting) -> Iterator[Round]:
    """Return the rounds; another family is refused before the search."""
    about, own = models.architecture(setting.network), setting.own
    if own.source:
        other = models.build(own.source, len(setting.data.classes), setting.seed, **about["arguments"])
        stretched(Ticket.of(other), about["name"], own.order)
    return _stretched(setting, about["name"])


def _stretched(setting: Setting, name: str) -> Iterator[Round]:
    """Yield, for each round of the other depth, its stretched ticket; the search is its, and is paid once."""
    own = setting.own
    for found in setting.remaining():
        ticket = stretched(found.ticket, name, own.order)
        before = found.ticket.hash if own.source else found.ticket.provenance.get("parent")
        about = {**setting.options["provenance"], "elastic": f"{own.source or name} {own.order}", "parent": before}
        if own.control == "redrawn":
            ticket = ticket.redraw(derive(setting.seed, "elastic"), **about)
        elif own.control:
            ticket = ticket.derived(mask=_control(ticket, own.control, setting.seed, found.number), **about)
        yield Round(found.number, ticket.derived(**about), cost=found.cost)


def _control(ticket: Ticket, control: Control, seed: int, number: int) -> Mask:
    rng = generator(seed, "elastic", control, number)
    if control == "dense":
        return {name: torch.ones_like(kept) for name, kept in ticket.mask.items()}
    if control == "random":
        return masks.random_like(ticket.mask, rng)
    shuffled = masks.random_like(ticket.mask, rng)
    stages: Any = getattr(ticket.model(), "stages", ())
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    places = {name: block_of(name, stages) for name in ticket.mask}
    return {n: shuffled[n] if (place := places[n]) and place[1] else kept for n, kept in ticket.mask.items()}


ELASTIC = Method(
    name="elastic",
    about="another depth's tickets, whole blocks repeated or left out (2103.16547); no search of its own",
    law=r"m^{\mathrm{target}}_{b} = m^{\mathrm{source}}_{\sigma(b)}, \quad \theta^{\mathrm{target}}_{0,b} = "
    r"\theta^{\mathrm{source}}_{0,\sigma(b)} \text{ for each block } b",
    papers=("2103.16547",),
    find=_find,
    look=Look("elastic", "#AA3377", (3, 0, 90)),
    follows=_followed,
    options=ElasticOptions,
    trains="never",
)
