"""Study files: where they are, and their YAML, or JSON, read strictly: what a plain reader passes over is refused."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from ..settings import LEVELS, first_line, one_line, shown

STUDIES = Path(__file__).parent / "ready"
MOST_BYTES = 100_000
MOST_VALUES = 10_000  # with every alias written out: a few lines of aliases of aliases can stand for billions
_DECIMAL = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_MERGED = "tag:yaml.org,2002:merge"  # of the key <<, which may stand there more than once


def file_of(name: str) -> Path:
    """Return the file of a ready study, or the file that a path names.

    Raises
    ------
    ValueError
        In one line, where there is neither.
    """
    ready = sorted(path.stem for path in STUDIES.glob("*.yaml"))
    path = STUDIES / f"{name}.yaml" if name in ready else Path(name)
    try:
        there = path.suffix in (".yaml", ".yml", ".json") and path.is_file()
    except OSError:  # longer than a path can be
        there = False
    if not there and str(name).endswith((".yaml", ".yml", ".json")):
        raise ValueError(f"there is no study file {shown(str(name))}")
    if not there:
        raise ValueError(f"unknown preset {shown(name)}; allowed: {', '.join(ready)}, or a YAML or JSON file")
    return path


def on_other_data(dataset: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return a study's content, without its pieces, on another data set; what is no study is left for `Study`."""
    if not isinstance(content.get("base"), dict):
        return content
    moved = content | {"base": content["base"] | {"dataset": dataset}, "pieces": []}
    if isinstance(content.get("grid"), dict):
        moved["grid"] = {name: values for name, values in content["grid"].items() if name != "dataset"}
    if isinstance(content.get("transfer"), dict):
        moved["transfer"] = content["transfer"] | {"among": None}
    return moved


def check_name(name: str) -> None:
    """Raise a `ValueError` unless a name can stand in a path, and leads nowhere else."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(f"{shown(name)} is no name: letters, digits, - _ and . are allowed, at most 100")


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises
    ------
    ValueError
        In one line, where it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise ValueError(f"{path} cannot be read ({problem.strerror})") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes: no study")
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is no YAML: {problem}") from None


def parsed(text: str, what: str) -> Any:
    """Return what YAML, or JSON, stands for.

    Parameters
    ----------
    text
        The text. Numbers are decimal; 3e-3 is one, as in JSON.
    what
        Its name in errors.

    Raises
    ------
    ValueError
        In one line: no YAML, a key twice in one mapping, a number that is not decimal (010 would be 8), nested too
        deeply, or too many values.
    """
    try:
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, what, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply: at most {LEVELS} levels") from None
    except _Refused as problem:
        raise ValueError(str(problem)) from None
    except Exception as problem:  # of the syntax; or of a value that its tag does not fit: many kinds
        raise ValueError(f"{what} is no YAML: {one_line(problem)[:300] or first_line(problem)}") from None


class _Refused(Exception):
    """What is YAML, and is refused all the same."""


@cache
def _loader() -> Any:
    """Return PyYAML's safe reader, to which 3e-3 is a number; made late, as the core also runs where YAML is not."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"^[-+]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _check(node: Any, what: str, known: dict[int, tuple[int, int]], level: int = 0) -> tuple[int, int]:
    """Return how many values a node stands for, aliases written out, and how many levels they have.

    `known` holds the answers of nodes that other aliases have come to; (0, LEVELS) while a node is under way, so that
    one which contains itself is nested too deeply.
    """
    size, height = known.get(id(node), (0, 0))
    if level + height > LEVELS:
        raise _Refused(f"{what} is nested too deeply: at most {LEVELS} levels")
    if id(node) in known:
        return size, height
    known[id(node)] = 0, LEVELS + 1
    inner = [_check(part, what, known, level + 1) for part in _parts(node, what)]
    size = 1 + sum(count for count, _ in inner)
    if size > MOST_VALUES:
        raise _Refused(f"{what} has more than {MOST_VALUES:,} values: no study")
    known[id(node)] = size, max((levels for _, levels in inner), default=-1) + 1
    return known[id(node)]


def _parts(node: Any, what: str) -> list[Any]:
    """Return the nodes that one is made of; refuse a key that stands there twice, and odd numbers."""
    line = f"{what}, line {node.start_mark.line + 1}"
    if isinstance(node.value, str):
        if node.tag in _DECIMAL and not _DECIMAL[node.tag].fullmatch(node.value):
            raise _Refused(f"{line}: {shown(node.value)} is no decimal number; as text it needs quotes")
        return []
    if not all(isinstance(part, tuple) for part in node.value):
        return list(node.value)
    seen = set()
    for key, _ in node.value:
        name = (key.tag, str(key.value))
        if name in seen and key.tag != _MERGED:
            where = f"{what}, line {key.start_mark.line + 1}"
            raise _Refused(f"{where}: the key {shown(key.value)} stands there twice")
        seen.add(name)
    return [part for pair in node.value for part in pair]
