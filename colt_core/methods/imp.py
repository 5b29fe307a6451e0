"""Iterative magnitude pruning, the lottery ticket hypothesis's finder (arXiv 1803.03635, 1912.05671), and one-shot."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from .. import masks, models
from ..data import Images
from ..masks import Mask
from ..tickets import Round, Ticket
from ..training import Recipe
from .cycles import (
    Options,
    check_inputs,
    curves,
    cycles,
    epochs_saved,
    first_round,
    magnitude_masks,
    rate_to,
    share_of,
    stopping_rule,
    train_round,
)


def imp(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    rate: float = 0.20,
    target: float = 0.991,
    *,
    densities: list[float] | None = None,
    **options: Any,
) -> Iterator[Round]:
    """Find lottery tickets by iterative magnitude pruning: train, prune globally, rewind, repeat.

    Parameters
    ----------
    network
        The initialised network; it is not changed.
    images
        The full training set.
    recipe
        How the network is trained in each round.
    rate
        The fraction of the remaining weights that goes each round.
    target
        The prunable-only sparsity to stop at.
    densities
        Follow this density trajectory instead, a value a round: IMP at another method's rate (`matched`).
    **options
        See `Options`. `rewind=k` rewinds to the weights of step k (late rewinding) and trains on from that step.

    Yields
    ------
    Round
        Round 0 is dense.

    Raises
    ------
    ValueError
        At the call, before any training.
    """
    given = Options(**({"whole": images} | options))
    check_inputs(network, [images], recipe, given)
    dense = _dense(network, given)
    done = stopping_rule(densities, rate, target, dense, given.scope, share_of(dense, network, given, [images]))

    def choose(copies: list[nn.Module], mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        step = rate if densities is None else rate_to(densities[number - 1], mask)
        kept = magnitude_masks(copies, mask, step, given.scope)
        return kept, kept[0]

    return cycles(network, [images], recipe, choose, done, given)


def oneshot(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Train the dense network once and prune it straight to each density: the control for iterating.

    Parameters and errors as `imp`. Every round costs the one training, and is cut from the dense network.
    """
    given = Options(**({"whole": images} | options))
    check_inputs(network, [images], recipe, given)
    stopping_rule(densities, 0.5, 0.5, _dense(network, given), given.scope)
    return _oneshot(network, images, recipe, densities, given)


def _oneshot(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], options: Options
) -> Iterator[Round]:
    dense = first_round(network, recipe, options)
    done = options.resume.number if options.resume else -1
    if done < 0:
        yield dense
    if done >= len(densities):
        return

    def choose(copies: list[nn.Module], mask: Mask, number: int) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, rate_to(densities[number - 1], mask), options.scope)
        return kept, kept[0]

    def sparsest(copies: list[nn.Module], mask: Mask, _: int) -> tuple[list[Mask], Mask]:
        return choose(copies, mask, len(densities))  # of all that is cut from this one training: early stopping sees it

    copies, cost = train_round(dense.ticket, [images], recipe, options, 1, sparsest)
    for number in range(1, len(densities) + 1):
        if number > done:
            kept = choose(copies, dense.ticket.mask, number)[1]
            parent = dense.ticket.provenance | {"round": number, "parent": dense.ticket.hash}
            ticket = Ticket(dense.ticket.architecture, dense.ticket.theta0, kept, parent)
            yield Round(number, ticket, [], None, *curves(copies), dense.cost + cost, epochs_saved(copies))


def _dense(network: nn.Module, options: Options) -> Mask:
    return masks.dense(dict(network.named_parameters()), models.prunable(network, options.stem, options.head))
