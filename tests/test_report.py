import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from colt_core import report


def records(seeds=3):
    """Three seeds of colt and imp with made-up accuracies; dense beside them."""
    rows = []
    for seed in range(seeds):
        about = {"scored_on": "d", "dataset": "d", "network": "n", "seed": seed, "train_images": 100, "chance": 0.1}
        rows.append(
            about | {"kind": "score", "method": "dense", "round": 0, "density": 1.0, "accuracy": 0.9 + seed / 100}
        )
        for method, keep in (("colt", 0.5), ("imp", 0.8)):
            for number in range(12):
                row = about | {
                    "method": method,
                    "round": number,
                    "density": keep**number,
                    "image_epochs": 100 * number,
                    "score_image_epochs": 100,
                }
                rows.append(row | {"kind": "round", "accuracy": None})
                rows.append(
                    row | {"kind": "score", "accuracy": 0.8 - number / 50 + seed / 100 + (method == "imp") / 20}
                )
    frame = pd.DataFrame(rows)
    return frame.assign(experiment=frame["method"] + frame["seed"].astype(str))


def test_the_interval_is_scipys_t_interval():
    values = [0.40, 0.46, 0.43, 0.41]
    mean, half = report.interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_fewer_than_three_seeds_get_no_interval():
    assert report.interval([0.4, 0.5]) == (pytest.approx(0.45), pytest.approx(math.nan, nan_ok=True))
    assert set(report.accuracy_table(records(2), [0.7])["half_width"].isna()) == {True}


def test_each_run_counts_at_its_first_round_at_or_beyond_a_sparsity():
    table = report.accuracy_table(records(), [0.5, 0.7]).set_index(["method", "at"])
    assert table.loc[("colt", 0.5), "rounds"] == 1 and table.loc[("colt", 0.7), "rounds"] == 2
    assert table.loc[("imp", 0.5), "rounds"] == 4 and table.loc[("imp", 0.7), "rounds"] == 6
    assert table.loc[("colt", 0.7), "accuracy"] == pytest.approx(0.8 - 2 / 50 + 0.01)
    assert table.loc[("dense", 0.0), "accuracy"] == pytest.approx(0.91)


def test_only_the_first_round_at_a_sparsity_counts_even_where_others_are_scored():
    frame = records()
    first = (frame["kind"] == "score") & (frame["method"] == "colt") & (frame["round"] == 1)
    table = report.accuracy_table(frame[~first], [0.5, 0.7])
    assert table[table["method"] == "colt"]["at"].tolist() == [0.7]


def test_experiments_that_differ_in_more_than_the_seed_are_not_averaged():
    twice = pd.concat([records(), records().assign(experiment="another")])
    with pytest.raises(ValueError, match="the records mix 2 experiments of"):
        report.accuracy_table(twice, [0.5])


def test_a_sparsity_that_was_not_reached_is_left_out_not_made_up():
    table = report.accuracy_table(records(), [0.9999])
    assert set(table["method"]) == {"dense"}


def test_rounds_and_cost_to_a_sparsity():
    table = report.rounds_table(records(), [0.8, 0.9]).set_index(["method", "at"])
    assert table["rounds"].to_dict() == {("colt", 0.8): 3, ("imp", 0.8): 8, ("colt", 0.9): 4, ("imp", 0.9): 11}
    assert table.loc[("imp", 0.9), "image_epochs"] == 1100


def test_paired_differences_take_out_what_the_seed_shares():
    found = report.paired(records(), "colt", "imp", [0.5])
    row = found[found["at"] == 0.5].iloc[0]
    # colt at round 1, imp at round 4: 0.8 - 0.02 - (0.8 - 0.08 + 0.05) = 0.01 for every seed.
    assert row["difference"] == pytest.approx(0.01) and row["half_width"] == pytest.approx(0, abs=1e-9)
    assert "better" in report.verdict(found, "COLT", "IMP")[0]


def test_the_verdict_says_when_seeds_are_too_few_or_noise_too_large():
    unsure = pd.DataFrame(
        [{"at": 0.9, "difference": -0.01, "half_width": 0.03, "seeds": 3, "sparsity": 0.93, "other_sparsity": 0.9}]
    )
    single = unsure.assign(half_width=math.nan, seeds=1)
    assert "no difference that these seeds can show" in report.verdict(unsure, "A", "B")[0]
    assert "too few for an interval" in report.verdict(single, "A", "B")[0]
    assert "worse" in report.verdict(unsure.assign(half_width=0.001), "A", "B")[0]


def test_the_papers_table_is_written_as_csv_markdown_and_latex(tmp_path):
    table = report.paper_table(records(), [0.5, 0.7])
    assert table.columns.tolist() == ["dataset", "network", "method", "seeds", "dense", "50% sparse", "70% sparse"]
    csv, markdown, latex = report.save(table, tmp_path, "table")
    assert pd.read_csv(csv).equals(table)
    assert "91.0 ± 2.5" in markdown.read_text() and r"\begin{tabular}" in latex.read_text()
    assert r"50\% sparse" in latex.read_text()


def test_an_empty_store_is_an_empty_table(tmp_path):
    assert report.load(tmp_path).empty
