"""Verdicts as tables, tables for a screen, and axes that all speak of sparsity."""

import re

import numpy as np
import pandas as pd
import pytest

from colt_core import plots, report


def compared(**fields):
    """A row of `report.compare`."""
    usual = {"scored_on": "cifar10", "network": "conv3", "at": 0.8, "difference": -0.03, "half_width": 0.01}
    usual |= {"p_holm": 0.001, "equivalent": False, "detectable": 0.02, "seeds": 3, "sparsity": 0.81}
    return usual | {"other_sparsity": 0.82, "train_images": 2700.0} | fields


def test_a_row_of_a_comparison_is_a_question_a_mark_and_a_number_with_its_sentence_as_tooltip():
    table = pd.DataFrame([compared(), compared(at=0.9, difference=0.001, p_holm=0.8, equivalent=True)])
    rows = report.asked(table, "colt", "matched", at=True)
    assert [(row.question, row.verdict, row.number) for row in rows] == [
        ("COLT against IMP at COLT's rate, 80% sparse", "worse", "-3.0 ± 1.0 points"),
        ("COLT against IMP at COLT's rate, 90% sparse", "equivalent", "+0.1 ± 1.0 points"),
    ]
    assert [row.told for row in rows] == report.conclusion(table, "COLT", "IMP at COLT's rate")
    found = report.findings([*rows, ("<is it?>", "undecided", "n = 3")], "One & only.")
    first = repr(found).splitlines()[0]
    assert first.startswith(rows[0].question) and "▼ worse" in first and first.endswith(rows[0].number)
    html = found._repr_html_()
    assert html.count("<tr") == 4 and "▼ worse" in html and "= equivalent" in html and "? undecided" in html
    assert "&lt;is it?&gt;" in html and "One &amp; only." in html and 'title="cifar10 (2,700 training images)' in html
    colours = set(re.findall(r"color:(#\w+)", html))
    assert len(colours) == 2  # of what is decided, and each has a shape of its own as well
    with pytest.raises(ValueError, match="there is nothing to tell"):
        report.findings([])


def test_an_interval_decides_only_where_zero_lies_outside():
    assert [report.sided(*pair) for pair in ((0.3, 0.2), (-0.3, 0.2), (0.1, 0.2), (0.1, np.nan))] == [
        *("better", "worse", "undecided", "too few seeds")
    ]


def test_a_table_for_a_screen_has_three_digits_names_and_no_hashes():
    table = pd.DataFrame(
        [compared(method="colt", other="matched", experiments="abc", metric="accuracy", higher_is_better=True)]
    )
    shown = report.readable(table)
    assert shown["method"].item() == "COLT" and shown["other"].item() == "IMP at COLT's rate"
    assert "experiments" not in shown and shown["points"].item() == "-3" and shown["± points"].item() == "1"
    assert shown["training images" if "training images" in shown else "train images"].item() == "2,700"


def test_axes_speak_of_sparsity_in_percent():
    with plots.canvas() as (_, axis):
        axis.plot([1, 0.5, 0.01], [1, 2, 3])
        axis.set(xscale="log", yscale="log", xlim=(0.008, 1.2))
        plots.sparsity_axis(axis)
    assert axis.get_xlabel() == "sparsity, %" and axis.xaxis_inverted()
    texts = [text.get_text() for text in axis.get_xticklabels()]
    assert texts == ["0", "20", "50", "70", "80", "90", "95", "98", "99"]
    assert axis.get_xticks() == pytest.approx([1, 0.8, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])


def test_similarity_beyond_chance_is_coloured_as_far_as_it_goes():
    """On a scale of ± 1 all of 0 to 0.39 looked alike."""
    names = ["a", "b", "c"]
    table = pd.DataFrame([[0.9, 0.39, 0.0], [0.39, 0.9, -0.1], [0.0, -0.1, 0.9]], names, names)
    mesh = plots.similarity(table, "Jaccard index minus chance", centre=True).axes[2].collections[0]
    assert mesh.get_clim() == (-0.39, 0.39)
    assert plots.similarity(table).axes[2].collections[0].get_clim() == (0, 1)
