"""Iterative magnitude pruning, the lottery ticket hypothesis's finder (arXiv 1803.03635, 1912.05671), and one-shot."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from pydantic import Field
from torch import nn

from ..data import Images
from ..masks import Mask
from ..settings import Settings
from ..tickets import Round
from ..training import Recipe
from .choices import by_magnitude
from .cycles import Cut, Networks, begin, cycles, first_round, magnitude_masks, rate_to, straight, told, train_round
from .method import Look, Method, Setting


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
        As for `colt`. `rewind=k` rewinds to the weights of step k (late rewinding) and trains on from that step.

    Yields
    ------
    Round
        Round 0 is dense.

    Raises
    ------
    ValueError
        At the call, before any training.
    """
    search = begin(network, [images], recipe, rate, target, densities, {"whole": images} | options)
    return cycles(search, by_magnitude(search))


def oneshot(
    network: nn.Module, images: Images, recipe: Recipe, densities: list[float], **options: Any
) -> Iterator[Round]:
    """Train the dense network once and prune it straight to each density: the control for iterating.

    Parameters and errors as `imp`. Every round costs the one training, and is cut from the dense network.
    """
    search = begin(network, [images], recipe, 0.5, 0.5, densities, {"whole": images} | options)

    def choose(copies: Networks, mask: Mask, density: float) -> tuple[list[Mask], Mask]:
        kept = magnitude_masks(copies, mask, rate_to(density, mask), search.options.scope)
        return kept, kept[0]

    def prepare(dense: Round) -> Cut:
        # Early stopping watches the sparsest of all masks that will be cut from this one training.
        sparsest = lambda copies, mask, _: choose(copies, mask, densities[-1])  # noqa: E731
        copies, cost = train_round(search, dense.ticket, 1, sparsest)
        cut = lambda density: choose([copies[0].network], dense.ticket.mask, density)[1]  # noqa: E731
        return Cut(cut, cost, told(copies))

    return straight(search, densities, prepare)


def _dense(setting: Setting) -> Iterator[Round]:
    """The unpruned network: its only round is the initialisation."""
    given = {"whole": setting.data.train, "validation": [setting.data.validation]} | setting.options
    search = begin(setting.network, [setting.data.train], setting.recipe, 0.5, 0.5, None, given)

    def only() -> Iterator[Round]:  # what it rewinds to is trained when it is asked for
        if not search.options.resume:
            yield first_round(search)

    return only()


class MatchedOptions(Settings):
    """The one partition to train on, the others left out: a copy of COLT's by itself. None: on everything."""

    part: int | None = Field(None, ge=0, strict=True)


def _matched(setting: Setting) -> Iterator[Round]:
    """IMP at a given trajectory, on everything or on one partition."""
    finder = partial(imp, densities=setting.trajectory())
    if (part := setting.own.part) is None:
        return setting.over_everything(finder, setting.rate, setting.target)
    return setting.over_one_partition(part, finder, setting.rate, setting.target)


DENSE = Method(
    name="dense",
    about="the unpruned network",
    law=r"m_t = 1",
    find=_dense,
    look=Look("dense", "#000000", "h"),
    trains="never",
    control=True,
)
IMP = Method(
    name="imp",
    about="iterative magnitude pruning at its own rate",
    law=r"m_{t+1} = \operatorname{top}_{1-q}(|w|;\, m_t), \qquad w = \operatorname{train}(m_t \theta_0;\, D)",
    papers=("1803.03635", "1912.05671"),
    find=lambda s: s.over_everything(imp, s.rate, s.target, densities=list(s.densities) if s.densities else None),
    look=Look("IMP", "#0072B2", "s"),
    rate=0.2,
    control=True,
)
MATCHED = Method(
    name="matched",
    about="iterative magnitude pruning to COLT's very densities",
    law=r"m_{t+1} = \operatorname{top}(|w|;\, m_t) \text{ of density } d_{t+1}",
    papers=("1803.03635", "1912.05671"),
    find=_matched,
    look=Look("IMP at COLT's rate", "#56B4E9", "D", hollow=True),
    follows="colt",
    takes="densities",
    passes=lambda e: 1.0 if e.options.get("part") is None or e.by == "order" else 1 / e.parts,
    options=MatchedOptions,
    control=True,
)
ONESHOT = Method(
    name="oneshot",
    about="train once, and prune straight to each of COLT's densities",
    law=r"m_t = \operatorname{top}(|w|;\, 1) \text{ of density } d_t, \qquad w = "
    r"\operatorname{train}(\theta_0;\, D) \text{ once}",
    papers=("1803.03635",),
    find=lambda s: s.over_everything(oneshot, s.trajectory()),
    look=Look("one-shot", "#B8A000", "*"),
    follows="colt",
    takes="densities",
    trains="once",
)
