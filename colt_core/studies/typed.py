"""The fields of an experiment as they are typed on a command line: each is read by its own kind, none is guessed at."""

import re
from collections.abc import Callable
from typing import Any

from ..settings import shown
from .reading import parsed


def typed(name: str, text: str) -> Any:
    """Return the value of a field of `Experiment` from its text.

    Raises
    ------
    ValueError
        In one line, for text of another kind.
    """
    try:
        return READERS[name](text)
    except ValueError as problem:
        raise ValueError(f"{flag(name)}{problem}") from None


def flag(name: str) -> str:
    """Return the option that gives a field."""
    return f"--{name.replace('_', '-')}"


def whole(text: str) -> int:
    """Return a whole number, in decimal."""
    if not re.fullmatch(r"-?[0-9]{1,400}", text):
        raise ValueError(f" must be a whole number, not {shown(text)}")
    return int(text)


def number(text: str) -> float:
    """Return a number, in decimal: 0.3, .3 or 3e-1."""
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        raise ValueError(f" must be a number, not {shown(text)}")
    return float(text)


def _listed(text: str) -> list[str]:
    """Return the pieces of "[a, b]", "a,b" or "a b"."""
    return re.sub(r"^\s*\[(.*)\]\s*$", r"\1", text).replace(",", " ").split()


def _numbers(text: str) -> tuple[float, ...] | None:
    if text.strip() in ("none", "null"):
        return None
    try:
        return tuple(number(piece) for piece in _listed(text))
    except ValueError as problem:
        wrong = str(problem).rpartition("not ")[2]
        raise ValueError(f" must be numbers, for example 0.5,0.9, or none, not {wrong}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(_listed(text))


def _mapping(text: str) -> dict[str, Any]:
    found = parsed(text, "")
    if not isinstance(found, dict):
        raise ValueError(f" must be a mapping, for example {{width: 16}}, not {shown(text)}")
    return found


def _name_or_mapping(text: str) -> str | dict[str, Any]:
    return _mapping(text) if text.lstrip().startswith("{") else text


# What they refuse they say so that it follows the option's name.
READERS: dict[str, Callable[[str], Any]] = {
    "dataset": str,
    "parts": whole,
    "by": str,
    "network": str,
    "network_args": _mapping,
    "method": str,
    "recipe": _name_or_mapping,
    "finding": _mapping,
    "rate": number,
    "target": number,
    "densities": _numbers,
    "scope": str,
    "rewind": whole,
    "early_bird": _mapping,
    "options": _mapping,
    "official": _names,
    "objective": _name_or_mapping,
    "seed": whole,
    "scores": _numbers,
    "score_on": str,
    "scoring": _mapping,
}


ABOUT = {  # what each field is, for the command line's help
    "dataset": "what tickets are found on: a built-in name, a folder of class folders, torchvision:NAME, ...",
    "parts": "partitions of a COLT cycle, a copy trained on each",
    "by": "how images are split among them: class, random, stratified or order",
    "network": "conv3, resnet18, ..., torchvision:NAME, timm:NAME or package.module:function",
    "network_args": "its own settings, for example '{width: 16}'",
    "method": "how tickets are found: colt, imp, matched (IMP at COLT's densities), random, dense, ...",
    "recipe": "how networks are trained: mini, small or official, or {epochs: 5, batch_size: 32, ...}",
    "finding": "what of the recipe is another while tickets are found, for example '{epochs: 6}'",
    "rate": "the share of its weights that a copy loses in a round, between 0 and 1",
    "target": "the sparsity of the prunable weights at which it ends, between 0 and 1",
    "densities": "in place of rate and target: the density after each round, for example 0.5,0.2,0.1",
    "scope": "whether weights compete over the whole network or in each layer: global or layer",
    "rewind": "the training step to whose weights tickets are rewound; 0 is initialisation",
    "early_bird": "ends trainings once their masks have settled, for example '{}'; see EarlyBird",
    "options": "what only the method knows, for example '{pooling: smallest}' of consensus",
    "official": "choices of the COLT authors' code: best-epoch, statistics-kept, all-counted, ...",
    "objective": "what is learnt, for example '{name: kd}'; cross-entropy where none is given",
    "seed": "of everything: initialisation, splits, training",
    "scores": "sparsities at which tickets are scored, for example 0.5,0.9; [] every round, none: no ticket",
    "score_on": "another data set to score on (transfer)",
    "scoring": "another objective or head for scores, for example '{head: own}'",
}
