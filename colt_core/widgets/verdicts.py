"""Verdicts of one arm against the others, as a table of HTML for views and pages."""

from html import escape
from typing import Any

import pandas as pd

from .. import plots, report
from ..report.findings import MARKS, mark


def verdict_table(found: pd.DataFrame, arm: str) -> str:
    """Write verdicts as a table of HTML: a row another arm, a column a sparsity; mark, difference, seeds."""
    if not len(found):
        return "No two arms here were scored at the same sparsities."
    accuracy = "metric" not in found or found["metric"].eq("accuracy").all()
    levels = sorted(set(found["at"]))
    head = "".join(f'<th scope="col">{escape(report.level(at))}</th>' for at in levels)
    lines = []
    for other, rows in found.groupby("other", sort=False):
        cells = []
        for at in levels:
            one = rows[rows["at"] == at]
            cells.append(_cell(next(one.itertuples())) if len(one) else "<td>-</td>")
        lines.append(f'<tr><th scope="row">minus {escape(plots.arm_name(str(other)))}</th>{"".join(cells)}</tr>')
    unit = "points" if accuracy else str(found["metric"].iloc[0])
    legend = ", ".join(f"{sign} {word}" for word, sign in MARKS.items() if word not in ("yes", "no"))
    how = "95 % intervals, paired by seed; verdicts after Holm"
    caption = f"{escape(plots.arm_name(arm))} minus each, {unit} ({how}): {legend}"
    return f"<table><caption>{caption}</caption><tr><td></td>{head}</tr>{''.join(lines)}</table>"


def _cell(one: Any) -> str:
    said = str(one.verdict)
    parts = [part.removeprefix("yet ") for part in said.split(", ")]
    metric = str(getattr(one, "metric", "accuracy"))
    number = report.spread(one.difference, one.half_width, metric if metric != "nan" else "accuracy")
    about = escape(f"{said}, {report.count_seeds(one.seeds)}")
    kind = "equivalent" if "equivalent" in parts else parts[0].split(" ")[0]
    return f'<td class="colt-{kind}" title="{about}">{mark(said)} {escape(number)}</td>'
