"""What a method is: one record that says how it finds, what it follows, what it costs, how it looks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from ..data import Dataset, Images, partition
from ..foreign import imported, where_in
from ..settings import Settings, first_line, meant
from ..tickets import Round
from ..training import Recipe


@dataclass(frozen=True)
class Look:
    """How a method looks in figures: its name there, its colour, its marker; `hollow`: dashed, what is below shows.

    The marker is one of matplotlib's, by letter or as a regular polygon: sides, style, angle.
    """

    name: str
    colour: str = "#555555"
    marker: str | tuple[int, int, float] = "o"
    hollow: bool = False


@dataclass(frozen=True, eq=False)
class Setting:
    """What an experiment hands to a method.

    Attributes
    ----------
    network, data, recipe, rate, target, densities, parts, by, seed
        The experiment's.
    own
        The method's own options (see `Method.options`), validated; None where it has none.
    options
        For the finder: seed, device, threads, scope, rewind, resume, provenance, ...
    reference
        Gives the rounds of the method that this one follows, with the same settings.
    """

    network: nn.Module
    data: Dataset
    recipe: Recipe
    rate: float
    target: float
    parts: int
    by: str
    seed: int
    densities: tuple[float, ...] | None = None
    own: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[], list[Round]] = list

    def split(self, images: Images) -> list[Images]:
        """Return the partitions of some images."""
        return partition(images, self.parts, self.by, self.seed)

    def trajectory(self) -> list[float]:
        """Return the densities to go by: the experiment's, or those of the reference's rounds after the dense one.

        Raises
        ------
        ValueError
            If nothing is left of one: its copies' masks had no weight in common.
        """
        if self.densities is not None:
            return list(self.densities)
        rounds = [found for found in self.reference() if found.number]
        if empty := [found for found in rounds if not found.density]:
            followed = empty[0].ticket.provenance.get("method", "the run that is followed")
            raise ValueError(f"round {empty[0].number} of {followed} kept no weight at all: follow one at a lower rate")
        return [found.density for found in rounds]

    def remaining(self) -> list[Round]:
        """Return the reference's rounds that are not found yet."""
        done = self.options["resume"].number if self.options.get("resume") else -1
        return [found for found in self.reference() if found.number > done]

    def over_partitions(self, finder: Callable[..., Iterator[Round]], **chosen: Any) -> Iterator[Round]:
        """Call a finder that trains a copy on each partition, `colt` for example."""
        chosen = ({"densities": list(self.densities)} if self.densities else {}) | chosen
        parts, held_out = self.split(self.data.train), self.split(self.data.validation)
        options = self.options | {"whole": self.data.train, "validation": held_out} | chosen
        return finder(self.network, parts, self.recipe, self.rate, self.target, **options)

    def over_everything(self, finder: Callable[..., Iterator[Round]], *how: Any, **chosen: Any) -> Iterator[Round]:
        """Call a finder that trains one network on all images, `imp` for example."""
        options = self.options | {"validation": [self.data.validation]} | chosen
        return finder(self.network, self.data.train, self.recipe, *how, **options)

    def over_one_partition(self, number: int, finder: Callable[..., Iterator[Round]], *how: Any) -> Iterator[Round]:
        """Call a finder that trains one network on the images of one partition, the others left out.

        Raises
        ------
        ValueError
            If there is no such partition.
        """
        parts, held_out = self.split(self.data.train), self.split(self.data.validation)
        if number >= len(parts):
            raise ValueError(f"part must lie in 0..{len(parts) - 1}, the partitions, not {number}")
        options = self.options | {"whole": self.data.train, "validation": [held_out[number]]}
        return finder(self.network, parts[number], self.recipe, *how, **options)


EXPECTED = (ValueError, ArithmeticError, OSError, RuntimeError)  # told as they are
Trains = Literal["copies", "rounds", "once", "never"]
Takes = Literal["densities", "masks"]


