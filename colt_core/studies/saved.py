"""What a store holds, read for looking at: `runs_in()` lists its runs, `Saved` reads one run's masks when asked for."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..compute.store import Store, open_store
from ..files import Damaged, open_tensors
from ..foreign import Untrusted, check_trusted, named_by_a_file
from ..masks import Mask
from ..methods import recorded
from ..models import NETWORKS, PREFIX, code_of, in_words, skeleton, transposed
from ..settings import first_line
from .experiment import Experiment, hash_of, method_in_words, settings_in
from .records import Place, read_records, ticket_name

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OSError)
NEEDED = {"round": ("density", "image_epochs", "curves", "accuracies", "overlap"), "score": ("density",)}
NEEDED["failed"] = ("problem",)


@dataclass(frozen=True)
class Saved:
    """A run as a store has it. Nothing is kept in memory: a run that goes on is seen as far as it is.

    Attributes
    ----------
    store, hash
        Where.
    about
        The experiment's fields, as `experiment.json` has them.
    """

    store: Store
    hash: str
    about: dict[str, Any]

    @property
    def label(self) -> str:
        """What tells it from others at a glance."""
        split = [f"{self.about['parts']} by {self.about['by']}"] if recorded(self.about["method"]).split else []
        options = self.about.get("options") or {}
        own = ", ".join(f"{name} {value}" for name, value in options.items()) if isinstance(options, dict) else ""
        told = [
            method_in_words(settings_in(self.about)) + (f" ({own})" if own else ""),
            *split,
            self.about["dataset"],
            self.network,
            f"seed {self.about['seed']}",
        ]
        return ", ".join(told)

    @property
    def details(self) -> str:
        """The label with the rate and the target, or the densities, that it goes by."""
        if self.about["method"] == "dense":
            return self.label
        if densities := self.about.get("densities"):
            return f"{self.label}, to {densities[-1]:.3g} dense in {len(densities)} rounds"
        return f"{self.label}, rate {self.about['rate']:g}, target {100 * self.about['target']:.4g} %"

    @property
    def changed(self) -> float | None:
        """When its records were last written to, in seconds since 1970; None where nobody can say."""
        return self.store.changed(f"{self.hash}/records.jsonl")

    @property
    def network(self) -> str:
        """The network and its settings: "conv3 width 16"."""
        return in_words(self.about["network"], self.about["network_args"])

    @cached_property
    def transposed(self) -> frozenset[str]:
        """The layers whose input channels come first; none of another library's, whose classifiers have none."""
        name = self.about["network"].removeprefix(PREFIX)
        if name not in NETWORKS and code_of(name) is None:
            return frozenset()
        try:
            if (own := code_of(name)) is not None:
                check_trusted(own, "the network")
            with named_by_a_file():
                return transposed(skeleton(name, 10, self.about["network_args"]))
        except ValueError:  # code that is not trusted is not imported: its layers are shown as they lie
            return frozenset()

    def records(self) -> list[dict[str, Any]]:
        """Return all its records.

        Raises
        ------
        ValueError
            In one line, where they are damaged.
        """
        return checked_records(self.hash, self.store)

    def rounds(self) -> list[dict[str, Any]]:
        """Return the records of its rounds."""
        return [record for record in self.records() if record["kind"] == "round"]

    def experiment(self) -> Experiment:
        """Return its description, validated."""
        return Experiment.from_description(self.about | {"scores": None})

    def described(self) -> str:
        """Return the hash of what its description says; where code is not trusted, of its words as they stand."""
        try:
            return self.experiment().hash
        except Untrusted:
            return hash_of(self.about)

    def mask(self, number: int, copy: int | None = None, layers: Iterable[str] | None = None) -> Mask:
        """Return the mask of a round's ticket, or of one of its copies: of all layers, or of those named.

        Raises
        ------
        ValueError
            In one line, where the round's file is missing, damaged, or has no such copy or layer.
        """
        with self._opened(number) as (file, about):
            kind = "mask" if copy is None else f"partition/{copy}"
            return {name: file.get_tensor(f"{kind}/{name}") for name in layers or about["masks"]}

    def layers(self, number: int = 0) -> dict[str, tuple[int, ...]]:
        """Return the prunable parameters and their shapes, in the network's order."""
        with self._opened(number) as (file, about):
            return {name: tuple(file.get_slice(f"mask/{name}").get_shape()) for name in about["masks"]}

    def copies(self, number: int) -> int:
        """Return how many copies' masks a round has: none where a single one was trained."""
        with self._opened(number) as (file, _):
            return len({key.split("/")[1] for key in file.keys() if key.startswith("partition/")})  # noqa: SIM118

    def weight(self, number: int, layer: str, index: tuple[int, ...]) -> float:
        """Return one weight of theta0."""
        with self._opened(number) as (file, _):
            return float(file.get_slice(f"weight/{layer}")[index[0]][tuple(index[1:])])

    def initial(self, layer: str, number: int = 0) -> torch.Tensor:
        """Return theta0 of one layer."""
        with self._opened(number) as (file, _):
            return file.get_tensor(f"weight/{layer}")

    def kept(self, number: int, layer: str, index: tuple[int, ...]) -> dict[str, bool]:
        """Tell who kept one weight in a round: "ticket", and each copy by its number."""
        with self._opened(number) as (file, _):
            kinds = [key.rsplit("/", 1)[0] for key in file.keys() if key.endswith(f"/{layer}")]  # noqa: SIM118
            kinds = [kind for kind in kinds if kind != "weight"]
            read = {kind: bool(file.get_slice(f"{kind}/{layer}")[index[0]][tuple(index[1:])]) for kind in kinds}
        return {kind.replace("mask", "ticket").removeprefix("partition/"): kept for kind, kept in sorted(read.items())}

    @contextmanager
    def _opened(self, number: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        with self.store.fetched(ticket_name(self.hash, number)) as path:
            try:
                with open_tensors(path) as file:
                    yield file, json.loads((file.metadata() or {})["ticket"])
            except (Damaged, *DAMAGED) as problem:
                what = "missing" if isinstance(problem, FileNotFoundError) else f"damaged ({first_line(problem)})"
                raise ValueError(f"the file of round {number} of {self.hash} is {what}") from None


def checked_records(name: str, store: Place = None) -> list[dict[str, Any]]:
    """Return the records of an experiment's hash, as `read_records`.

    Raises
    ------
    ValueError
        In one line, where they cannot be read or lack what every record has.
    """
    try:
        records = read_records(name, store)
        for record in records:
            needed = ["kind", "round", "experiment", "network_args", *NEEDED.get(record["kind"], ())]
            needed += [record.get("metric") or "accuracy"] if record["kind"] == "score" else []
            if lacking := [key for key in needed if key not in record]:
                raise ValueError(f"a record has no {lacking[0]!r}")
        return records
    except DAMAGED as problem:
        raise ValueError(f"the records of {name} are damaged ({first_line(problem)})") from None


def runs_in(store: Place = None) -> tuple[list[Saved], list[str]]:
    """Return the runs of a store, and a sentence on each folder that looks like one and cannot be read."""
    place, found, problems = open_store(store), [], []
    for name in place.names("*/experiment.json"):
        folder = name.split("/")[0]
        try:
            about = json.loads(place.read(name) or b"")
            run = Saved(place, folder, about)
            _ = run.label, run.records()
            if run.described() != folder:
                raise ValueError("experiment.json describes another experiment")
            found.append(run)
        except DAMAGED as problem:
            problems.append(f"{folder} cannot be read ({first_line(problem)})")
    return found, problems
