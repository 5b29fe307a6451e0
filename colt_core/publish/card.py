"""Model cards: what a ticket is, how it was found and how well it does, as Markdown beside it or where it is published.

from colt_core import cards
cards.write_card("runs/649704a4d147abdb/round-03.safetensors")
cards.push("runs/649704a4d147abdb/round-03.safetensors", "hf://user/colt-conv3")
"""

import json
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .. import masks
from ..files import write_text, write_whole
from ..methods import recorded
from ..settings import one_line
from ..studies.experiment import Experiment, method_in_words, settings_in
from ..studies.foresight import doubts
from ..studies.records import read_records
from ..tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd

FILE = "ticket.safetensors"  # its name where it is published
PAPER = "https://arxiv.org/abs/2212.12770"
Records = Iterable[dict[str, Any]]
DOUBTED = ("dataset", "method", "parts", "by", "rate", "target", "densities")  # what can make nonsense of a run
_COUNTS = ("train_images", "test_images", "image_epochs", "threads")


def card(
    ticket: Ticket | str | Path,
    records: "Records | pd.DataFrame | None" = None,
    layers: bool = True,
    file: str | None = None,
) -> str:
    """Return a ticket's card as Markdown.

    Parameters
    ----------
    ticket
        A ticket, or its file: then the settings and the records of its experiment are read from beside it.
    records
        What `run` or `read_records` returned, where they are not beside the file.
    layers
        Whether to give a table of the layers.
    file
        The name that the loading lines use; by default the file's own.

    Raises
    ------
    FileNotFoundError, ValueError
        As `Ticket.load`.
    """
    path = None if isinstance(ticket, Ticket) else Path(ticket)
    found = ticket if isinstance(ticket, Ticket) else Ticket.load(ticket)
    own = _own(found, _listed(records) if records is not None else _beside(path))
    settings, data = _settings(path, own)
    parts = [_head(found, settings), *_warnings(found, own, settings), _found(settings), _scores(own)]
    parts += [_layers(found)] if layers else []
    parts += [_provenance(found, own, data), _loading(file or (path.name if path else FILE)), _citation()]
    return "\n\n".join(parts) + "\n"


def write_card(path: str | Path) -> Path:
    """Write a ticket's card beside it, `<ticket>.md`, whole or not at all; return its path."""
    return write_text(Path(path).with_suffix(".md"), card(path))


def push(path: str | Path, destination: str | Path, private: bool = False) -> str:
    """Publish a ticket with its card (README.md) and its experiment's records (records.jsonl).

    The records name the data set as the experiment did: a folder of your own with its whole path.

    Parameters
    ----------
    path
        The ticket's file.
    destination
        A local folder, or "hf://user/name": a Hugging Face model repository, created where there is none yet. Its
        library finds your token (`hf auth login` or `$HF_TOKEN`).
    private
        Whether a new repository is private.

    Returns
    -------
    str
        The folder, or the repository's address.

    Raises
    ------
    ValueError
        For another kind of destination, or where `huggingface_hub` is missing.
    OSError
        In one line, where it cannot be written.
    """
    text = str(destination)
    if text.startswith("hf://"):
        return _push_to_hub(Path(path), text, private)
    if "://" in text:
        raise ValueError(f"a ticket is pushed to a folder or to hf://user/name, not to {text!r}")
    folder, source = Path(text), Path(path)
    about = card(source, file=FILE)
    lines = "".join(json.dumps(record) + "\n" for record in _beside(source))
    write_whole(folder / FILE, lambda part: part.write_bytes(source.read_bytes()))
    if lines:
        write_text(folder / "records.jsonl", lines)
    write_text(folder / "README.md", _front_matter() + about)
    return str(folder)


def _push_to_hub(path: Path, destination: str, private: bool) -> str:
    name = destination.removeprefix("hf://")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"a Hugging Face repository is hf://user/name, not {destination!r}")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ValueError("hf:// needs a library: pip install huggingface_hub") from None
    with TemporaryDirectory() as folder:
        push(path, folder)
        try:
            url = HfApi().create_repo(repo_id=name, repo_type="model", private=private, exist_ok=True)
            HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message=f"Ticket {Ticket.load(path).hash}")
        except Exception as problem:  # of the network, of the token, of the name: many kinds
            reason = next(iter(str(problem).splitlines()), type(problem).__name__)
            raise OSError(f"{destination} cannot be written ({reason})") from None
    return str(url)


