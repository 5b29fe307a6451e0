"""The loop that the iterative finders share, train, prune, rewind to theta0, repeat; and the straight cuts."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from .. import masks, models
from ..compute.checkpoints import train_kept
from ..compute.copies import Copy, train_side_by_side
from ..data import Images
from ..files import Tensors
from ..masks import Mask, Overlap
from ..seeding import choose_device, derive
from ..settings import meant
from ..tickets import Cost, Round, Ticket
from ..training import Recipe, Settling, Training, doubt, objective_for
from ..version import __version__
from .checks import check_inputs, first_step, heads_of, share_counted, stopping_rule
from .options import Options, Where

Networks = list[nn.Module]
Choose = Callable[[Networks, Mask, int], tuple[list[Mask], Mask]]
Scores = Callable[[Networks, Mask], Tensors]
Reshape = Callable[[Ticket, Networks], Mask]
Train = Callable[["Search", Ticket, int, Choose, list[Copy]], tuple[list[Copy], Cost]]


@dataclass(frozen=True, eq=False)
class Search:
    """A search that is about to begin: all its inputs have been checked.

    Attributes
    ----------
    network, parts, recipe, options, where
        The finder's arguments.
    dense
        The mask that keeps everything prunable.
    done
        Tells whether a mask after so many rounds is the last.
    rate, densities
        The finder's, see `step`.
    """

    network: nn.Module
    parts: list[Images]
    recipe: Recipe
    options: Options
    where: Where
    dense: Mask
    done: Callable[[int, Mask], bool]
    rate: float
    densities: list[float] | None

    @cached_property
    def start(self) -> Round:
        """Round 0: the dense ticket at the rewind point, found once."""
        return first_round(self)

    def step(self, mask: Mask, number: int) -> float:
        """Return the fraction of a mask's weights that round `number` takes: the rate, or what leads to its density."""
        return self.rate if self.densities is None else rate_to(self.densities[number - 1], mask)


def begin(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    rate: float,
    target: float,
    densities: list[float] | None,
    given: dict[str, Any],
) -> Search:
    """Check a finder's arguments, so that nothing is refused after a training has begun.

    `given` are its keyword options: those of `Options` and of `Where`. Errors are those of `check_inputs` and
    `stopping_rule`, and a `ValueError` for an option that there is not.
    """
    models.architecture(network)  # refuses what is none
    places = {one.name for one in fields(Where)}
    known = [one.name for one in fields(Options)] + sorted(places)
    if odd := [name for name in given if name not in known]:
        raise ValueError(f"unknown option {odd[0]!r}; allowed: {', '.join(known)}{meant(odd[0], known)}")
    own = {"objective": objective_for(network)}  # what the network declares, where nothing is said
    options = Options(**own | {name: value for name, value in given.items() if name not in places})
    where = Where(**{name: value for name, value in given.items() if name in places})
    check_inputs(network, parts, recipe, options)
    if options.resume is not None:
        options.resume.ticket.check_fit(network)
    names = models.prunable(network, options.stem, options.head)
    if not names:
        raise ValueError(f"{models.architecture(network)['name']} has no prunable weights; name some: prunable=[...]")
    if not any(network.get_parameter(name).requires_grad for name in names):
        raise ValueError("every prunable weight is frozen (requires_grad=False): nothing would be learnt")
    dense = masks.dense(dict(network.named_parameters()), names)
    classes = max(len(part.classes) for part in parts)
    share = share_counted(dense, network, classes) if options.count_all else 1.0
    done = stopping_rule(densities, rate, target, dense, options.scope, share)
    return Search(network, parts, recipe, options, where, dense, done, rate, densities)