@dataclass(frozen=True, eq=False)
class Method:
    """A way to find tickets. All that plans, tables, figures, cards, trackers and views know of it stands here.

    Attributes
    ----------
    name
        Its name in experiments.
    about
        What it does, in one line.
    find
        Gives the rounds of a setting.
    look
        How it looks in figures.
    follows
        The method whose rounds it follows, with the same settings: its name, or a function from an experiment to the
        experiment that is followed. None: it goes its own way.
    takes
        What it takes of the rounds it follows: their "densities" alone, which an experiment may also give, or their
        "masks", whatever there is.
    trains
        What finding costs: "copies", a training a round on each partition; "rounds", one a round on everything;
        "once", a single one; "never".
    copies
        From an experiment, whether it trains copies, where `trains` says so and its options may say otherwise.
    passes
        From an experiment, the passes over the training set that a round of it takes; None: one, or one a copy where
        every copy sees all images.
    images
        From an experiment, the training images that a round of it sees, where they are no passes of its recipe.
    rate
        The default fraction of the remaining weights that goes a round.
    options
        A `Settings` model of the options that it alone knows; None: it has none.
    transforms
        Whether theta0 of its tickets is no initialisation, but weights that were made to fit the mask.
    contender
        Whether tables hold it against the controls.
    control
        Whether it is one of them.
    law
        What it keeps, as a formula in LaTeX. top_k(s; m) are the share k of what m keeps with the largest scores s;
        w is trained, D the training set, D_i a partition, q the rate, d_t the density of COLT's cycle t.
    papers
        What it goes back to, by number on arXiv (titles: `papers.PAPERS`); empty where it is ours.
    """

    name: str
    about: str
    find: Callable[[Setting], Iterator[Round]]
    look: Look
    follows: str | Callable[[Any], Any] | None = None
    takes: Takes = "masks"
    trains: Trains = "rounds"
    copies: Callable[[Any], bool] | None = None
    passes: Callable[[Any], float] | None = None
    images: Callable[[Any], int] | None = None
    rate: float = 0.15
    options: type[Settings] | None = None
    transforms: bool = False
    contender: bool = False
    control: bool = False
    law: str = ""
    papers: tuple[str, ...] = ()

    @property
    def split(self) -> bool:
        """Whether the partitions matter to it: it trains copies on them, or follows a method that does."""
        return self.trains == "copies" or self.follows is not None

    @property
    def by_rounds(self) -> bool:
        """Whether it trains in every round."""
        return self.trains in ("copies", "rounds")

    def copies_of(self, experiment: Any) -> int:
        """Return how many copies an experiment trains in each round: one a partition, or a single network."""
        copies = self.trains == "copies" and (self.copies is None or self.copies(experiment))
        return int(experiment.parts) if copies else 1

    def passes_of(self, experiment: Any) -> float:
        """Return the passes over the training set of one of an experiment's rounds."""
        if self.passes is not None:
            return self.passes(experiment)
        return float(self.copies_of(experiment) if experiment.by == "order" else 1)

    def begin(self, setting: Setting) -> Iterator[Round]:
        """Return the rounds of a setting, none of them found yet.

        Raises
        ------
        ValueError
            In one line: what `find` refuses, and where it gives no rounds to go through.
        """
        try:
            rounds = self.find(setting)
        except EXPECTED:
            raise
        except Exception as problem:  # a mistake in a method of one's own
            told = f"{type(problem).__name__}: {first_line(problem)}{where_in(problem)}"
            raise ValueError(f"the method {self.name} cannot begin: {told}") from problem
        if not isinstance(rounds, Iterable):
            raise ValueError(f"the method {self.name} must give Rounds, one after another, not {type(rounds).__name__}")
        return self._found(rounds)

    def _found(self, rounds: Iterable[Round]) -> Iterator[Round]:
        for found in rounds:
            if not isinstance(found, Round):
                raise ValueError(f"the method {self.name} must give a Round each time; it gives {type(found).__name__}")
            yield found

    def own_options(self, given: dict[str, Any]) -> Any:
        """Return its own options, validated.

        Raises
        ------
        ValueError
            In one line, for options that it does not have.
        """
        if self.options is not None:
            return self.options(**given)
        if given:
            raise ValueError(f"the method {self.name} has no option {next(iter(given))!r}")
        return None


def find_method(name: str, known: dict[str, Method]) -> Method:
    """Return the method of this name, one of those known, or "package.module:NAME" of a `Method` elsewhere.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name in known:
        return known[name]
    if ":" not in name:
        allowed = f"{', '.join(known)}, or package.module:NAME"
        raise ValueError(f"unknown method {name!r}; allowed: {allowed}{meant(name, known)}")
    found = imported(name, "the method")
    if not isinstance(found, Method):
        raise ValueError(f"{name} must be a Method, not a {type(found).__name__}")
    return found
