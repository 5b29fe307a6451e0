"""What we saw, as a table: a row a question, one mark, one number; the whole sentence is its tooltip."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import pandas as pd

from .arms import called
from .compare import conclusion, verdict
from .words import ACCURACY, level, spread, unit

# Told apart by shape; colours are Okabe and Ito's, until small text is legible darkened on white, lightened on black.
MARKS = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?", "too few seeds": "…", "yes": "✓", "no": "✗"}
HUES = {"better": ("#00598c", "#6db8e8"), "worse": ("#a34700", "#ff9e4a"), "equivalent": ("#00664a", "#4fc79a")}
HUES |= {"yes": HUES["better"], "no": HUES["worse"]}


def mark(said: str) -> str:
    """Return the mark of a verdict: "▼" of "worse", "▼=" of "worse, yet equivalent"."""
    return "".join(MARKS.get(part.removeprefix("yet "), "") for part in said.split(", "))


@dataclass(frozen=True)
class Finding:
    """One row: the question, its verdict in words (see `MARKS`), one number with its unit, and the whole sentence."""

    question: str
    verdict: str
    number: str
    told: str = ""


@dataclass(frozen=True, eq=False)
class Findings:
    """A table of findings and a sentence or two, which a notebook shows as its last output."""

    rows: tuple[Finding, ...]
    says: tuple[str, ...] = ()

    def __repr__(self) -> str:
        widths = [max(len(text) for text in column) for column in zip(*map(_cells, self.rows), strict=True)]
        lines = ["  ".join(map(str.ljust, _cells(row), widths)).rstrip() for row in self.rows]
        return "\n".join([*lines, *(["", *self.says] if self.says else [])])

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" style="text-align:left">{name}</th>' for name in ("question", "verdict", "number")
        )
        said = "".join(f'<p style="margin:0.7em 0">{escape(text)}</p>' for text in self.says)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, self.rows))}</tbody></table>{said}"


def findings(rows: Iterable[Finding | tuple[str, ...]], *says: str) -> Findings:
    """Return findings as a notebook shows them.

    Parameters
    ----------
    rows
        Each a `Finding`, or (question, verdict, number[, sentence]).
    says
        A sentence or two below.
    """
    found = tuple(row if isinstance(row, Finding) else Finding(*row) for row in rows)
    if not found:
        raise ValueError("there is nothing to tell: findings need a row or more")
    return Findings(found, says)


def asked(table: pd.DataFrame, method: str, other: str, margin: float = 0.01, at: bool = False) -> list[Finding]:
    """Return a row of `compare`, `against` or `over_sparsities` each as a finding: "COLT against IMP?".

    Parameters
    ----------
    method, other
        The arms as records name them, or in words.
    at
        Whether to name the sparsity: of tables with several.
    """
    first, second = called(method), called(other)
    found = []
    for row, sentence in zip(table.itertuples(), conclusion(table, first, second, margin), strict=True):
        metric = getattr(row, "metric", ACCURACY)
        metric = metric if isinstance(metric, str) else ACCURACY
        number = f"{spread(row.difference, row.half_width, metric)} {unit(metric)}"
        where = f", {level(row.at)}" if at else ""  # type: ignore[arg-type]
        found.append(Finding(f"{first} against {second}{where}", verdict(row), number, sentence))
    return found


def sided(value: float, half_width: float) -> str:
    """Return what an interval says of a difference: "better" or "worse" where 0 lies outside, else "undecided"."""
    if math.isnan(half_width):
        return "too few seeds"
    return "better" if value > half_width else "worse" if value < -half_width else "undecided"


def _cells(row: Finding) -> tuple[str, str, str]:
    return row.question, f"{mark(row.verdict)} {row.verdict}".strip(), row.number


def _row(row: Finding) -> str:
    question, said, number = map(escape, _cells(row))
    left, hue = "text-align:left", HUES.get(row.verdict.split(", ")[-1].removeprefix("yet "))
    # The first colour is that of browsers which do not know the second's function.
    colour = "color:{0};color:light-dark({0}, {1})".format(*hue) if hue else "color:inherit"
    return (
        f'<tr title="{escape(row.told)}"><td style="{left}">{question}</td>'
        f'<td style="{left};white-space:nowrap;{colour}">{said}</td><td style="{left}">{number}</td></tr>'
    )