def cycles(
    search: Search, choose: Choose, reshape: Reshape | None = None, train: Train | None = None, silent: bool = False
) -> Iterator[Round]:
    """Yield rounds: train a copy on each part, choose what is kept, rewind, repeat, until the search is done.

    Parameters
    ----------
    search
        See `begin`.
    choose
        Called with the trained copies, the mask they were trained under and the round's number; gives each copy's own
        mask and the combined one.
    reshape
        Called with each round's ticket and its trained copies: gives the mask that is yielded in place of the ticket's,
        while the loop goes on with its own.
    train
        How the copies of a round are trained; by default each by itself, see `train_round`.
    silent
        Channels that a reshaped mask cuts whole are zero when it is scored, see `Ticket.silent`.
    """
    options, known = search.options, search.options.done
    # Running statistics lie in no ticket: where they are kept, every training is looked up again.
    last = options.resume if options.resume and not options.keep_statistics else search.start
    copies: list[Copy] = []
    if known < 0:
        yield last
    while not search.done(last.number, mask := last.ticket.mask if last.own is None else last.own):
        number = last.number + 1
        before = last.ticket if last.own is None else last.ticket.derived(mask=last.own).silent(False)
        copies, spent = (train or train_round)(search, before, number, choose, copies)
        networks = [copy.network for copy in copies]
        kept, combined = choose(networks, mask, number)
        ticket = before.derived(mask=combined, parent=last.ticket.hash, **provenance(options, number))
        several = len(kept) > 1  # of a single copy there is nothing to compare
        last = Round(
            number,
            ticket if reshape is None else _shaped(ticket, reshape(ticket, networks), last.ticket.hash, silent),
            partition_masks=kept if several else [],
            overlap=Overlap.of(kept, mask, combined, before.theta0, options.scope) if several else None,
            cost=last.cost + spent,
            own=None if reshape is None else combined,
            **told(copies),
        )
        if number > known:
            yield last


def _shaped(ticket: Ticket, mask: Mask, parent: str, silent: bool) -> Ticket:
    """Return the ticket that is yielded in another's place."""
    shaped = ticket.derived(mask=mask, parent=parent)
    return shaped.silent() if silent else shaped


