"""`Study`: a grid of experiments, read from a file; `study()` runs many experiments, resumed, shared, never twice."""

import math
import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from .. import data as datasets
from ..compute.pool import check_workers, cores
from ..compute.store import Store, open_store
from ..foreign import find_beside
from ..methods import METHODS, method_of
from ..seeding import choose_device
from ..settings import FrozenDict, JsonDict, Number, Settings, frozen, meant, shown
from .cluster import work_off_on
from .experiment import Experiment, listed
from .queue import work_off
from .reading import check_name, file_of, on_other_data, parsed, read_text
from .records import Place, check_stored, is_over, records_of
from .run import check
from .watching import size_of, watched

if TYPE_CHECKING:
    import pandas as pd


MOST_EXPERIMENTS = 10_000

# The columns of a frame without rows: those that all records have.
COLUMNS = ("kind", *Experiment().labels(), "round", "density", "density_all", "image_epochs", "flops", "seconds")
COLUMNS += ("accuracy", "scored_on", "device", "threads", "torch", "python")

CARRIED = ("colt", "random", "reinit")  # what is carried over: tickets, and two controls made of each


class Transfer(Settings):
    """The transfer matrix of a study: tickets of every source trained on every target.

    Attributes
    ----------
    among
        Data sets; each is source and target. None: the two halves of the study's classes.
    scores
        Sparsities at which tickets are scored. None: the study's `levels`.
    target
        Sparsity at which finding stops. None: the study's own.
    seeds
        None: the study's.
    """

    among: tuple[str, ...] | None = None
    scores: tuple[Number, ...] | None = Field(None, min_length=1)
    target: Number | None = None
    seeds: tuple[int, ...] | None = Field(None, min_length=1)

    @field_validator("among")
    @classmethod
    def _several(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if values is not None and (len(values) < 2 or len(set(values)) < len(values)):
            raise ValueError(f"transfer needs at least two different data sets, not {', '.join(values) or 'none'}")
        return values


def _nothing_changed(methods: Any) -> Any:
    """Read `colt:` without anything behind it, as YAML has it, as a method of which nothing is changed."""
    return {k: {} if v is None else v for k, v in methods.items()} if isinstance(methods, Mapping) else methods


class Study(Settings):
    """A preset: the experiments behind the notebooks, read from a YAML file.

    Attributes
    ----------
    name, title
        By default the file's stem; letters, digits, - _ and . may stand in it, for it names folders. One line on what
        the study is and how long it takes.
    base
        The fields of `Experiment` that all share.
    methods
        For each method name, the fields that differ from `base`. Another name makes a second arm of a method, which it
        then gives: `smallest: {method: consensus, pooling: smallest}`.
    grid
        Fields of `Experiment` with a list of values each: every combination, for every method and seed. Fields that a
        method sets itself stay; dense and imp know no partitions. Twice the same experiment is one.
    seeds
        One run each.
    transfer
        See `Transfer`; `transfers()` gives its experiments. None: they are no part of the study (notebook 04 then takes
        the two halves of its classes).
    pieces
        Studies in the order in which they are to be run, each with a `name` and what it changes of `title`, `base`,
        `methods`, `grid`, `seeds` and `transfer`; see `each`.
    cell_timeout
        Seconds that one notebook cell may take in a headless run.
    """

    name: str
    title: str
    base: JsonDict
    methods: Annotated[dict[str, dict[str, Any]], BeforeValidator(_nothing_changed), AfterValidator(frozen)]
    grid: Annotated[dict[str, list[Any]], AfterValidator(frozen)] = FrozenDict()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    transfer: Transfer | None = None
    pieces: tuple[JsonDict, ...] = ()
    cell_timeout: int = Field(3600, ge=1)

    @classmethod
    def named(cls, name: str, dataset: str = "") -> Self:
        """Read a ready study (a preset), or a YAML or JSON file; `dataset` puts it, without its pieces, on another set.

        Code of one's own that it names, "module:name", is found where it lies beside the file, too.

        Raises
        ------
        ValueError
            For an unknown preset or mistakes in the file; for a module beside it whose name another one has.
        """
        path = file_of(name)
        content = parsed(read_text(path), str(path))
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no study; its keys are {', '.join(cls.model_fields)}")
        if odd := [key for key in content if not isinstance(key, str)]:
            raise ValueError(f"{path}: keys must be text, not {odd[0]!r}")
        called = re.sub(r"[^\w.-]+", "_", path.stem).lstrip(".-")[:100] or "study"
        content = {"title": called, "name": called} | content
        if isinstance(content["name"], str):  # that of a piece has two parts, a file's own has one
            check_name(content["name"])
        find_beside(path.parent, content)
        study = cls(**(on_other_data(dataset, content) if dataset else content))
        for piece in study.each():
            piece.experiments()
            _ = piece.levels  # of scores, too, those that nothing would come to are refused now
            _ = piece.carried_scores if piece.transfer else None
        return study

    @field_validator("name")
    @classmethod
    def _of_folders(cls, value: str) -> str:
        whole, slash, piece = value.partition("/")
        check_name(whole)
        if slash:
            check_name(piece)
        return value

    @field_validator("base", "methods")
    @classmethod
    def _of_their_own(cls, value: Any, info: Any) -> Any:
        """Refuse what `experiment` would put something else in place of."""
        several = [value] if info.field_name == "base" else value.values()
        places = {"seed": "seeds"} | ({"method": "methods"} if info.field_name == "base" else {})
        if misplaced := [name for fields in several for name in places if name in fields]:
            raise ValueError(f"{misplaced[0]} belongs in `{places[misplaced[0]]}`")
        return value

    @field_validator("pieces")
    @classmethod
    def _named_pieces(cls, values: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        names = [piece.get("name") for piece in values]
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError("every piece needs a name of its own")
        allowed = [name for name in cls.model_fields if name != "pieces"]
        for piece in values:
            check_name(piece["name"])
            if unknown := [name for name in piece if name not in allowed]:
                raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")
            if not isinstance(base := piece.get("base") or {}, dict):
                raise ValueError(f"base of the piece {piece['name']!r} must be a mapping, not {shown(base)}")
        return values

    @field_validator("grid")
    @classmethod
    def _of_fields(cls, value: dict[str, list[Any]], info: Any) -> dict[str, list[Any]]:
        named = [str(own.get("method", name)) for name, own in info.data.get("methods", {}).items()]
        several = [*METHODS.values(), *(method_of(name) for name in named if ":" in name)]
        options = [name for method in several if method.options for name in method.options.model_fields]
        allowed = [name for name in Experiment.model_fields if name not in ("method", "seed")]
        allowed = list(dict.fromkeys([*allowed, *options]))
        if unknown := [name for name in value if name not in allowed]:
            beside = {"seed": "seeds stand beside the grid; ", "method": "methods stand beside the grid; "}
            about = f"{beside.get(unknown[0], '')}allowed: {', '.join(allowed)}{meant(unknown[0], allowed)}"
            raise ValueError(f"unknown key {unknown[0]!r}; {about}")
        if empty := [name for name, values in value.items() if not values]:
            raise ValueError(f"{empty[0]} has no values")
        return value

    @field_validator("methods")
    @classmethod
    def _some(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError(f"at least one is needed, of {', '.join(METHODS)}")
        return value

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        count = len(self.seeds) * len(self.methods) * math.prod(map(len, self.grid.values()))
        if count > MOST_EXPERIMENTS:
            raise ValueError(f"{count:,} experiments are too many: a study has at most {MOST_EXPERIMENTS:,}")
        return self

    @property
    def levels(self) -> list[float]:
        """The sparsities of the tables: those that are scored; where every round is, those of the densities asked for,
        or 80, 90, 95 % and the target.

        Raises
        ------
        ValueError
            In one line, for a score that lies beyond the target of every experiment: nothing would ever be scored.
        """
        fields = [self.experiment(method) for method in self.methods]
        asked = {level for e in fields for level in e.scores or ()}
        found = self.experiments(self.seeds[:1])
        if asked:
            return _reached(sorted(asked), found)
        if named := {round(1 - density, 12) for e in fields for density in e.densities or ()}:
            return sorted(named)
        usual = {level for level in (0.8, 0.9, 0.95) if any(_reaches(e, level) for e in found)}
        return sorted(usual | {e.target for e in fields if e.method == "colt"})

    @property
    def dataset(self) -> str:
        """The data set that all experiments share."""
        return str(self.base.get("dataset", Experiment.model_fields["dataset"].default))

    def everything(self) -> list[Experiment]:
        """Return all experiments of all pieces, transfers among them."""
        return [e for one in self.each() for e in one.experiments() + (one.transfers() if one.transfer else [])]

    def each(self) -> "list[Study]":
        """Return the study's pieces as studies, in order; a study without pieces is its own only one.

        Raises
        ------
        ValueError
            For mistakes in a piece.
        """
        whole = {name: getattr(self, name) for name in type(self).model_fields if name != "pieces"}
        pieces = [dict(piece) for piece in self.pieces]
        for piece in pieces:
            piece["name"] = f"{self.name}/{piece['name']}"
            piece["base"] = self.base | (piece.get("base") or {})
            piece.setdefault("transfer", None)
        return [type(self)(**(whole | piece)) for piece in pieces] or [self]

    def carried_among(self) -> tuple[str, ...]:
        """Return the data sets of the transfer matrix.

        Raises
        ------
        ValueError
            If there are too few classes to be halved.
        """
        return (self.transfer and self.transfer.among) or datasets.halves(self.dataset)

    def transfers(self, seeds: tuple[int, ...] | list[int] | None = None) -> "list[Experiment]":
        """Return the experiments of the transfer matrix, for the given seeds or the transfer's own.

        For every source its COLT tickets, random ones with their layer densities, and their masks over a re-drawn
        initialisation, each scored on every data set, the source itself among them; and every dense network.
        """
        names, found, how = self.carried_among(), [], self.transfer or Transfer()
        chosen = how.seeds or self.seeds if seeds is None else seeds
        base: dict[str, Any] = {"scores": self.carried_scores}
        base |= {"target": how.target} if how.target else {}
        for seed, source in product(chosen, names):
            found.append(self.experiment("dense", seed, **base | {"dataset": source, "scores": ()}))
            ticket = self.experiment("colt", seed, **base | {"dataset": source})
            for method, target in product(CARRIED, names):
                found.append(ticket.changed(method=method, score_on=None if target == source else target))
        return found

    @property
    def carried_scores(self) -> list[float]:
        """The sparsities of the transfer matrix: those asked for, else those of `levels` that its tickets come to.

        Raises
        ------
        ValueError
            In one line, where its tickets never come to one.
        """
        how = self.transfer or Transfer()
        fields: dict[str, Any] = {"target": how.target} if how.target else {}
        ticket = self.experiment("colt", **fields)
        common = how.scores or [level for level in self.levels if _reaches(ticket, level)] or self.levels
        return _reached(sorted(common), [ticket])

    def experiment(self, method: str, seed: int = 0, **fields: Any) -> Experiment:
        """Return the study's experiment for one method and seed, some fields changed."""
        own = {"method": method} | (self.methods.get(method) or {})
        base = {name: value for name, value in self.base.items() if name not in _options_of(own)}
        return Experiment(**(base | own | {"seed": seed} | fields))

    def experiments(self, seeds: tuple[int, ...] | list[int] | None = None) -> list[Experiment]:
        """Return all of them, for the given seeds or the study's own."""
        found: dict[tuple[Any, ...], Experiment] = {}
        for values in product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            for seed in self.seeds if seeds is None else seeds:
                for method, own in self.methods.items():
                    itself = {*(own or {}), *_options_of(own or {})}
                    fields = {k: v for k, v in point.items() if k not in itself and self._matters(k, method, own)}
                    one = self.experiment(method, seed, **fields)
                    found.setdefault((one.hash, one.scores, one.score_on, str(one.scoring)), one)
        return list(found.values())

    @staticmethod
    def _matters(field: str, name: str, own: dict[str, Any] | None) -> bool:
        """Tell whether a method knows a field of the grid: some know no partitions, most no other method's options."""
        method = method_of(str((own or {}).get("method", name)))
        if field in ("parts", "by"):
            return method.split
        return field in Experiment.model_fields or bool(method.options and field in method.options.model_fields)


def _options_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the options that an arm gives in a mapping of their own; Experiment says what is wrong with others."""
    options = fields.get("options")
    return dict(options) if isinstance(options, dict) else {}


def _reaches(experiment: Experiment, level: float) -> bool:
    """Tell whether an experiment's rounds come to a sparsity of the prunable weights; dense has no rounds."""
    beyond = "all-counted" in (experiment.official or ())  # then more of them go than the target says
    return experiment.method != "dense" and (level <= experiment.target + 1e-12 or beyond)


def _reached(levels: list[float], experiments: list[Experiment]) -> list[float]:
    """Return the levels, or raise a `ValueError` where one is never reached."""
    targets = [e.target for e in experiments if e.method != "dense"]
    for level in levels if targets else []:
        if not any(_reaches(e, level) for e in experiments):
            raise ValueError(f"a score at {level:g} lies beyond the target {max(targets):g}: no round comes to it")
    return levels


def study(
    experiments: Experiment | Study | Iterable[Experiment],
    store: Place = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool | None = None,
    cluster: str | None = None,
) -> "pd.DataFrame":
    """Run many experiments, or one, and return all their records, a row each.

    Parameters
    ----------
    experiments
        In any order, or a `Study`; one that follows a COLT run waits for it. Of none there is a frame without rows.
    workers
        Processes side by side; by default one a CPU core, or a single one on a GPU. Results do not depend on it.
    progress
        A bar that says which experiments run, how far they are, and what is left; see `progress.bar`.
    cluster
        None: worker processes of this machine. "local": a dask LocalCluster. An address, "tcp://host:8786": that
        scheduler (see `cluster`).

    Raises
    ------
    ValueError, OSError
        In one line, before any training: bad settings, changed data, damaged records.
    RuntimeError
        At the end: names each experiment that an error ended; what is finished is kept. A training that diverges is
        none: the experiment's records have one of the kind "failed", and the others go on.
    """
    import pandas as pd

    check_workers(workers)
    experiments = listed(experiments)
    where, place = str(choose_device(device)) if cluster in (None, "local") else device, open_store(store)
    for experiment in experiments:
        check_stored(experiment, place)
    jobs = to_do(experiments, place)
    alike = {_but_for_seeds(job): job for job in jobs}
    for job in alike.values():  # all mistakes before any training; and a data set is prepared once, not by every worker
        check(job, "cpu" if cluster else where, place)
    if cluster:
        done = work_off_on(cluster, jobs, place, where, workers)
    else:
        beside = 1 if place.private else workers or (cores() if where == "cpu" else 1)
        done = work_off(jobs, place, where, beside)
    with watched(jobs, place, progress):
        for _ in done:
            pass
    records = records_of(experiments, place)
    return pd.DataFrame(records) if records else pd.DataFrame(columns=list(COLUMNS))


def _but_for_seeds(job: Experiment) -> tuple[Any, ...]:
    """Return what tells apart the experiments that a mistake in one need not be one in the other."""
    return job.changed(seed=0).hash, job.score_on, str(job.scoring), job.scores is None


def to_do(experiments: list[Experiment], store: Store) -> list[Experiment]:
    """Return those that are not finished, and the runs that those follow; the longest first."""
    jobs = [e for e in experiments if not is_over(e, store)]
    references = {r.hash: r for e in jobs for r in e.references()}
    for known in experiments:
        references.pop(known.hash, None)
    jobs += [r for r in references.values() if not is_over(r, store)]
    return sorted(jobs, key=size_of, reverse=True)
