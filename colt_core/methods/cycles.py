"""The loop that the iterative finders share: train, prune, rewind to theta0, repeat."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from .. import masks, models
from ..copies import history_of, train_copies
from ..data import Images, check_fraction
from ..early_bird import EarlyBird, Settling
from ..masks import Mask, Overlap
from ..seeding import choose_device, derive
from ..store import Store
from ..tickets import Cost, Round, Ticket
from ..training import History, Recipe
from ..trainings import train_kept

Choose = Callable[[list[nn.Module], Mask, int], tuple[list[Mask], Mask]]


@dataclass(frozen=True)
class Options:
    """What every finder takes besides its own arguments.

    Attributes
    ----------
    scope
        "global" (the paper) or "layer": the pool in which magnitudes are compared.
    rewind
        Step k to rewind to; 0 is the initialisation. The first k steps are trained once, on `whole`.
    whole
        The undivided training images, for `rewind`.
    validation
        Images to score each copy on, one set a partition.
    seed
        Of order, augmentation and fresh heads.
    device, threads, workers
        Where to compute; `workers` copies side by side (see `train_copies`).
    early_bird
        End each round's trainings once their masks have settled (see `EarlyBird`); None: train the whole recipe.
    best_epoch
        The first round prunes the weights of the best validation epoch instead of the last (the COLT authors' code).
    keep_statistics
        BatchNorm's running statistics are not rewound (their code again): a copy goes on with those of its last round.
    count_all
        `target` counts every weight of a copy, its head and normalisation too (and again).
    stem, head
        False, True: leave the first layer out of the mask, take the classifier in.
    store
        Where trainings are looked up and kept between epochs; None: nowhere (see `trainings`).
    resume
        A round to go on from; it is not yielded again.
    provenance
        Joins every ticket's provenance.
    watch
        Called after every epoch of a training with the number of the round that it decides, that of the copy, and the
        training's history; from whichever thread drives it.
    """

    scope: str = "global"
    rewind: int = 0
    whole: Images | None = None
    validation: list[Images] | None = None
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    workers: int | None = None
    early_bird: EarlyBird | None = None
    best_epoch: bool = False
    keep_statistics: bool = False
    count_all: bool = False
    stem: bool = True
    head: bool = False
    store: Store | None = None
    resume: Round | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    watch: Callable[[int, int, History], None] | None = None

    def __post_init__(self) -> None:
        if self.scope not in ("global", "layer"):
            raise ValueError(f"unknown scope {self.scope!r}; allowed: global, layer")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        choose_device(self.device)
        if self.early_bird is not None and not isinstance(self.early_bird, EarlyBird):
            raise ValueError(f"early_bird must be an EarlyBird(delta, window, on) or None, not {self.early_bird!r}")


def check_inputs(network: nn.Module, parts: list[Images], recipe: Recipe, options: Options) -> None:
    """Refuse, before any training, what could only fail in the middle of it.

    Raises
    ------
    ValueError
        For a network that `build` did not make or that cannot take such images, an empty partition, a recipe that is
        none, a rewind point without its images or past the recipe's end, a pruned head where the heads differ.
    """
    about = models.architecture(network)
    if about["name"] not in models.NETWORKS:
        raise ValueError(f"the network must be made by build(), which a ticket names; this is a {about['name']}")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be a Recipe, for example Recipe.named('mini'), not {recipe!r}")
    if empty := [i for i, part in enumerate(parts) if not len(part)]:
        raise ValueError(f"partition {empty[0]} of {len(parts)} is empty")
    if options.head and any(len(part.classes) != about["classes"] for part in parts):
        raise ValueError("head=True needs copies with one head: not partitions by class")
    if options.best_epoch and not options.validation:
        raise ValueError("to prune the weights of the best epoch, validation images are needed: validation=[...]")
    if options.rewind and options.whole is None:
        raise ValueError("to rewind to a later step, the whole training images are needed: whole=data.train")
    if options.whole is not None and options.rewind >= (steps := recipe.epochs * recipe.steps(len(options.whole))):
        raise ValueError(f"rewind must lie in 0..{steps - 1}, the recipe's steps, not {options.rewind}")
    try:
        models.forward_flops(network, parts[0].size)
    except RuntimeError:
        size = parts[0].size
        raise ValueError(f"{about['name']} cannot take images of {size} x {size} pixels") from None


def first_round(network: nn.Module, recipe: Recipe, options: Options) -> Round:
    """Return round 0: the dense ticket at the rewind point, and what getting there cost."""
    start = models.copy_of(network)
    cost = Cost()
    if options.rewind and options.whole is not None:
        history = train_kept(
            start, options.whole, recipe, options.store, seed=derive(options.seed, "rewind"), steps=options.rewind,
            device=options.device, threads=options.threads,
        )  # fmt: skip
        cost = Cost(history.images, history.images * step_flops(start, options.whole), history.seconds)
    names = models.prunable(start, options.stem, options.head)
    ticket = Ticket.of(start, names=names)
    return Round(0, _with_provenance(ticket, options, 0, None), cost=cost)


def step_flops(network: nn.Module, images: Images) -> float:
    """Return the FLOPs of training on one image: forward, and backward at twice that."""
    return 3.0 * models.forward_flops(network, images.size)


def train_round(
    ticket: Ticket,
    parts: list[Images],
    recipe: Recipe,
    options: Options,
    number: int,
    choose: Choose,
    before: list[nn.Module] | None = None,
) -> tuple[list[nn.Module], Cost]:
    """Train a copy of a ticket on each partition, from theta0 under the mask; heads fit the partition's classes.

    `choose` is how masks will be drawn from the copies: what early-bird stopping watches. `before` are the copies of
    the last round, whose running statistics the new ones take over where they are not rewound.
    """
    early = options.early_bird
    settled = Settling(early, ticket.mask, lambda copies: choose(copies, ticket.mask, number)) if early else None
    own = ticket.architecture["classes"]
    heads = [None if len(part.classes) == own else len(part.classes) for part in parts]
    copies = [ticket.model(classes, options.seed) for classes in heads]
    for copy, old in zip(copies, before or [] if options.keep_statistics else [], strict=False):
        copy.load_state_dict(dict(old.named_buffers()), strict=False)
    best = options.best_epoch and number == 1
    seeds = [derive(options.seed, "train", number, i) for i in range(len(parts))]
    kept = [ticket.mask_for(copy, head is not None) for copy, head in zip(copies, heads, strict=True)]
    train_copies(
        copies, parts, recipe, masks=kept, seeds=seeds, validation=options.validation,
        device=options.device, threads=options.threads, workers=options.workers, settled=settled,
        store=options.store, keep_best=best,
        first_steps=[_first_step(part, recipe, options) for part in parts],
        watch=partial(options.watch, number) if options.watch else None,
    )  # fmt: skip
    for copy in copies if best else []:
        copy.load_state_dict(history_of(copy).best_state or {})
    costs = [
        Cost(history.images, history.images * step_flops(copy, part), history.seconds)
        for copy, part in zip(copies, parts, strict=True)
        if (history := history_of(copy))
    ]
    return copies, sum(costs, Cost())


def _first_step(part: Images, recipe: Recipe, options: Options) -> int:
    """Return the step of a partition's schedule at which the same share of it is over as at the rewind point."""
    whole = recipe.steps(len(options.whole)) if options.whole is not None else 1
    return round(options.rewind * recipe.steps(len(part)) / whole)


def cycles(
    network: nn.Module,
    parts: list[Images],
    recipe: Recipe,
    choose: Choose,
    done: Callable[[Round], bool],
    options: Options,
) -> Iterator[Round]:
    """Yield rounds: `choose(copies, mask, number)` gives each copy's mask and the combined one; stop when `done`."""
    # Running statistics lie in no ticket: where they are kept, every training is looked up again.
    known = options.resume.number if options.resume else -1
    last = options.resume if options.resume and not options.keep_statistics else first_round(network, recipe, options)
    copies: list[nn.Module] = []
    if known < 0:
        yield last
    while not done(last):
        number, before = last.number + 1, last.ticket
        copies, cost = train_round(before, parts, recipe, options, number, choose, copies)
        chosen, combined = choose(copies, before.mask, number)
        ticket = Ticket(before.architecture, before.theta0, combined)
        last = Round(
            number,
            _with_provenance(ticket, options, number, before),
            chosen if len(chosen) > 1 else [],
            Overlap.of(chosen, before.mask, combined, before.theta0, options.scope) if len(chosen) > 1 else None,
            *curves(copies),
            last.cost + cost,
            epochs_saved(copies),
        )
        if number > known:
            yield last


def curves(copies: list[nn.Module]) -> tuple[list[float], list[list[dict[str, float]]]]:
    """Return the copies' last validation accuracies (none without validation images) and their epochs."""
    epochs = [history_of(copy).epochs for copy in copies]
    return [e[-1]["validation_accuracy"] for e in epochs if "validation_accuracy" in e[-1]], epochs


def epochs_saved(copies: list[nn.Module]) -> list[int]:
    """Return for each copy how many of the recipe's epochs early-bird stopping has spared."""
    return [history_of(copy).saved for copy in copies]


def magnitude_masks(copies: list[nn.Module], mask: Mask, rate: float, scope: str) -> list[Mask]:
    """Prune each trained copy by magnitude."""
    return [masks.magnitude(dict(copy.named_parameters()), mask, rate, scope) for copy in copies]


def stopping_rule(
    densities: list[float] | None, rate: float, target: float, dense: Mask, scope: str, share: float | None = None
) -> Callable[[Round], bool]:
    """Return the stopping rule: at the target sparsity, or at the end of a density trajectory.

    `share` is the prunable weights' of all, where the target counts them all (see `share_of`); None: it does not.

    Raises
    ------
    ValueError
        For a rate or target outside (0, 1), a target that cannot be reached, or a trajectory that does not fall.
    """
    if densities is not None:
        if not densities or any(not 0 < b < a <= 1 for a, b in zip([1.0, *densities], densities, strict=False)):
            raise ValueError("densities must fall from one round to the next and lie strictly between 0 and 1")
        return lambda last: last.number >= len(densities)
    check_fraction("rate", rate)
    check_fraction("target", target)
    highest = masks.reachable(dense, rate, scope) * (share or 1)
    if target > highest:
        raise ValueError(f"target sparsity {target} cannot be reached: pruning at rate {rate} ends at {highest:.6g}")
    return partial(_reached, target=target, share=share or 1)


def _reached(last: Round, target: float, share: float) -> bool:
    return last.sparsity * share >= target - 1e-12


def share_of(dense: Mask, network: nn.Module, options: Options, parts: list[Images]) -> float | None:
    """Return which share of a copy's weights is prunable, if the target is to count them all; else None."""
    return share_counted(dense, network, max(len(part.classes) for part in parts)) if options.count_all else None


def share_counted(dense: Mask, network: nn.Module, classes: int) -> float:
    """Return prunable / all weights of a copy with so many classes: head and normalisation too, biases not."""
    head = network.get_parameter(f"{models.head_name(network)}.weight")
    every = sum(w.numel() for name, w in network.named_parameters() if name.endswith("weight"))
    return masks.size(dense) / (every - head.numel() + head.shape[1] * classes)


def rate_to(density: float, mask: Mask) -> float:
    """Return the rate that takes a mask to a density: `round(rate * kept)` is then exact."""
    kept = masks.count(mask)
    return max(0, kept - round(density * masks.size(mask))) / kept if kept else 0.0


def _with_provenance(ticket: Ticket, options: Options, number: int, parent: Ticket | None) -> Ticket:
    from .. import __version__

    about = options.provenance | {"round": number, "parent": parent.hash if parent else None, "colt_core": __version__}
    return Ticket(ticket.architecture, ticket.theta0, ticket.mask, about)