def by_scores(search: Search, scores: Scores, train: Train | None = None) -> Iterator[Round]:
    """Yield rounds in which the weights go that the copies together score lowest; see `cycles`.

    `scores` gives a value for each weight of a mask from the copies trained under it. What each copy alone would have
    kept, by magnitude, are the rounds' `partition_masks`.
    """

    def choose(copies: Networks, mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        rate, scope = search.step(mask, number), search.options.scope
        return magnitude_masks(copies, mask, rate, scope), masks.prune_lowest(scores(copies, mask), mask, rate, scope)

    return cycles(search, choose, train=train)


@dataclass(frozen=True, eq=False)
class Cut:
    """How the dense network is cut straight to any density: `mask(density)`, what that cost, what to tell of it."""

    mask: Callable[[float], Mask]
    cost: Cost
    told: dict[str, Any] = field(default_factory=dict)


def straight(search: Search, densities: list[float], prepare: Callable[[Round], Cut]) -> Iterator[Round]:
    """Yield the dense round, and one a density, each cut from the dense network: one-shot, and at initialisation.

    `prepare` is called once, with the dense round, and only where there is anything left to cut.
    """
    dense, done = search.start, search.options.done
    if done < 0:
        yield dense
    if done >= len(densities):
        return
    cut = prepare(dense)
    for number, density in enumerate(densities, 1):
        if number > done:
            ticket = dense.ticket.derived(mask=cut.mask(density), round=number)
            yield Round(number, ticket, cost=dense.cost + cut.cost, **cut.told)


# --- the steps of a round ----------------------------------------------------------------------------------------


def first_round(search: Search) -> Round:
    """Return round 0: the dense ticket at the rewind point, and what getting there cost."""
    options, where = search.options, search.where
    start, cost = deepcopy(search.network), Cost()  # the caller's network is never changed
    if options.rewind and options.whole is not None:
        training = Training(
            options.whole, search.recipe, seed=derive(options.seed, "rewind"), steps=options.rewind,
            threads=where.threads, objective=options.objective.fitted(options.whole),
        )  # fmt: skip
        history = train_kept(start, training, where.store, choose_device(where.device))
        cost = cost_of(Copy(start, training, history=history))
    ticket = Ticket.of(start, names=list(search.dense))
    about = provenance(options, 0) | {"parent": None}
    return Round(0, replace(ticket, provenance=about), cost=cost)


def train_round(
    search: Search, ticket: Ticket, number: int, choose: Choose, before: list[Copy] | None = None
) -> tuple[list[Copy], Cost]:
    """Train a copy of a ticket on each part, from theta0 under the mask; heads fit the part's classes.

    `choose` is how masks will be drawn from the copies: what early-bird stopping watches. `before` are the copies of
    the last round, whose running statistics the new ones take over where they are not rewound.
    """
    options, where = search.options, search.where
    networks, trainings = copies_of(search, ticket, number, before)
    early, best = options.early_bird, options.best_epoch and number == 1
    settled = Settling(early, ticket.mask, lambda now: choose(now, ticket.mask, number)) if early else None
    watch = partial(where.watch, number) if where.watch else None
    copies = beside(search, networks, trainings, settled=settled, keep_best=best, watch=watch)
    for copy in copies if best else []:  # the authors' code prunes the best epoch's weights, in the first round
        models.fill(copy.network, copy.history.best_state or {})
    return copies, Cost.beside(map(cost_of, copies))


def beside(search: Search, networks: Networks, trainings: list[Training], **how: Any) -> list[Copy]:
    """Train networks side by side where the search computes; see `train_side_by_side`."""
    where = search.where
    return train_side_by_side(networks, trainings, device=where.device, workers=where.workers, store=where.store, **how)


def copies_of(
    search: Search, ticket: Ticket, number: int, before: list[Copy] | None = None
) -> tuple[Networks, list[Training]]:
    """Return a ticket's copies before their training, and the training of each."""
    options, where = search.options, search.where
    heads = heads_of(search.network, search.parts)
    networks = [ticket.model(classes, options.seed) for classes in heads]  # the rewind: theta0 under the mask
    for network, old in zip(networks, before or [] if options.keep_statistics else [], strict=False):
        models.fill(network, dict(old.network.named_buffers()), strict=False)
    trainings = [
        Training(
            part,
            search.recipe,
            mask=ticket.mask_for(network, fresh_head=classes is not None),
            validation=options.validation[i] if options.validation else None,
            # Of its round and its part alone: no training depends on which others ran before it.
            seed=derive(options.seed, "train", number, i),
            threads=where.threads,
            first_step=first_step(part, search.recipe, options),
            objective=options.objective.fitted(part),
        )
        for i, (part, network, classes) in enumerate(zip(search.parts, networks, heads, strict=True))
    ]
    return networks, trainings


def cost_of(copy: Copy) -> Cost:
    """Return what training a copy has cost."""
    done, images = copy.history, copy.training.images
    each = step_flops(copy.network, images) + copy.training.objective.forwards(images)
    return Cost(done.images, done.images * each, done.seconds, done.steps)


def step_flops(network: nn.Module, images: Images) -> float:
    """Return the FLOPs of training on one image: forward, and backward at twice that."""
    return 3.0 * models.forward_flops(network, images.shape)


def told(copies: list[Copy]) -> dict[str, Any]:
    """Return what a round tells of its copies: last validation metric (if any), epochs, epochs saved, doubts."""
    scores = [copy.history.validation_accuracy for copy in copies]
    return {
        "accuracies": [score for score in scores if score is not None],
        "curves": [copy.history.epochs for copy in copies],
        "epochs_saved": [copy.history.saved for copy in copies],
        "doubts": [f"copy {i} {told}" for i, told in enumerate(map(doubt_of, copies)) if told],
    }


def doubt_of(copy: Copy) -> str:
    """Say in words where a copy has learnt nothing: then its mask agrees with no other's but by chance."""
    images, done, objective = copy.training.images, copy.history.epochs, copy.training.objective
    error = "" if objective.higher_is_better else objective.metric
    return doubt(done[-1], objective.chance(images), len(images), error) if done else ""


def magnitude_masks(networks: Networks, mask: Mask, rate: float, scope: str) -> list[Mask]:
    """Prune each trained network by magnitude."""
    return [masks.magnitude(dict(network.named_parameters()), mask, rate, scope) for network in networks]


@torch.no_grad()
def mean_weights(copies: Networks, mask: Mask) -> Tensors:
    """Return the copies' mean of each weight of `mask`, signed, float64 on the CPU."""
    return {
        name: torch.stack([copy.get_parameter(name).detach().cpu().double() for copy in copies]).mean(0)
        for name in mask
    }


def rate_to(density: float, mask: Mask) -> float:
    """Return the rate that takes a mask to a density: `round(rate * kept)` is then exact."""
    kept = masks.count(mask)
    return max(0, kept - round(density * masks.size(mask))) / kept if kept else 0.0


def provenance(options: Options, number: int) -> dict[str, Any]:
    """Return what a round's ticket says of where it comes from: the caller's words, its number, this version."""
    return options.provenance | {"round": number, "colt_core": __version__}
