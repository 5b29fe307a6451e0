"""Dual tickets: a mask is chosen first, any, and the weights are transformed to fit it (RST; 2203.04248)."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from .. import masks
from ..compute.checkpoints import train_kept
from ..compute.copies import Copy
from ..masks import Mask
from ..seeding import choose_device, derive, generator, reproducible
from ..settings import Settings
from ..tickets import Cost, Round, Ticket
from ..training import CrossEntropy, Recipe, Training, accuracy
from ..training.pull import ENOUGH, STRONG, Pull, reach, remains
from .checks import refuse
from .cycles import Search, begin, cost_of, provenance
from .method import Look, Method, Setting

Chosen = Literal["random", "smallest", "colt", "matched", "like_colt"]
BATCH, MOMENTUM, DECAY = 64, 0.9, 5e-4  # theirs
RISING = 5 / 9  # of the steps lambda rises, in the others it stays at 1


class DualOptions(Settings):
    """Which weights are pulled to zero, for how long, and what stands beside it as a control.

    A transformed ticket is scored with the head that was transformed with it, unless its scoring says otherwise. The
    stem is pulled and cut as every layer is; the paper leaves it out.

    Attributes
    ----------
    chosen
        The mask that weights are made to fit: "random", the same share of every layer, drawn once (the paper's words);
        "smallest", the smallest initial magnitudes of every layer go (the authors' command); "colt" or "matched", the
        masks of that run; "like_colt", at random with the layers' densities of COLT's masks.
    complement
        Fit what that mask leaves out.
    steps
        Optimiser steps of the whole transformation, on batches of 64, shared out to the cycles (what does not divide is
        left out): about 120 a cycle at the least, by when momentum lets go.
    learning_rate
        Constant; None: what the steps need, by the scaling law.
    cycles
        In so many parts, of nested sets, each with its own ramp (the paper's iterative variant: 5).
    control
        "plain": the same steps without a pull, then the same cut; "cut": cut first, then as many steps;
        "untransformed": the mask over theta0 as it is, no step taken.
    """

    chosen: Chosen = "random"
    complement: bool = False
    steps: int = Field(1500, ge=2, strict=True)
    learning_rate: float | None = Field(None, gt=0)
    cycles: int = Field(1, ge=1, strict=True)
    control: Literal["plain", "cut", "untransformed"] | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        self.schedule()
        return self

    def schedule(self) -> tuple[int, int, float]:
        """Return ramp and hold of one transformation, in steps, and the learning rate.

        Raises
        ------
        ValueError
            Where a pulled weight would not come near zero in this time: as early as options are read.
        """
        return _schedule(self.steps, self.cycles, self.learning_rate)


@cache
def _schedule(steps: int, cycles: int, learning_rate: float | None) -> tuple[int, int, float]:
    each = max(2, steps // cycles)
    ramp = max(1, round(RISING * each))
    hold = each - ramp
    rate = learning_rate or STRONG * (1 - MOMENTUM) / ((ramp + 1) / 2 + hold)
    if (found := reach(rate, MOMENTUM, ramp, hold)) < ENOUGH:
        about = f"{each} steps at learning rate {rate:g} shrink a weight by exp(-{found:.1f}) only"
        raise ValueError(f"{about}: take {_advice(ramp, hold)}")
    if not _ends(rate, ramp, hold):
        left = remains(rate, MOMENTUM, ramp, hold)
        wild = learning_rate is not None and rate >= 2 * (1 + MOMENTUM)  # there a pull of 1 diverges, however long
        advice = "a lower learning rate" if wild else "more steps"
        raise ValueError(f"{each} steps at learning rate {rate:.2g} leave {left:.2g} of a weight: take {advice}")
    return ramp, hold, rate


def _ends(rate: float, ramp: int, hold: int) -> bool:
    """Tell whether a pulled weight is near zero in this time, by the law and by its motion."""
    near = remains(rate, MOMENTUM, ramp, hold) <= math.exp(-ENOUGH)  # not where it is NaN: it diverges
    return near and reach(rate, MOMENTUM, ramp, hold) >= ENOUGH


def _advice(ramp: int, hold: int) -> str:
    """Return what ends in this time: the lowest learning rate of two digits, where there is one, or more steps."""
    least = ENOUGH / reach(1.0, MOMENTUM, ramp, hold)
    rates = (float(f"{1.05**k * least:.1e}") for k in range(40))
    # Twice: a swing of momentum may be at zero just then.
    fitting = next((rate for rate in rates if _ends(rate, ramp, hold) and _ends(1.1 * rate, ramp, hold)), None)
    return "more steps" if fitting is None else f"{fitting:g}, or more steps"


def _find(setting: Setting) -> Iterator[Round]:
    """Return the rounds; an objective that cannot be pulled along is refused before the search."""
    own: DualOptions = setting.own
    if type(setting.options["objective"]) is not CrossEntropy:
        raise ValueError("weights are transformed by cross-entropy alone: give another objective to scoring")
    ramp, hold, rate = own.schedule()
    densities = setting.trajectory()
    given = {"whole": setting.data.train, "validation": [setting.data.validation]} | setting.options
    search = begin(setting.network, [setting.data.train], setting.recipe, 0.5, 0.5, densities, given)
    refuse(search.options, "dual tickets")
    if search.options.scope != "global" and own.chosen not in FOLLOWED:
        raise ValueError("masks that are chosen here have the same share of every layer: scope says nothing of them")
    followed = {found.number: found for found in setting.reference()} if own.chosen in FOLLOWED else {}

    def work() -> Iterator[Round]:
        dense, done = search.start, search.options.done
        if done < 0:
            yield dense
        for number, density in enumerate(densities, 1):
            if number > done:
                found = followed.get(number)
                try:
                    kept = _kept(own, dense.ticket, density, found, setting.seed)
                except ValueError as problem:  # the same search would come to it again
                    raise FloatingPointError(f"round {number}: {problem}") from None
                spent = found.cost if found else dense.cost  # a mask that was searched for is not free
                yield _transformed(search, own, kept, number, (ramp, hold, rate), spent)

    return work()


def _kept(own: DualOptions, dense: Ticket, density: float, followed: Round | None, seed: int) -> Mask:
    """Return the mask that the weights are made to fit, of one density."""
    if followed is not None:
        kept = {name: value.clone() for name, value in followed.ticket.mask.items()}
        if own.chosen == "like_colt":
            kept = masks.random_like(kept, generator(seed, "dual", "like_colt", followed.number))
    else:
        order = {name: _ranks(own.chosen, dense, name, seed) for name in dense.mask}
        kept = {name: ranks >= _pulled(ranks.numel(), 1 - density) for name, ranks in order.items()}
    if not own.complement:
        return kept
    if whole := [name for name, value in kept.items() if value.all()]:
        layer = whole[0].removesuffix(".weight")
        raise ValueError(f"the mask keeps all of {layer}, so its complement would leave that layer without a weight")
    return {name: ~value for name, value in kept.items()}


def _ranks(chosen: Chosen, dense: Ticket, name: str, seed: int) -> torch.Tensor:
    """Return each weight's place in the order in which its layer's weights are chosen: sets of all densities nest."""
    weight = dense.theta0[name]
    if chosen == "smallest":
        order = weight.abs().flatten().argsort(stable=True)
    else:
        order = torch.randperm(weight.numel(), generator=generator(seed, "dual", name))
    return torch.empty_like(order).index_put((order,), torch.arange(len(order))).view(weight.shape)


def _pulled(count: int, share: float) -> int:
    """Return how many of a layer's weights are pulled: never all."""
    return min(math.ceil(share * count - 1e-9), count - 1)


def _transformed(
    search: Search, own: DualOptions, kept: Mask, number: int, schedule: tuple[int, int, float], cost: Cost
) -> Round:
    """Pull what a mask leaves out to zero, cut it, and take the network as it then is for theta0.

    The round's measures: "left", the largest weight that is cut over the largest of its layer, of the layer where that
    is most; "before" and "after", validation accuracy on either side of the (last) cut.
    """
    ramp, hold, rate = schedule
    options, where, images = search.options, search.where, search.parts[0]
    device = choose_device(where.device)
    network = search.start.ticket.model(None, options.seed)
    recipe = _recipe(search.recipe, len(images), ramp + hold, rate)
    alive, measures = search.dense, dict[str, float]()
    for cycle in range(1, own.cycles + 1) if own.control != "untransformed" else ():
        goal = kept if cycle == own.cycles else _part_way(search.dense, kept, cycle / own.cycles, options.seed)
        chosen = {name: alive[name] & ~goal[name] for name in goal}
        cut = own.control == "cut"
        training = Training(
            images, recipe, mask=goal if cut else alive, steps=ramp + hold, threads=where.threads,
            seed=derive(options.seed, "dual", number, cycle),
            objective=options.objective if own.control else Pull(chosen, ramp),
        )  # fmt: skip
        history = train_kept(network, training, where.store, device)
        cost = cost + cost_of(Copy(network, training, history=history))
        measures = {"left": _left(network, chosen)}
        with reproducible(device, options.seed, where.threads):
            measures |= _validated(network, options.validation, "before")
            masks.apply(goal, network)
            measures |= _validated(network, options.validation, "after")
        alive = goal
    about = provenance(options, number) | {"parent": search.start.ticket.hash}
    ticket = replace(Ticket.of(network.cpu(), kept), provenance=about)
    if own.control != "untransformed":
        ticket = replace(ticket, architecture=ticket.architecture | {"own_head": True})
    return Round(number, ticket, cost=cost, measures=measures)


def _left(network: nn.Module, chosen: Mask) -> float:
    """Return the largest chosen weight over the largest of its layer, of the layer where that is most."""
    layers = [(network.get_parameter(name).detach().abs().cpu(), where) for name, where in chosen.items()]
    return max((float(w[where].max() / w.max()) for w, where in layers if where.any() and w.any()), default=0.0)


def _part_way(dense: Mask, kept: Mask, share: float, seed: int) -> Mask:
    """Return a mask between dense and `kept`: of the weights to go, so much of the way as their ratio goes in cycles.

    After c of C cycles the share 1 - (1 - s)^(c / C) of a layer is cut; the sets nest, as their order is drawn once.
    """
    found = {}
    for name, goal in kept.items():
        gone = (~goal).flatten().nonzero().flatten()
        ratio = len(gone) / goal.numel()
        count = round((1 - (1 - ratio) ** share) * goal.numel())
        order = gone[torch.randperm(len(gone), generator=generator(seed, "dual cycles", name))]
        part = dense[name].flatten().clone()
        part[order[:count]] = False
        found[name] = part.view(goal.shape)
    return found


def _recipe(scoring: Recipe, images: int, steps: int, rate: float) -> Recipe:
    """Return how a transformation trains: SGD at a constant rate, the images as in scoring."""
    own = {"optimizer": "sgd", "learning_rate": rate, "schedule": "constant", "warmup": 0.0, "batch_size": BATCH}
    own |= {"momentum": MOMENTUM, "weight_decay": DECAY, "epochs": 1}
    recipe = scoring.changed(**own)
    return recipe.changed(epochs=math.ceil(steps / recipe.steps(images)))


def _validated(network: nn.Module, validation: Any, name: str) -> dict[str, float]:
    return {name: accuracy(network, validation[0])} if validation else {}


FOLLOWED = ("colt", "matched", "like_colt")


def _follows(experiment: Any) -> Any:
    """Return the experiment whose masks, or whose densities alone, are taken; None: neither is needed."""
    other = experiment.options.get("chosen", "random")
    if other not in FOLLOWED and experiment.densities is not None:
        return None
    wanted = "matched" if other == "matched" else "colt"
    return experiment.changed(method=wanted, options={}, scores=None, score_on=None, scoring=None)


def _images(own: DualOptions) -> int:
    """Return how many images the transformation of one ticket sees."""
    ramp, hold, _ = own.schedule()
    return 0 if own.control == "untransformed" else (ramp + hold) * BATCH * own.cycles


DUAL = Method(
    name="dual",
    transforms=True,
    about="choose a mask, any, and pull the other weights to zero before they are cut (RST, 2203.04248)",
    law=r"w \leftarrow w - \eta \, (\nabla L(w) + \lambda_k (1 - m) \, w), \quad \lambda_k \uparrow 1; \qquad "
    r"\text{ticket } (m,\, m w)",
    papers=("2203.04248",),
    find=_find,
    look=Look("dual ticket", "#228833", (3, 1, 0)),
    follows=_follows,
    options=DualOptions,
    trains="rounds",
    images=lambda experiment: _images(DualOptions(**experiment.options)),
)