# --- what is known -----------------------------------------------------------------------------------------------


def _beside(path: Path | None) -> list[dict[str, Any]]:
    """Return the records of the experiment whose folder a ticket lies in."""
    return read_records(path.absolute().parent.name, path.absolute().parent.parent) if path else []


def _listed(records: "Records | pd.DataFrame") -> list[dict[str, Any]]:
    rows = records.to_dict("records") if hasattr(records, "to_dict") else records
    return [{k: _undone(k, v) for k, v in row.items()} for row in rows]


def _undone(name: str, value: Any) -> Any:
    """Return a value as it was before it shared a column with missing ones."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else int(value) if name in _COUNTS else value


def _own(ticket: Ticket, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of this ticket's round."""
    about = ticket.provenance
    keys = {key: about[key] for key in ("experiment", "round") if key in about}
    return [record for record in records if keys and all(record.get(k) == v for k, v in keys.items())]


def _settings(path: Path | None, own: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return an experiment's settings and its data's fingerprints: from the description, or from a record."""
    description = path.with_name("experiment.json") if path else None
    if description and description.is_file():
        about = json.loads(description.read_text())
        return settings_in(about), about.get("data", [])
    return (settings_in(own[0]) if own else {}), []


# --- sections ----------------------------------------------------------------------------------------------------


def _head(ticket: Ticket, settings: dict[str, Any]) -> str:
    about, arch = ticket.provenance, ticket.architecture
    data = settings.get("dataset") or "unknown data"
    method = method_in_words(settings) if "method" in settings else about.get("method") or "an unknown method"
    rows: list[tuple[str, Any]] = [
        ("network", f"{arch['name']}, {arch['classes']} classes {arch['arguments'] or ''}".strip()),
        ("data set", data),
        ("method, round", f"{method}, {about.get('round', 'unknown')}"),
        ("kept weights", f"{masks.count(ticket.mask):,} of {masks.size(ticket.mask):,} prunable"),
        ("density (prunable)", f"{ticket.density:.4%}"),
        ("sparsity (prunable)", f"{1 - ticket.density:.4%}"),
        ("density (all weights)", f"{ticket.density_all:.4%}"),
        ("sparsity (all weights)", f"{1 - ticket.density_all:.4%}"),
    ]
    title = f"# A lottery ticket: {_text(arch['name'])} at {1 - ticket.density:.2%} sparsity"
    where = f"found on {_text(data)} by {_text(method)}"
    known = isinstance(settings.get("method"), str) and recorded(settings["method"]).transforms
    weights = (
        "Weights that were made to fit a mask, and the mask"
        if known
        else "Initial weights (theta0) and a mask over them"
    )
    lead = f"{weights}, {where}. {'They are where its training starts' if known else 'It is not trained: train it'}."
    return f"{title}\n\n{lead}\n\n{_table(('', ''), rows)}"


def _warnings(ticket: Ticket, own: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    """Return a section on what makes it no ticket worth having, where there is such a thing."""
    told = [str(text) for record in own for text in record.get("warnings") or ()]
    told += [f"{name} has no weight left" for name, kept in ticket.mask.items() if not kept.any()]
    with suppress(ValueError):  # settings of a stranger, or of code that is not here
        told += doubts(Experiment.from_description({n: settings[n] for n in DOUBTED if n in settings}), load=False)
    lines = [f"- {_text(text[:1].upper() + text[1:])}." for text in dict.fromkeys(told)]
    return ["## Warnings\n\n" + "\n".join(lines)] if lines else []


def _found(settings: dict[str, Any]) -> str:
    rows = [
        (f"{name}.{inner}" if inner else name, value)
        for name, outer in settings.items()
        for inner, value in (outer.items() if isinstance(outer, dict) else [("", outer)])
        if value is not None
    ]
    body = _table(("setting", "value"), rows) if rows else "The experiment's settings are not known here."
    return f"## How it was found\n\n{body}"


def _scores(own: list[dict[str, Any]]) -> str:
    scores = [record for record in own if record["kind"] == "score"]
    if not scores:
        return "## Scores\n\nIt has not been scored."
    metric = scores[0].get("metric") or "accuracy"
    columns = {
        f"test {metric}": metric,
        f"validation {metric}": f"validation_{metric}",
        "chance": "chance",
        "training images": "train_images",
        "test images": "test_images",
        "image-epochs": "image_epochs",
    }
    shown = [r for r in scores if (r.get("metric") or "accuracy") == metric]
    ways = [r.get("scored_by") or "" for r in shown]
    columns = ({"scored by": "scored_by"} if any(ways) else {}) | columns
    rows = [(r.get("scored_on") or r["dataset"], *(_plain(r.get(name)) for name in columns.values())) for r in shown]
    heads = {"its own" if way.endswith("own head") else "a fresh" for way in ways}
    note = (
        f"Trained from theta0 with the mask and {' or '.join(sorted(heads))} head, then tested once: last epoch, test "
        "set. Image-epochs are what finding the ticket cost, an image counted once an epoch."
    )
    return f"## Scores\n\n{note}\n\n{_table(('scored on', *columns), rows)}"


def _layers(ticket: Ticket) -> str:
    table = masks.by_layer(ticket.mask, transposed=ticket.transposed).reset_index()
    rows = [[_plain(value) for value in row] for row in table.itertuples(index=False)]
    return f"## Layers\n\n{_table(tuple(table.columns), rows)}"


def _provenance(ticket: Ticket, own: list[dict[str, Any]], data: list[str]) -> str:
    rows: list[tuple[str, Any]] = [("hash", ticket.hash)]
    rows += [(name, value) for name, value in ticket.provenance.items() if value is not None]
    rows += [(name, own[0][name]) for name in ("python", "device", "threads") if own and own[0].get(name) is not None]
    rows += [(f"{part} data", print_) for part, print_ in zip(("training", "validation", "test"), data, strict=False)]
    return f"## Provenance\n\n{_table(('', ''), rows)}"


def _loading(file: str) -> str:
    return f"""## How to load it

With colt_core:

```python
import colt_core as cc
ticket = cc.Ticket.load({file!r})
network = ticket.model()  # theta0 with the masked weights at zero
# cc.evaluate(ticket, data, recipe) trains and tests it; cc.train(network, data.train, recipe, mask=ticket.mask)
# trains this very network (without the mask what is pruned would grow again).
```

With safetensors alone:

```python
from safetensors.torch import load_file
tensors = load_file({file!r})
theta0 = {{name[7:]: tensor for name, tensor in tensors.items() if name.startswith("weight/")}}
mask = {{name[5:]: tensor for name, tensor in tensors.items() if name.startswith("mask/")}}
pruned = {{name: tensor * mask[name] if name in mask else tensor for name, tensor in theta0.items()}}
```"""


def _citation() -> str:
    return f"""## Citation

COLT is the method of [arXiv 2212.12770]({PAPER}):

```bibtex
@article{{hossain2025colt,
  title   = {{COLT: Cyclic Overlapping Lottery Tickets for Faster Pruning of Convolutional Neural Networks}},
  author  = {{Hossain, Md. Ismail and Rakib, Mohammed and Elahi, M. M. Lutfe and Mohammed, Nabeel and Rahman, Shafin}},
  journal = {{IEEE Transactions on Artificial Intelligence}},
  volume  = {{6}}, number = {{6}}, pages = {{1664--1678}}, year = {{2025}},
  note    = {{arXiv:2212.12770}}
}}
```"""


def _front_matter() -> str:
    """Return what the Hugging Face Hub reads of a card."""
    tags = "[lottery-ticket, pruning, colt, 'arxiv:2212.12770']"
    return f"---\nlibrary_name: colt_core\npipeline_tag: image-classification\ntags: {tags}\n---\n\n"


def _table(head: tuple[Any, ...], rows: Iterable[Iterable[Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(map(_text, cells)) + " |"

    return "\n".join([line(head), "|" + " --- |" * len(head), *map(line, rows)])


def _text(value: Any) -> str:
    """Return a value as Markdown shows it: as text in one line, whatever it holds. A ticket may be a stranger's."""
    line = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*~\[\]|]|(?<!\w)_|_(?!\w)|:(?=//)", r"\\\g<0>", line)


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
