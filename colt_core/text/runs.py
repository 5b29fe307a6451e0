"""The runs of the text study: each a description, its hash the name of its record; what is recorded is done."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import Field, model_validator

from ..compute.store import Store, open_store
from ..seeding import choose_device, generator
from ..settings import Settings
from .bert import MINILM, Bert, encoder_size, everything, full_size, pretrained
from .fine_tuning import FineTuning, accuracy, fine_tune
from .texts import Corpus, Sample, load
from .tickets import kept_units, unit_importance
from .wheels import WHEELS

ORDERS = ("winning", "losing", "random")
PERCENTS = (10, 30, 50)
FOLDER = "text"  # of the store


class TextRun(Settings):
    """One fine-tuning: the whole network ("dense"), or a ticket without so many percent of its heads and blocks.

    Runs of one seed share the texts, their order and the classifier's first weights, so their scores are paired.
    """

    corpus: Literal["r8", "20newsgroups"] = "20newsgroups"
    order: Literal["dense", "winning", "losing", "random"] = "dense"
    percent: int = Field(0, ge=0, le=91)
    seed: int = Field(0, ge=0)
    sample: Sample = Sample()
    recipe: FineTuning = FineTuning()

    @model_validator(mode="after")
    def _cuts_what_it_says(self) -> "TextRun":
        if (self.order == "dense") != (self.percent == 0):
            raise ValueError(f"{self.order} tickets without {self.percent} %: dense is 0 %, every other order more")
        return self

    @property
    def hash(self) -> str:
        """Names the record: of the description and of the wheels' files, 16 hexadecimal digits."""
        about = self.model_dump(mode="json") | {"wheels": WHEELS}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def dense(self) -> "TextRun":
        """The run of the whole network, which tells how much each unit matters."""
        return self.changed(order="dense", percent=0)


def run_text(run: TextRun, store: Store | str | None = None, device: str = "auto") -> dict[str, Any]:
    """Return a run's record: from the store, else trained now; where another process is at it, waited for.

    A ticket's dense run comes first. A kill loses the run it hits, and none that is recorded.

    Returns
    -------
    dict
        The description's fields, `experiment` (its hash), heads and blocks (how many are left), parameters (of the
        encoder's layers), share (of them that is cut), validation and test (accuracies), importance (of the dense run:
        mean |dL/dgate|, [layers][heads + 1]), seconds, device, torch.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, where a wheel is not installed or has a file with another hash.
    """
    place, where = open_store(store), choose_device(device)
    name = f"{FOLDER}/{run.hash}.json"

    def work() -> Iterator[dict[str, Any]]:
        record = _carried_out(run, place, where)
        place.write(name, json.dumps(record))
        yield record

    return list(place.once(name, lambda: _record(place, name), work))[-1]


def _carried_out(run: TextRun, store: Store, device: torch.device) -> dict[str, Any]:
    corpus = _corpus(run.corpus, run.sample, run.seed)
    units = everything(MINILM)
    if run.order != "dense":
        importance = torch.tensor(run_text(run.dense, store, str(device))["importance"], dtype=torch.float64)
        units = kept_units(importance, run.percent, run.order, generator(run.seed, "units"))
    began = time.monotonic()
    network = pretrained(len(corpus.train.classes), units, run.seed)
    fine_tune(network, corpus.train, run.recipe, run.seed, device)
    record = _described(run, network, corpus, device)
    if run.order == "dense":
        record["importance"] = unit_importance(network, corpus.train, device).tolist()
    return record | {"seconds": time.monotonic() - began}


def _described(run: TextRun, network: Bert, corpus: Corpus, device: torch.device) -> dict[str, Any]:
    size = encoder_size(network)
    return run.model_dump(mode="json") | {
        "experiment": run.hash,
        "heads": int(network.units[:, :-1].sum()),
        "blocks": int(network.units[:, -1].sum()),
        "parameters": size,
        "share": 1 - size / full_size(MINILM),
        "validation": accuracy(network, corpus.validation, device),
        "test": accuracy(network, corpus.test, device),
        "device": str(device),
        "torch": torch.__version__,
    }


@lru_cache(maxsize=1)
def _corpus(name: str, sample: Sample, seed: int) -> Corpus:
    return load(name, sample, seed)


def _record(store: Store, name: str) -> dict[str, Any] | None:
    """Return what stands in a record; None where there is none, or it is damaged."""
    try:
        return dict(json.loads(store.read(name) or b""))
    except (ValueError, TypeError):
        return None


def grid(
    corpus: str,
    percents: Iterable[int] = PERCENTS,
    orders: Iterable[str] = ORDERS,
    seeds: Iterable[int] = (0,),
    sample: Sample | None = None,
    recipe: FineTuning | None = None,
) -> list[TextRun]:
    """Return all runs of a study, seed by seed, the dense one first: what is stopped early has whole seeds."""
    about: dict[str, Any] = {"corpus": corpus, "sample": sample or Sample(), "recipe": recipe or FineTuning()}
    levels, kinds = list(percents), list(orders)
    return [
        run
        for seed in seeds
        for run in (
            TextRun(seed=seed, **about),
            *(TextRun(seed=seed, order=order, percent=p, **about) for p in levels for order in kinds),
        )
    ]


def run_study(
    corpus: str,
    percents: Iterable[int] = PERCENTS,
    orders: Iterable[str] = ORDERS,
    seeds: Iterable[int] = (0,),
    store: Store | str | None = None,
    device: str = "auto",
    **how: Any,
) -> pd.DataFrame:
    """Run what is not recorded yet of a study, and return its records as a table (`records`).

    Several processes may do so on one store, best with seeds of their own.

    Parameters
    ----------
    corpus
        "r8" or "20newsgroups".
    percents, orders, seeds
        The grid; a dense run a seed belongs to it.
    store
        A folder, an fsspec URL, or None for `$COLT_STORE`, else `runs`.
    device
        The processor uses one thread, whatever is free: results depend on how many.
    **how
        `sample` and `recipe`.

    Raises
    ------
    FileNotFoundError, ValueError
        As of `run_text`.
    """
    place = open_store(store)
    return _table(run_text(run, place, device) for run in grid(corpus, percents, orders, seeds, **how))


def records(store: Store | str | None = None) -> pd.DataFrame:
    """Return all records of the text part that a store holds.

    Returns
    -------
    pandas.DataFrame
        Columns corpus, order, percent, seed, heads, blocks, parameters, share, validation, test, seconds,
        device, experiment, and `setting`: sample and recipe as JSON, equal where runs can be compared.
    """
    place = open_store(store)
    found = (_record(place, name) for name in place.names(f"{FOLDER}/*.json"))
    return _table(record for record in found if record)


COLUMNS = ["corpus", "order", "percent", "seed", "heads", "blocks", "parameters", "share", "validation", "test"]
COLUMNS += ["seconds", "device", "experiment", "setting"]


def _table(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    rows = [r | {"setting": json.dumps([r["sample"], r["recipe"]], sort_keys=True)} for r in found]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values(["corpus", "setting", "seed", "percent", "order"], ignore_index=True)
