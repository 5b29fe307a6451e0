import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import colt_core as cc
from colt_core import plots, report
from colt_core.cli import main
from colt_core.report.compare import _scores_at, differences, pairs_of
from colt_core.report.statistics import noncentrality, paired_tests

ROOT = Path(__file__).parent.parent


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
    twice = pd.concat([records(), variant(records(), format=3)])
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
    row = report.compare(records(), "colt", "imp", [0.5]).iloc[0]
    # colt at round 1, imp at round 4, 0.8 - 0.08 + 0.05; colt goes from 0.78 to 0.76 while its density halves, and at
    # imp's 0.8^4 it has gone the share log(0.5 / 0.8^4) / log(2) of it. The same for every seed.
    assert row["difference"] == pytest.approx(0.78 - 0.02 * math.log2(0.5 / 0.8**4) - 0.77)
    assert row["sparsity"] == row["other_sparsity"] == pytest.approx(1 - 0.8**4)
    assert row["half_width"] == pytest.approx(0, abs=1e-9) and report.verdict(row) == "better, yet equivalent"


def test_the_papers_table_is_written_as_csv_markdown_and_latex(tmp_path):
    table = report.paper_table(records(), [0.5, 0.7])
    assert table.columns.tolist() == [
        "dataset",
        "network",
        "method",
        "training images",
        "seeds",
        "dense",
        "50% sparse",
        "70% sparse",
    ]
    csv, markdown, latex = report.save(table, tmp_path, "table")
    assert pd.read_csv(csv).equals(table)
    assert "91.0 ± 2.5" in markdown.read_text() and r"\begin{tabular}" in latex.read_text()
    assert r"50\% sparse" in latex.read_text()


def test_an_empty_store_is_an_empty_table(tmp_path):
    assert report.load(tmp_path).empty


# --- arms --------------------------------------------------------------------------------------------------------


def variant(frame, **fields):
    """The same records as of other experiments that differ in some fields."""
    mark = json.dumps(fields, sort_keys=True)
    return frame.assign(**fields, experiment=frame["experiment"] + mark)


def test_arms_name_the_settings_in_which_experiments_of_a_method_differ():
    colt, imp = (records()[records()["method"] == name] for name in ("colt", "imp"))
    both = pd.concat([variant(colt, parts=2, rate=0.3), variant(colt, parts=3, rate=0.3), variant(imp, parts=2)])
    assert set(report.arms(both)["arm"]) == {"colt (parts 2)", "colt (parts 3)", "imp"}
    table = report.accuracy_table(both, [0.5])
    assert set(table["method"]) == {"colt (parts 2)", "colt (parts 3)", "imp"} and set(table["seeds"]) == {3}
    assert set(report.rounds_table(both, [0.5])["method"]) == {"colt (parts 2)", "colt (parts 3)", "imp"}
    assert len(report.paper_table(both, [0.5])) == 3
    assert report.compare(both, "colt (parts 2)", "colt (parts 3)", [0.5])["difference"].tolist() == [0]


def test_arms_open_up_recipes_and_network_arguments_and_name_what_is_missing():
    colt = records()[records()["method"] == "colt"]
    wide, narrow = json.dumps({"width": 16}), json.dumps({"width": 8})
    recipes = [json.dumps({"epochs": n, "milestones": [1, n]}) for n in (2, 8)]
    early = json.dumps({"delta": 0.1})
    both = pd.concat(
        [
            variant(colt, network_args=wide, recipe=recipes[0], early_bird=None, rate=0.15),
            variant(colt, network_args=narrow, recipe=recipes[1], early_bird=early, rate=0.3),
        ]
    )
    first, second = dict.fromkeys(report.arms(both)["arm"])
    assert first == "colt (rate 0.15, early_bird no, width 16, epochs 2, milestones [1, 2])"
    assert second == "colt (rate 0.3, early_bird yes, delta 0.1, width 8, epochs 8, milestones [1, 8])"


def test_versions_of_code_tell_arms_apart_where_nothing_else_does():
    colt = records()[records()["method"] == "colt"]
    with_objective = lambda name, version: variant(
        colt, objective=json.dumps({"name": name}), code=json.dumps({"objective": version})
    )
    both = pd.concat([with_objective("mine:A", "sha256:1"), with_objective("mine:B", "sha256:2")])
    assert set(report.arms(both)["arm"]) == {"colt (objective mine:A)", "colt (objective mine:B)"}
    edited = pd.concat([with_objective("mine:A", "sha256:1"), with_objective("mine:A", "sha256:2")])
    assert set(report.arms(edited)["arm"]) == {"colt (code sha256:1)", "colt (code sha256:2)"}


def test_one_experiment_a_seed_is_an_arm_by_its_methods_name():
    frame = records().assign(parts=2, pooling=None)
    assert report.arms(frame)["arm"].tolist() == frame["method"].tolist()


def transferred():
    own = records()
    scores = own[own["kind"] == "score"].assign(scored_on="e", accuracy=lambda r: r["accuracy"] - 0.1)
    there = variant(own, dataset="e", scored_on="e")
    return pd.concat([own, scores, there], ignore_index=True)


def test_tickets_of_another_source_are_not_averaged_with_the_targets_own():
    table = report.accuracy_table(transferred(), [0.5]).set_index(["scored_on", "method", "at"])["accuracy"]
    assert table["e", "colt from d", 0.5] == pytest.approx(table["e", "colt", 0.5] - 0.1)
    alone = transferred().query("dataset == 'd' and scored_on == 'e'")
    rounds = records().query("kind == 'round'")
    assert "colt" in set(report.accuracy_table(pd.concat([alone, rounds]), [0.5])["method"])


# --- statistics --------------------------------------------------------------------------------------------------


def noisy(seeds=5, spread=0.02, shift=0.0):
    frame = records(seeds)
    noise = np.random.default_rng(3).normal(0, spread, len(frame)) + shift * (frame["method"] == "colt")
    return frame.assign(accuracy=frame["accuracy"] + noise)


def by_hand(frame, at):
    """The pairs of accuracies of colt and imp at their first rounds at or beyond a sparsity, at the higher of both."""
    first = {m: math.ceil(math.log(1 - at) / math.log(k) - 1e-9) for m, k in (("colt", 0.5), ("imp", 0.8))}
    wanted = min(0.5 ** first["colt"], 0.8 ** first["imp"])
    sides = []
    for method in first:
        runs = frame[(frame["kind"] == "score") & (frame["method"] == method)].sort_values(["seed", "round"])
        scores = [
            np.interp(-math.log(wanted), -np.log(run["density"]), run["accuracy"]) for _, run in runs.groupby("seed")
        ]
        sides.append(np.array(scores))
    return sides


def test_compare_is_scipys_paired_t_test_with_holm_over_the_sparsities():
    frame, levels = noisy(), [0.5, 0.7, 0.9]
    table = report.compare(frame, "colt", "imp", levels)
    tests = [stats.ttest_rel(*by_hand(frame, at)) for at in levels]
    p = [test.pvalue for test in tests]
    assert table["p"].tolist() == pytest.approx(p)
    a, b, c = sorted(p)
    adjusted = {a: min(1, 3 * a), b: min(1, max(3 * a, 2 * b)), c: min(1, max(3 * a, 2 * b, c))}
    assert table["p_holm"].tolist() == pytest.approx([adjusted[value] for value in p])
    for row, test in zip(table.itertuples(), tests, strict=True):
        low, high = test.confidence_interval(0.95)
        assert (row.difference - row.half_width, row.difference + row.half_width) == pytest.approx((low, high))
        assert row.seeds == 5
        assert len(row.experiments.split()) == 10 and "colt0" in row.experiments


def test_equivalence_is_two_one_sided_t_tests():
    frame = noisy(spread=0.003)
    row = report.compare(frame, "colt", "imp", [0.5], margin=0.015).iloc[0]
    colt, imp = by_hand(frame, 0.5)
    above = stats.ttest_1samp(colt - imp, -0.015, alternative="greater").pvalue
    below = stats.ttest_1samp(colt - imp, 0.015, alternative="less").pvalue
    assert row["p_equivalence"] == pytest.approx(max(above, below))
    assert row["equivalent"] == (max(above, below) < 0.05)


def test_a_margin_that_is_estimated_too_is_held_against_seed_by_seed():
    frame = noisy(spread=0.003)
    gains, scores = _scores_at(frame, [0.5])
    one, other = by_hand(frame, 0.5)
    margins = np.abs(np.random.default_rng(3).normal(0.02, 0.004, len(one)))
    known = gains[gains["method"] == "colt"][["scored_on", "network", "at", "seed"]].sort_values("seed")
    pairs = pairs_of(gains, "colt", ["imp"])
    row = differences(gains, pairs, known.assign(margin=margins), scores=scores).iloc[0]
    sides = [stats.ttest_1samp(margins + sign * (one - other), 0, alternative="greater").pvalue for sign in (1, -1)]
    assert row["p_equivalence"] == pytest.approx(max(sides)) and row["margin"] == pytest.approx(margins.mean())
    plain = differences(gains, pairs, 0.02).iloc[0]
    same = differences(gains, pairs, known.assign(margin=0.02)).iloc[0]
    assert same["p_equivalence"] == pytest.approx(plain["p_equivalence"], rel=1e-9)
    lacking = differences(gains, pairs, known.assign(margin=0.02).iloc[1:]).iloc[0]
    assert np.isnan(lacking["p_equivalence"]) and not lacking["equivalent"], (
        "nothing is equivalent to an unknown margin"
    )


def test_the_margin_of_the_claims_is_half_of_what_imp_gains_over_random(answered):
    whole = answered.differences[answered.differences["whole"]]
    mine = whole[(whole["study"] == "world") & (whole["scored_on"] == "tinyimagenet")].set_index("other")
    frame = answered.records[answered.records["study"] == "world"]
    frame = frame[frame["dataset"].eq("tinyimagenet") & frame["scored_on"].fillna("tinyimagenet").eq("tinyimagenet")]
    gain = report.over_sparsities(frame, "matched", "random", answered.levels["world", "conv3"]).iloc[0]
    assert mine.loc["random", "margin"] == pytest.approx(gain["difference"] / 2)
    assert not mine.loc["random", "equivalent"], "a point would say so: all that IMP gains there is 1.4"
    moved = answered.gains[answered.gains["source"] == "all"]
    assert (moved["margin"] > 0.01).all()


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=12),
    st.floats(1e-6, 1e-4),
)
def test_tiny_differences_are_equivalent_and_large_ones_never(values, scale):
    found = paired_tests([[scale * v for v in values], [0.5 + scale * v for v in values]], 0.01, 0.95)
    assert found["equivalent"].tolist() == [True, False]
    assert np.isfinite(np.concatenate([found[name] for name in ("p", "detectable")])).all()
    assert np.isfinite(found["low"]).all() == (len(values) >= 6)


def test_no_spread_at_all_is_no_accident_and_no_warning():
    found = paired_tests([[0.0] * 3, [0.02] * 3, [0.01] * 3, [0.02] * 6], 0.01, 0.95)
    assert found["p"].tolist() == [1, 0, 0, 0] and found["equivalent"].tolist() == [True, False, False, False]
    assert found["detectable"].tolist() == [0, 0, 0, 0] and found["low"][3] == 0.02


def test_with_fewer_than_three_seeds_a_comparison_is_a_point():
    row = report.compare(records(2), "colt", "imp", [0.5]).iloc[0]
    assert row["difference"] == pytest.approx(0.0042, abs=1e-4) and not row["equivalent"]
    names = ["half_width", "low", "high", "p", "p_holm", "p_equivalence", "detectable"]
    assert row[names].isna().all()
    assert report.conclusion(pd.DataFrame([row]), "COLT", "IMP")[0].endswith("over 2 seeds: too few for a conclusion")
    alone = report.compare(records(1), "colt", "imp", [0.5])
    assert report.conclusion(alone, "COLT", "IMP")[0].endswith("over 1 seed: too few for a conclusion")


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_detectable_difference_is_found_four_times_in_five(seeds):
    true = noncentrality(seeds, 0.95) / math.sqrt(seeds)  # for a standard deviation of 1
    draws = np.random.default_rng(0).normal(true, 1, (20_000, seeds))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.012)


def test_the_bootstrap_interval_is_scipys_and_the_same_each_time():
    values = [0.40, 0.46, 0.43, 0.41, 0.44, 0.39]
    found = report.summary(values)
    assert found == report.summary(values) and found["seeds"] == 6
    drawn = stats.bootstrap((values,), np.mean, method="BCa", random_state=np.random.default_rng(1))
    assert (found["low"], found["high"]) == pytest.approx(tuple(drawn.confidence_interval), abs=0.004)
    assert (found["mean"], found["half_width"]) == report.interval(values)
    assert report.summary([0.4] * 6)["high"] == pytest.approx(0.4)


def test_below_six_seeds_there_is_no_bootstrap_interval_but_one_of_student():
    five = report.summary([0.40, 0.46, 0.43, 0.41, 0.44])
    assert math.isnan(five["low"]) and math.isnan(five["high"]) and five["half_width"] > 0
    for seeds, told in ((5, False), (6, True)):
        row = report.compare(noisy(seeds), "colt", "imp", [0.5]).iloc[0]
        assert np.isfinite([row["low"], row["high"]]).tolist() == [told, told] and row["half_width"] > 0
        assert not told or row["low"] <= row["difference"] <= row["high"]


def test_holm_keeps_order_and_passes_over_what_is_missing():
    assert report.holm([0.01, math.nan, 0.04, 0.03]).tolist() == pytest.approx(
        [0.03, math.nan, 0.06, 0.06], nan_ok=True
    )
    assert report.holm([]).tolist() == [] and report.holm([0.9, 0.8]).tolist() == [1, 1]


def test_the_dense_network_is_compared_with_a_ticket_at_each_sparsity():
    table = report.compare(records(), "colt", "dense", [0.5, 0.7])
    assert table["at"].tolist() == [0.5, 0.7] and table["other_sparsity"].tolist() == [0, 0]
    assert table["difference"].tolist() == pytest.approx([0.8 - 0.02 - 0.9, 0.8 - 0.04 - 0.9])


def test_comparing_an_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="no scores of 'colts' here; there are: dense, colt, imp"):
        report.compare(records(), "colts", "imp", [0.5])


def test_the_conclusion_names_worse_better_equivalent_and_undecided():
    row = {"at": 0.9, "difference": -0.02, "half_width": 0.01, "p_holm": 0.01, "equivalent": False, "detectable": 0.03}
    table = pd.DataFrame([row | {"seeds": 5, "sparsity": 0.91, "other_sparsity": 0.9}])

    def said(**fields):
        return report.conclusion(table.assign(**fields), "A", "B", 0.01)[0]

    assert said() == "A (91.0% sparse) against B (90.0%): -2.0 ± 1.0 points over 5 seeds: worse"
    assert said(difference=0.02).endswith("better")
    assert said(difference=0.002, equivalent=True).endswith("better, yet equivalent within 1 point")
    assert said(p_holm=0.5, equivalent=True).endswith("equivalent within 1 point")
    assert said(p_holm=0.5).endswith("undecided after correction (p = 0.50)")  # the interval alone excludes zero
    assert said(p_holm=0.5, half_width=0.021).endswith(
        "undecided; the smallest difference that these seeds could have shown is 3.0 points"
    )


def test_a_verdict_in_a_word_or_two_and_a_difference_in_points():
    row = SimpleNamespace(difference=-0.02, half_width=0.01, p_holm=0.01, equivalent=False)
    told = lambda **fields: report.verdict(SimpleNamespace(**(vars(row) | fields)))
    assert [told(), told(difference=0.02), told(p_holm=0.06)] == ["worse", "better", "undecided"]
    assert [told(equivalent=True), told(equivalent=True, p_holm=0.06)] == ["worse, yet equivalent", "equivalent"]
    assert told(half_width=math.nan, p_holm=math.nan) == "too few seeds"
    assert [told(higher_is_better=False), told(higher_is_better=math.nan)] == ["better", "worse"]
    assert [report.spread(-0.0136, 0.004), report.spread(0.0136)] == ["-1.4 ± 0.4", "+1.4"]
    assert [report.points(0.01), report.points(0.005)] == ["1 point", "0.5 points"]


# --- rounds, cost, area ------------------------------------------------------------------------------------------


def test_at_an_equal_cost_the_last_affordable_round_counts():
    frame = records()
    frame.loc[frame["method"] == "imp", "image_epochs"] *= 2
    table = report.at_costs(frame, [450]).set_index("method")
    assert table.loc["colt", "rounds"] == 4 and table.loc["colt", "spent"] == 400
    assert table.loc["imp", "rounds"] == 2 and table.loc["imp", "sparsity"] == pytest.approx(1 - 0.64)
    with pytest.raises(ValueError, match="unknown unit 'hours'"):
        report.at_costs(frame, [450], "hours")


def test_what_it_takes_to_reach_a_sparsity_has_intervals_over_seeds():
    frame = records().assign(flops=lambda r: r["image_epochs"] * (1.0 + r["seed"]), seconds=1.0)
    row = report.reach(frame, [0.8]).set_index("method").loc["colt"]
    assert (row["flops"], row["flops_half_width"]) == pytest.approx(report.interval([300, 600, 900]))
    assert row["rounds_half_width"] == 0 and row["seeds"] == 3 and row["experiments"] == "colt0 colt1 colt2"


def test_the_area_is_that_of_trapezoids_over_log_density():
    table = report.area(records(), 0.5, 1 - 0.5**2.5).set_index("method")
    # Over rounds 1 to 2.5 of colt, whose log density is linear in rounds: the mean is the height in the middle.
    assert table.loc["colt", "accuracy"] == pytest.approx(0.8 - 1.75 / 50 + 0.01)
    assert table.loc["colt", "half_width"] == pytest.approx(report.interval([0, 0.01, 0.02])[1])
    assert "dense" not in table.index and report.area(records(), 0.5, 0.99)["method"].tolist() == ["colt"]
    with pytest.raises(ValueError, match="low < high"):
        report.area(records(), 0.9, 0.5)


def test_every_mean_names_the_experiments_behind_it():
    table = report.accuracy_table(records(), [0.5])
    assert table.set_index("method").loc["imp", "experiments"] == "imp0 imp1 imp2"


def test_overlap_beyond_chance_by_round():
    frame = records().query("method == 'colt' and kind == 'round'")
    each = zip(frame["seed"], frame["round"], strict=True)
    agreed = [{"jaccard": 0.5 + seed / 10, "chance": 0.4} if n else None for seed, n in each]
    table = report.overlaps(frame.assign(overlap=agreed))
    assert table["round"].tolist() == list(range(1, 12)) and set(table["seeds"]) == {3}
    assert (table["gap"][0], table["half_width"][0]) == pytest.approx(report.interval([0.1, 0.2, 0.3]))


# --- all tables of a store ---------------------------------------------------------------------------------------


def test_all_tables_keep_recipes_and_networks_apart_and_are_saved(tmp_path):
    fields = {"parts": 2, "by": "class", "rate": 0.3, "network_args": "{}"}
    first = variant(transferred(), recipe=json.dumps({"epochs": 1}), **fields)
    second = variant(records(), recipe=json.dumps({"epochs": 2}), **fields)
    third = variant(
        records(), recipe=json.dumps({"epochs": 2}), **(fields | {"network_args": json.dumps({"width": 8})})
    )
    found = report.tables(records=pd.concat([first, second, third]), out=tmp_path)
    names = [name for name in found if name.startswith("accuracy-")]
    assert set(found) == {*names, "reach", "compare", "area", "transfer"} and len(names) == 2
    assert {len(t.groupby(["recipe", "network_args"])) for t in (found["reach"], found["compare"])} == {3}
    assert set(found["compare"]["other"]) >= {"imp", "dense"} and set(found["compare"]["seeds"]) == {3}
    assert {path.stem for path in tmp_path.iterdir()} == set(found)
    moved = found["transfer"].set_index(["method", "at", "source"])
    assert moved.loc[("colt", 0.5, "d"), "e"].startswith("69.0 ±") and moved.loc[("colt", 0.5, "e"), "e"][:4] == "79.0"


def test_a_ticket_is_compared_with_the_control_that_shares_its_settings():
    base = records()
    colt = base[base["method"] == "colt"]
    matched = colt.assign(method="matched", experiment="m" + colt["experiment"])
    both = [variant(frame, parts=parts) for frame in (colt, matched) for parts in (2, 3)]
    only = [variant(base[base["method"] == "dense"], parts=2)]
    table = report.tables(records=pd.concat([*both, *only]))["compare"]
    pairs = set(zip(table["method"], table["other"], strict=True))
    assert ("colt (parts 3)", "matched (parts 3)") in pairs and ("colt (parts 3)", "dense") in pairs
    assert ("colt (parts 3)", "matched (parts 2)") not in pairs


def test_no_records_and_no_scores_make_no_tables(tmp_path):
    assert report.tables(tmp_path) == {}
    assert set(report.tables(records=records().query("kind == 'round'"))) == {"reach"}


# --- transfer ---


def carried_records(seeds=3):
    """Tickets of two sources on two targets: on another target COLT's lose 3 points, random ones 1, re-drawn ones 2."""
    rows = []
    loss = {"colt": 0.03, "random": 0.01, "reinit": 0.02}
    for seed in range(seeds):
        for source in ("a", "b"):
            about = {"dataset": source, "network": "n", "seed": seed}
            dense = about | {"method": "dense", "experiment": f"dense{source}{seed}", "round": 0, "density": 1.0}
            rows.append(dense | {"kind": "round", "train_images": 100 + 100 * (source == "b")})
            rows.append(
                dense | {"kind": "score", "scored_on": source, "accuracy": 0.9, "chance": 0.1, "train_images": 100}
            )
            for method, lost in loss.items():
                row = about | {"method": method, "experiment": f"{method}{source}{seed}", "round": 1, "density": 0.4}
                rows.append(row | {"kind": "round", "train_images": 100 + 100 * (source == "b")})
                for target in ("a", "b"):
                    accuracy = 0.8 + seed / 50 - lost * (target != source) + 0.01 * (method == "colt")
                    accuracy += 0.004 * (seed - 1) * (target != source and method == "colt")
                    where = {
                        "kind": "score",
                        "scored_on": target,
                        "chance": 0.1,
                        "train_images": 100 if target == "a" else 200,
                    }
                    rows.append(row | where | {"accuracy": accuracy})
    frame = pd.DataFrame(rows)
    frame.loc[(frame["kind"] == "score") & (frame["scored_on"] == "b"), "train_images"] = 200
    return frame


def test_the_transfer_table_says_what_finding_each_ticket_cost():
    table = report.transfers(carried_records().assign(image_epochs=300), [0.5])
    assert table["image_epochs"].eq(300).all()


def test_the_transfer_table_is_source_by_target_with_the_size_of_both_data_sets():
    table = report.transfers(carried_records(), [0.5]).set_index(["source", "target", "method"])
    assert table.loc[("a", "b", "colt"), "accuracy"] == pytest.approx(0.80)
    assert table.loc[("b", "b", "colt"), "accuracy"] == pytest.approx(0.83)
    assert table.loc[("a", "b", "colt"), ["train_images", "source_images"]].tolist() == [200, 100]
    assert set(table.index.get_level_values("method")) == {"colt", "random", "reinit", "dense"}
    assert (table.loc[(slice(None), slice(None), "dense"), "at"] == 0).all()


def test_gains_are_paired_by_seed_against_every_control_and_pooled_over_all_pairs():
    gains = report.transfer_gains(carried_records(), [0.5]).set_index(["source", "target", "against"])
    expected = {"own": -0.03, "random": 0.01 - 0.03 + 0.01, "reinit": 0.01 - 0.03 + 0.02}
    for against, points in expected.items():
        row = gains.loc[("a", "b", against)]
        assert row["difference"] == pytest.approx(points) and row["seeds"] == 3
        low, high = stats.t.interval(0.95, 2, points, stats.sem([points - 0.004, points, points + 0.004]))
        assert row["half_width"] == pytest.approx((high - low) / 2)
        assert gains.loc[("all", "all", against), "difference"] == pytest.approx(points)
    dense = gains.loc[("a", "b", "dense")]
    assert dense["difference"] == pytest.approx(0.80 - 0.9) and dense["other_sparsity"] == pytest.approx(0)
    assert ("b", "b", "own") not in gains.index and gains.loc[("b", "b", "random"), "difference"] == pytest.approx(0.01)
    both = gains.loc[[("a", "b", "own"), ("b", "a", "own")]]
    assert both["p_holm"].tolist() == pytest.approx([2 * p for p in both["p"]])  # two tests, equal p values


def test_the_transfer_sentences_name_source_target_and_size():
    lines = report.transfer_conclusion(report.transfer_gains(carried_records(), [0.5]))
    assert lines[0].startswith(
        "mean over all pairs, the source's ticket (60.0% sparse) against the target's own ticket"
    )
    assert "worse" in lines[0]
    one = next(line for line in lines if line.startswith("b (200 training images): ticket of a"))
    assert "-3.0 ± 1.0 points over 3 seeds" in one


def test_without_intervals_gains_are_points_and_the_sentences_say_so():
    lines = report.transfer_conclusion(report.transfer_gains(carried_records(2), [0.5]))
    assert all("too few for a conclusion" in line for line in lines)


def test_every_table_and_sentence_tells_the_number_of_training_images():
    frame = records().assign(train_images=18_000)
    tables = [report.accuracy_table(frame, [0.5]), report.compare(frame, "colt", "imp", [0.5])]
    tables += [report.reach(frame, [0.5]), report.area(frame, 0.5, 0.7), report.at_costs(frame, [450])]
    assert all((table["train_images"] == 18_000).all() and len(table) for table in tables)
    assert (report.paper_table(frame, [0.5])["training images"] == 18_000).all()
    assert report.conclusion(tables[1], "A", "B")[0].startswith("d (18,000 training images): A (59.0% sparse)")


def test_the_seeds_needed_are_those_whose_power_is_eighty_percent():
    values = np.array([0.010, 0.000, -0.013, 0.004])
    half = report.interval(values)[1]
    needed = report.seeds_needed(half, len(values))
    power = [
        stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, 0.01 / (values.std(ddof=1) / math.sqrt(n)))
        for n in (needed - 1, needed)
    ]
    assert power[0] < 0.8 <= power[1]
    assert math.isnan(report.seeds_needed(math.nan, 2)) and report.seeds_needed(0.0, 3) == 2


def test_the_mean_over_all_pairs_takes_only_seeds_that_have_them_all():
    frame = carried_records(4)
    lower = (frame["dataset"] == "b") & (frame["scored_on"] == "a") & (frame["method"] == "colt")
    frame.loc[lower, "accuracy"] -= 0.1
    whole = report.transfer_gains(frame, [0.5]).set_index(["source", "against"]).loc[("all", "own")]
    partly = report.transfer_gains(frame[~(lower & (frame["seed"] == 3))], [0.5])
    partly = partly.set_index(["source", "against"]).loc[("all", "own")]
    assert whole["seeds"] == 4 and partly["seeds"] == 3
    assert partly["difference"] == pytest.approx(-0.03 - 0.05), "a seed without its worst pair would flatter the mean"


def test_gains_pair_arms_by_their_settings_not_by_their_names():
    # On a there is a second COLT run, so that a's arms are called "colt (target 0.9)" and b's just "colt".
    frame = carried_records().assign(target=0.9, parts=2)
    extra = frame[(frame["dataset"] == "a") & (frame["scored_on"] != "b") & (frame["method"] == "colt")]
    extra = extra.assign(target=0.95, experiment=extra["experiment"] + "x", accuracy=extra["accuracy"] - 0.2)
    gains = report.transfer_gains(pd.concat([frame, extra], ignore_index=True), [0.5])
    own = gains[(gains["against"] == "own") & (gains["source"] != "all")].set_index(["source", "target"])["difference"]
    assert own.to_dict() == {("a", "b"): pytest.approx(-0.03), ("b", "a"): pytest.approx(-0.03)}


def test_two_arms_are_kept_apart_and_no_figure_mixes_them():
    frame = carried_records().assign(parts=2)
    tickets = frame["method"] == "colt"
    other = frame[frame["method"] != "dense"]
    other = other.assign(parts=3, experiment=other["experiment"] + "x", accuracy=other["accuracy"] - 0.05 * tickets)
    both = pd.concat([frame, other], ignore_index=True)
    gains = report.transfer_gains(both, [0.5])
    mean = gains[(gains["source"] == "all") & (gains["against"] == "random")].set_index("arm")["difference"]
    assert mean.to_dict() == {"colt (parts 2)": pytest.approx(-0.01), "colt (parts 3)": pytest.approx(-0.06)}
    with pytest.raises(ValueError, match=r"one arm; here are colt \(parts 2\) with n, colt \(parts 3\) with n"):
        plots.transfer(report.transfers(both, [0.5]), gains)


def test_without_any_transfer_the_tables_are_empty_and_the_sentences_none():
    assert not len(report.transfers(records(), [0.5])) and not len(report.transfer_gains(records(), [0.5]))
    assert report.transfer_conclusion(report.transfer_gains(records(), [0.5])) == []


def test_an_arm_with_a_switch_is_compared_with_the_dense_network_that_has_it_too():
    frame = records()
    switched = frame[frame["method"] != "imp"].assign(official="test-selected")
    switched = switched.assign(experiment=switched["experiment"] + "x", accuracy=switched["accuracy"] + 0.1)
    compared = report.tables(records=pd.concat([frame, switched], ignore_index=True), sparsities=[0.5])["compare"]
    found = compared[compared["method"].str.startswith("colt")].set_index("method")["other"]
    dense = {arm: [o for o in np.atleast_1d(found[arm]) if o.startswith("dense")] for arm in dict.fromkeys(found.index)}
    assert dense == {"colt (official no)": ["dense (official no)"],
                     "colt (official test-selected)": ["dense (official test-selected)"]}  # fmt: skip


def test_over_all_sparsities_is_one_paired_test_of_the_area_between_two_curves():
    frame = noisy(seeds=4)
    levels = [0.5, 0.7, 0.9]
    row = report.over_sparsities(frame, "colt", "imp", levels).iloc[0]
    found = []
    for seed in range(4):
        curves = {}
        for method, keep in (("colt", 0.5), ("imp", 0.8)):
            runs = frame[(frame["kind"] == "score") & (frame["method"] == method) & (frame["seed"] == seed)]
            rounds = [math.ceil(math.log(1 - at) / math.log(keep) - 1e-9) for at in levels]
            runs = runs.set_index("round").loc[rounds]
            curves[method] = (-np.log(runs["density"].to_numpy()), runs["accuracy"].to_numpy())
        low, high = max(x[0] for x, _ in curves.values()), min(x[-1] for x, _ in curves.values())
        fine = np.linspace(low, high, 100_001)  # the integral by brute force
        heights = {method: np.interp(fine, *curve).mean() for method, curve in curves.items()}
        found.append(heights["colt"] - heights["imp"])
    test = stats.ttest_1samp(found, 0)
    assert row["difference"] == pytest.approx(np.mean(found), abs=1e-5)
    assert row["p"] == pytest.approx(test.pvalue, rel=1e-3) and row["seeds"] == 4
    lost = (frame["method"] == "imp") & (frame["seed"] == 0) & (frame["round"] == 6) & (frame["kind"] == "score")
    assert report.over_sparsities(frame[~lost], "colt", "imp", levels)["seeds"].tolist() == [3]
    single = report.over_sparsities(frame, "colt", "imp", [0.5]).iloc[0]
    first = [frame[(frame["method"] == m) & (frame["round"] == r) & (frame["kind"] == "score")]["accuracy"].to_numpy()
             for m, r in (("colt", 1), ("imp", 4))]  # fmt: skip
    assert single["difference"] == pytest.approx(np.mean(first[0] - first[1])), "of one sparsity it is the difference"


def test_at_two_sparsities_that_both_share_the_area_is_the_mean_of_both():
    frame = records(4)
    twin = frame[frame["method"] == "imp"].assign(method="matched")
    noise = np.random.default_rng(1).normal(0, 0.02, len(twin))
    twin = twin.assign(experiment="matched" + twin["seed"].astype(str), accuracy=twin["accuracy"] + noise)
    both = pd.concat([frame, twin], ignore_index=True)
    whole = report.over_sparsities(both, "matched", "imp", [0.6, 0.9]).iloc[0]
    assert whole["difference"] == pytest.approx(report.compare(both, "matched", "imp", [0.6, 0.9])["difference"].mean())


def test_the_pooled_error_is_that_of_all_comparisons_and_the_detectable_one_has_an_interval():
    frame = noisy(seeds=4)
    twin = frame[frame["method"] == "imp"].assign(method="matched")
    noise = np.random.default_rng(7).normal(0, 0.01, len(twin))
    twin = twin.assign(experiment="matched" + twin["seed"].astype(str), accuracy=twin["accuracy"] + noise)
    both = pd.concat([frame, twin], ignore_index=True)
    table = report.against(both, "colt", ["imp", "matched"], [0.5])
    deviations = [row.half_width * 2 / stats.t.ppf(0.975, 3) for row in table.itertuples()]  # of four seeds
    pooled = math.sqrt(np.mean(np.square(deviations)))
    assert table["half_pooled"].tolist() == pytest.approx([stats.t.ppf(0.975, 6) * pooled / 2] * 2)
    row = table.iloc[0]
    ends = [math.sqrt(3 / stats.chi2.ppf(p, 3)) for p in (0.975, 0.025)]
    assert (row["detectable_low"], row["detectable_high"]) == pytest.approx(tuple(row["detectable"] * e for e in ends))
    assert report.compare(records(2), "colt", "imp", [0.5])["half_pooled"].isna().all()


# --- what is recovered of IMP's gain ---


def ratio_of_means(rng, seeds=6):
    below = rng.normal(0.03, 0.006, seeds)
    return 0.5 * below + rng.normal(0, 0.004, seeds), below


def test_fiellers_interval_holds_the_true_ratio_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(4000):
        ratio, low, high = report.fieller(*ratio_of_means(rng))
        hits += low <= 0.5 <= high
        assert low <= ratio <= high
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)


def test_fieller_has_no_ends_where_there_are_none():
    assert np.isnan(report.fieller([0.1, 0.2], [0.2, 0.4])[1:]).all() and report.fieller([1, 2], [2, 4])[0] == 0.5
    assert np.isnan(report.fieller([0.1, 0.2, 0.3], [0.5, -0.5, 0.1])[1:]).all()
    assert report.fieller([0.1, 0.11, 0.12], [0.2, 0.22, 0.24]) == pytest.approx((0.5, 0.5, 0.5))


def three_arms():
    """colt, imp renamed matched, and a random mask half way below; all at the same densities."""
    frame = records(4)
    colt = frame[frame["method"] == "colt"].assign(parts=2, by="class", rate=0.3, scope="global", rewind=0)
    several = [frame[frame["method"] == "dense"], colt]
    for method, shift in (("matched", 0.04), ("random", -0.02), ("consensus", 0.01)):
        twin = colt.assign(method=method, experiment=method + colt["seed"].astype(str))
        noise = np.random.default_rng(len(method)).normal(0, 0.001, len(twin))
        several.append(twin.assign(accuracy=twin["accuracy"] + shift + noise))
    return pd.concat(several, ignore_index=True)


def test_the_share_recovered_is_the_gain_over_random_as_a_share_of_matcheds():
    frame, levels = three_arms(), [0.5, 0.7]
    found = report.gains(frame, levels)
    assert set(found["method"]) == {"colt", "consensus"} and len(found) == 8
    scores = frame[(frame["kind"] == "score") & frame["round"].isin([1, 2])]
    means = scores.groupby(["method", "seed"])["accuracy"].mean()
    score = lambda method, seed: means[method, seed]
    for row in found.itertuples():
        low, full = score("random", row.seed), score("matched", row.seed)
        assert row.share == pytest.approx((score(row.method, row.seed) - low) / (full - low))
        assert row.score == pytest.approx(score(row.method, row.seed))
    table = report.shares(frame, levels).set_index("method")
    mine = found[found["method"] == "colt"]
    assert table.loc["colt", "share"] == pytest.approx(mine["gain"].mean() / mine["full"].mean())
    assert table.loc["colt", "low"] < 1 / 3 < table.loc["colt", "high"] and table.loc["colt", "seeds"] == 4
    close = frame.assign(accuracy=frame["accuracy"].mask(frame["method"] == "matched", frame["accuracy"] - 0.058))
    assert report.gains(close, levels)["share"].isna().all(), "IMP gains next to nothing: no share of it"
    assert len(plots.recovered(found).axes[0].lines) > 4
    lost = (frame["method"] == "random") & (frame["seed"] == 1) & (frame["round"] == 2) & (frame["kind"] == "score")
    missing = frame[~lost]
    assert set(report.gains(missing, levels)["seed"]) == {0, 2, 3}, "a seed without a control is left out"


def test_gains_and_costs_of_another_metric_are_in_its_unit_and_more_is_better():
    frame, levels = three_arms(), [0.5, 0.7]
    frame = frame.assign(nats=1 - frame["accuracy"] / 100, steps=100.0, train_images=50)
    plain, told = frame, report.measured_by(frame, "nats")
    assert report.metric_of(told) == ("nats", False)
    found, of_accuracy = report.gains(told, levels), report.gains(plain, levels)
    assert list(found["metric"]) == ["nats"] * 8
    assert np.allclose(found["gain"], of_accuracy["gain"] / 100)
    assert np.allclose(found["share"], of_accuracy["share"]), "small as they are, they are no half point of accuracy"
    assert " nats)" in "".join(text.get_text() for text in plots.recovered(found).axes[0].texts)
    spent, of_accuracy = report.spent(told, levels), report.spent(plain, levels)
    assert np.allclose(spent["nats"], 1 - of_accuracy["accuracy"] / 100) and "accuracy" not in spent
    axis = plots.accuracy_cost(spent).axes[0]
    assert axis.get_ylabel() == "test nats a pixel value (lower is better)"
    assert axis.containers[0].lines[0].get_ydata()[0] == pytest.approx(spent["nats"].iloc[0])


def test_an_arm_that_keeps_its_head_is_held_against_masks_that_have_none():
    frame = three_arms()
    kept = frame[frame["method"] == "consensus"].assign(method="dual", scored_by="own head")
    kept = kept.assign(experiment="dual" + kept["seed"].astype(str))
    found = report.gains(pd.concat([frame, kept], ignore_index=True), [0.5, 0.7]).set_index(["finder", "seed"])
    assert np.allclose(found.loc["dual", "share"], found.loc["consensus", "share"])
    other = report.gains(pd.concat([frame, kept.assign(scored_by="kd")], ignore_index=True), [0.5, 0.7])
    assert set(other["finder"]) == {"colt", "consensus"}, "what is learnt in another way has no control here"


def test_an_arm_is_held_against_controls_of_its_own_trainings():
    several = []
    for epochs, shift in ((1, 0.0), (8, 0.1)):
        frame = three_arms().assign(recipe=json.dumps({"epochs": epochs}), densities="[0.5, 0.25]")
        scores = frame["accuracy"] + shift
        several.append(frame.assign(accuracy=scores, experiment=frame["experiment"] + f"e{epochs}"))
    found = report.gains(pd.concat(several, ignore_index=True), [0.5, 0.7])
    for row in found.itertuples():
        epochs = row.method.partition("epochs ")[2].rstrip(")")
        assert epochs and f"epochs {epochs}" in row.matched and f"epochs {epochs}" in row.random
    assert set(found["finder"]) == {"colt", "consensus"} and len(found) == 16


def test_two_splits_of_one_seed_are_one_seed_in_a_regime():
    frame = three_arms().assign(recipe=cc.Recipe().model_dump_json(), network="conv3", scored_on="d")
    again = frame[frame["method"] != "dense"].assign(by="random", experiment=lambda rows: rows["experiment"] + "r")
    both = pd.concat([frame, again], ignore_index=True)
    row = report.regimes(both, [0.5, 0.7]).iloc[0]
    found = report.gains(both, [0.5, 0.7]).drop_duplicates(["seed", "matched"])
    assert found["matched"].nunique() == 2
    mean, half = report.interval(found.groupby("seed")["full"].mean())
    assert (row["matched_minus_random"], row["half_width"], row["seeds"]) == (
        pytest.approx(mean),
        pytest.approx(half),
        4,
    )


def test_a_screening_tells_validation_alone():
    frame = three_arms()
    frame = frame.assign(validation_accuracy=1 - frame["accuracy"])
    table = report.screening(frame, [0.5, 0.7])
    assert "accuracy" not in table and table["validation_accuracy"].is_monotonic_decreasing
    scores = frame[(frame["method"] == "colt") & (frame["kind"] == "score") & frame["round"].isin([1, 2])]
    row = table.set_index("method").loc["colt"]
    assert row["validation_accuracy"] == pytest.approx(scores["validation_accuracy"].mean()) and row["seeds"] == 4
    assert table["method"].tolist()[0] == "random"


def test_the_ladder_goes_from_random_to_dense_in_paired_steps():
    frame, levels = three_arms(), [0.5, 0.7]
    table = report.ladder(frame, levels)
    assert table["method"].tolist() == ["random", "colt", "consensus", "matched", "dense"]
    climbed = table["score"].iloc[0] + table["difference"].iloc[1:].cumsum()
    assert climbed.tolist() == pytest.approx(table["score"].iloc[1:].tolist())
    assert math.isnan(table["difference"].iloc[0]) and (table["seeds"] == 4).all()
    axis = plots.waterfall(table).axes[0]
    assert len(axis.patches) == 4, "a bar a step; the first is a point"
    assert "95 % interval" in axis.get_xlabel() and "paired" in axis.get_xlabel()
    without = report.ladder(frame[frame["method"] != "consensus"], levels)
    assert without["method"].tolist() == ["random", "colt", "matched", "dense"]
    with pytest.raises(ValueError, match="of one data set and network"):
        plots.waterfall(pd.concat([table, table.assign(network="other")]))


def test_what_finding_cost_is_told_in_passes_and_in_sequential_steps():
    frame = three_arms().assign(steps=lambda rows: rows["round"] * 7.0)
    table = report.spent(frame, [0.5, 0.7]).set_index("method")
    assert "dense" not in table.index
    assert table.loc["colt", ["passes", "steps", "seeds"]].tolist() == [2, 14, 4], "of the sparser of both tickets"
    scores = frame[(frame["kind"] == "score") & (frame["method"] == "colt") & frame["round"].isin([1, 2])]
    mean, half = report.interval(scores.groupby("seed")["accuracy"].mean())
    assert (table.loc["colt", "accuracy"], table.loc["colt", "half_width"]) == pytest.approx((mean, half))
    assert len(plots.accuracy_cost(table.reset_index()).axes) == 2
    assert not len(report.spent(three_arms(), [0.5])), "older records do not say how many steps"


def test_points_of_equal_cost_stand_aside_and_others_where_they_are():
    from colt_core.plots.gains import _aside

    moved = _aside([6.0, 6.0, 3.0, 6.0])
    assert moved[2] == 3.0 and len(set(moved)) == 4 and np.mean([moved[0], moved[1], moved[3]]) == pytest.approx(6.0)


def test_older_records_are_completed_from_their_tickets_with_what_theta0_explains():
    store = ROOT / "results" / "world" / "store"
    frame = report.load(store)
    colts = frame[(frame["method"] == "colt") & (frame["kind"] == "round") & (frame["seed"] == 0)]
    found = report.with_theta0(colts, store)
    name = colts["experiment"].iloc[0]
    mine = found[(found["experiment"] == name) & (found["round"] > 0)].sort_values("round")
    for row in mine.itertuples():
        here, before = (
            cc.Round.load(store / name / f"round-{n:02d}.safetensors", {**row._asdict(), "round": n})
            for n in (row.round, row.round - 1)
        )
        theta0, within = here.ticket.theta0, before.ticket.mask
        expected = cc.masks.chance(*here.partition_masks, within=within, given=theta0)
        assert row.overlap["chance_theta0"] == pytest.approx(expected, rel=1e-12)
    table = report.overlaps(found)
    assert table["learnt"].tolist() == pytest.approx((table["jaccard"] - table["chance_theta0"]).tolist())
    alone = report.with_theta0(colts, ROOT / "nowhere")
    assert report.overlaps(alone)["chance_theta0"].isna().all(), "without tickets nothing is made up"


def test_the_regimes_say_how_small_how_short_and_what_imp_gains_there(answered):
    table = answered.regimes.set_index(["study", "network", "dataset"])
    row = table.loc[("small", "conv3 width 16", "cifar10")]
    assert (row["weights"], row["epochs"], row["rate"], row["seeds"]) == (23_472, 8, "0.15", 3)
    assert row["steps"] == 8 * math.ceil(22_500 / 128)
    gains = answered.recovered
    mine = gains[(gains["study"] == "small") & (gains["network"] == "conv3") & (gains["method"] == "colt")]
    assert row["matched_minus_random"] == pytest.approx(mine["full"].mean())
    assert len(answered.say_recovered()) == answered.recovered.query("method == 'colt'")["run"].nunique()


# --- one verdict -------------------------------------------------------------------------------------------------

SMALL = cc.Study.named("small").each()[0]  # its first piece, conv3


@pytest.fixture(scope="module")
def answered():
    return report.answer(ROOT / "results", ["small", "world"])


@pytest.fixture(scope="module")
def small():
    """The records of small's own arms, as notebooks 05 and 06 have those of their study."""
    found = report.load(ROOT / "results" / "small" / "store")
    return found[found["experiment"].isin([experiment.hash for experiment in SMALL.experiments()])]


def test_another_way_of_scoring_bends_no_curve_between_whose_scores_is_interpolated(small):
    plain = report.compare(small, "colt", "imp", [0.5, 0.7, 0.8, 0.9])
    scores = small[small["kind"] == "score"]
    again = scores.assign(scored_by="own head", accuracy=scores["accuracy"] - 0.2)
    for frames in ([small, again], [again, small]):
        both = pd.concat(frames, ignore_index=True)
        found = report.compare(both, "colt scored by own head", "imp scored by own head", [0.5, 0.7, 0.8, 0.9])
        assert found["difference"].to_numpy() == pytest.approx(plain["difference"].to_numpy(), abs=1e-9)
        again_plain = report.compare(both, "colt", "imp", [0.5, 0.7, 0.8, 0.9])
        assert again_plain["difference"].to_numpy() == pytest.approx(plain["difference"].to_numpy(), abs=1e-9)


def test_a_network_of_which_nothing_is_left_is_compared_as_it_is(small):
    gone = (small["method"] == "colt") & (small["round"] == small["round"].max()) & (small["kind"] == "score")
    collapsed = small.assign(density=small["density"].where(~gone, 0.0))
    levels = [0.5, 0.7, 0.9]
    found = report.compare(collapsed, "colt", "imp", levels)
    assert found["difference"].notna().all()
    alone = report.compare(small[~gone], "colt", "imp", levels)
    low = found["sparsity"] < 0.9
    assert found.loc[low, "difference"].to_list() == pytest.approx(alone.loc[low, "difference"].to_list())


def test_what_validation_chooses_is_one_ticket_whole():
    from colt_core.report.choice import chosen

    rows = [(0, 1, 21.0, 20.0), (0, 2, None, 25.0), (1, 1, 3.0, 9.0)]
    best = chosen(pd.DataFrame(rows, columns=["seed", "round", "psnr", "validation_psnr"]), "psnr", True)
    assert best["round"].to_list() == [2, 1] and math.isnan(best["psnr"][0]) and best["psnr"][1] == 3.0


def test_the_mean_over_all_pairs_is_that_of_the_pairs_at_equal_density():
    world = report.load(ROOT / "results" / "world" / "store")
    found = report.transfer_gains(world, [0.7])
    assert (found["target"] == "all").sum() >= 3
    for (arm, kind), rows in found.groupby(["arm", "against"]):
        pairs = rows[(rows["target"] != "all") & (rows["source"] != rows["target"])]
        if pairs["seeds"].nunique() == 1:
            whole = rows[rows["target"] == "all"]["difference"].to_list()
            assert whole == pytest.approx([pairs["difference"].mean()]), (arm, kind)


def test_a_margin_may_be_a_whole_number_and_a_study_may_describe_alone(small):
    assert report.compare(small, "colt", "imp", [0.7], margin=1)["equivalent"].all()
    assert not report.compare(small, "colt", "imp", [0.7], margin=0)["equivalent"].any()
    assert not len(report.decided(SMALL, small, report.Questions(described={"x": {"colt": 1, "imp": -1}})))


def verdicts(table, other):
    rows = table[(table["method"] == "colt") & (table["other"] == other)]
    return dict(zip(rows["at"], rows["verdict"], strict=True)), dict(zip(rows["at"], rows["p_holm"], strict=True))


@pytest.mark.parametrize("other", ["dense", "imp", "matched", "union", "random"])
def test_one_comparison_has_one_verdict_wherever_it_is_shown(small, answered, other, tmp_path, capsys):
    levels = SMALL.levels
    words, p = verdicts(report.against(small, "colt", [other], levels), other)
    assert list(words) == levels and set(p.values()) - {1.0}
    compared = report.compare(small, "colt", other, levels)
    assert [report.verdict(row) for row in compared.itertuples()] == list(words.values())
    shown = report.tables(records=small, sparsities=levels)["compare"]
    assert verdicts(shown, other) == (words, pytest.approx(p))
    mine = answered.by_sparsity("small", "conv3", "cifar10")
    mine = mine.assign(verdict=[report.verdict(row) for row in mine.itertuples()])
    assert verdicts(mine, other) == (words, pytest.approx(p))
    for at, line in zip(levels, report.conclusion(compared, "A", "B"), strict=True):
        assert line.split(": ")[-1].startswith(words[at].split(", ")[0])
    if other == "imp":  # the command line, once
        store = str(ROOT / "results" / "small" / "store")
        assert main(["table", "small", "--piece", "conv3", "--store", store, "--out", str(tmp_path)]) == 0
        assert verdicts(pd.read_csv(tmp_path / "compare.csv"), other) == (words, pytest.approx(p))
        assert "| verdict" in capsys.readouterr().out


def test_the_family_of_a_pair_is_the_studys_own_sparsities():
    frame = noisy()
    three, two = (report.compare(frame, "colt", "imp", levels) for levels in ([0.5, 0.7, 0.9], [0.7, 0.9]))
    assert three["p"].tolist()[1:] == two["p"].tolist()
    assert three["p_holm"].iloc[2] == pytest.approx(1.5 * two["p_holm"].iloc[1]), "the least of three, not of two"
    several = report.against(frame, "colt", ["imp", "dense", "union"], [0.5, 0.7, 0.9])
    assert several["p_holm"].tolist()[:3] == three["p_holm"].tolist(), "of one pair, whatever stands beside it"
    assert list(dict.fromkeys(several["other"])) == ["imp", "dense"], "an arm that is not there is passed over"
    with pytest.raises(ValueError, match="no scores of 'union' here; there are: dense, colt, imp"):
        report.against(frame, "colt", ["union"], [0.5])


# --- the answer --------------------------------------------------------------------------------------------------


def test_the_answer_from_the_reference_runs_is_the_committed_one(answered):
    committed = pd.read_csv(ROOT / "figures" / "00_answer.csv")
    found = answered.table
    assert found.columns[1:].tolist() == committed.columns[1:].tolist()
    assert found.to_numpy().tolist() == committed.to_numpy().tolist()
    claims = pd.read_csv(ROOT / "figures" / "00_claims.csv")
    pd.testing.assert_frame_equal(
        answered.claims[["difference", "p_holm", "rounds", "seeds needed"]].astype(float),
        claims[["difference", "p_holm", "rounds", "seeds needed"]],
    )


def test_the_means_of_the_answer_are_corrected_over_the_controls_of_their_claim(answered):
    whole = answered.differences[answered.differences["whole"]].set_index(["study", "network", "scored_on", "other"])
    for at in {key[:3] for key in whole.index}:
        for family in (["dense", "imp", "matched"], ["oneshot", "union", "consensus", "random", "reinit"]):
            rows = whole.loc[[(*at, other) for other in family if (*at, other) in whole.index]]
            assert rows["p_holm"].tolist() == pytest.approx(report.holm(rows["p"]).tolist(), nan_ok=True)


def test_the_answer_reads_its_own_tables_aloud(answered):
    assert len(answered.say_agreement()) == len(answered.agreement[["dataset", "network"]].drop_duplicates())
    assert len(answered.say_accuracy()) == int(answered.differences["whole"].sum())
    assert len(answered.say_rounds()) == len(answered.rounds)
    dense = next(line for line in answered.say_accuracy() if "conv3 (small)" in line and "against dense" in line)
    assert dense.endswith("-8.4 ± 1.5 points over 3 seeds: worse")
    assert any("IMP at COLT's rate 10.0" in line for line in answered.say_rounds())
    assert answered.say_evidence()[1].endswith("resnet18, mobilenetv2")
    down = [line for line in answered.say_transfer() if not line.startswith("mean over all pairs")]
    assert {line.split("ticket of ")[1].split(" ")[0] for line in down} == {"cifar100", "tinyimagenet"}


def test_an_answer_without_any_store_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^no store of small in .*$"):
        report.answer(tmp_path, ["small"])


# --- other metrics and methods -----------------------------------------------------------------------------------


def errors(frame, spread=0.0):
    """The same records as of a study whose metric is an error: the lower the better, and nobody knows chance."""
    named = frame.rename(columns={"accuracy": "mse"}).assign(chance=None)
    scores = named["kind"] == "score"
    named = named.assign(metric=np.where(scores, "mse", None), higher_is_better=np.where(scores, False, None))
    return named.assign(mse=named["mse"] + np.random.default_rng(0).normal(0, 1e-3, len(named)))


def test_where_lower_is_better_a_negative_difference_is_better():
    frame = errors(records(5))
    table = report.compare(frame, "colt", "imp", [0.9])
    row = table.iloc[0]
    assert row["difference"] > 0 and row["p_holm"] < 0.05 and report.verdict(row) == "worse"
    turned = report.compare(frame, "imp", "colt", [0.9])
    assert turned["difference"].iloc[0] < 0 and report.verdict(turned.iloc[0]) == "better"
    said = report.conclusion(turned, "IMP", "COLT")[0]
    assert said.endswith("mse over 5 seeds: better") and "points" not in said
    plain = report.compare(frame.drop(columns=["metric", "higher_is_better"]).rename(columns={"mse": "accuracy"}),
                           "imp", "colt", [0.9])  # fmt: skip
    assert report.verdict(plain.iloc[0]) == "worse" and set(table) - set(plain) == {"metric", "higher_is_better"}


def test_tables_of_another_metric_have_its_name_and_direction():
    frame = errors(records())
    table = report.accuracy_table(frame, [0.5, 0.7])
    assert "mse" in table and "accuracy" not in table and table["chance"].isna().all()
    assert set(table["metric"]) == {"mse"} and set(table["higher_is_better"]) == {False}
    plain = report.accuracy_table(records(), [0.5, 0.7])
    assert "metric" not in plain and table["mse"].tolist() == pytest.approx(plain["accuracy"].tolist(), abs=0.01)
    assert "%" not in report.paper_table(frame, [0.5])["50% sparse"].str.cat()
    assert report.paper_table(frame, [0.5])["dense"].iloc[0].startswith("0.9")
    assert "mse" in report.area(frame, 0.5, 0.7) and "mse" in report.at_costs(frame, [450])
    assert "mse" in report.transfers(errors(carried_records()), [0.5])
    gains = report.transfer_gains(errors(carried_records()), [0.5]).set_index(["source", "against"])
    assert gains.loc[("all", "own"), "difference"] == pytest.approx(-0.03, abs=2e-3)
    assert report.verdict(gains.loc[("all", "own")]) == "better"


def test_a_mixture_of_metrics_is_refused_in_one_line_and_kept_apart_by_the_tables():
    both = pd.concat([records(), errors(records())], ignore_index=True)
    both.loc[both["metric"].eq("mse"), "scored_by"] = "mse, own head"
    for make in (report.accuracy_table, report.paper_table, lambda r, at: report.compare(r, "colt", "imp", at)):
        with pytest.raises(ValueError, match="^the records mix the metrics accuracy and mse; choose among them first$"):
            make(both, [0.5])
    found = report.tables(records=both.drop_duplicates(["experiment", "kind", "round", "metric"]), sparsities=[0.5])
    assert {name.split("-")[0] for name in found} == {"accuracy", "mse", "area", "compare", "reach"}
    compared = found["compare"].set_index(["metric", "method", "other"])
    assert len(compared) == 4 and compared.index.get_level_values("metric").isna().sum() == 2
    area = found["area"]
    assert (area["accuracy"].isna() == area["mse"].notna()).all()


def test_figures_name_the_metric_and_draw_no_guessing_where_nobody_knows_it():
    figure = plots.accuracy_sparsity(report.accuracy_table(errors(records()), [0.5, 0.7]))
    axis = figure.axes[0]
    assert axis.get_ylabel() == "test mse (lower is better)" and axis.get_title(loc="left").startswith("mse of tickets")
    assert "%" not in "".join(label.get_text() for label in axis.get_yticklabels())
    assert not axis.texts and "guessing" not in figure.legends[0].get_title().get_text()
    every = plots.tickets(report.scored(errors(records()))).axes[0]
    assert every.get_ylabel() == "test mse" and not every.texts
    moved = errors(carried_records())
    panels = plots.transfer(report.transfers(moved, [0.5]), report.transfer_gains(moved, [0.5])).axes
    assert panels[0].get_xlabel() == "mse" and "%" not in panels[0].get_yticklabels()[-1].get_text()


def test_two_ways_of_scoring_never_meet_in_one_mean():
    scores = records().query("kind == 'score' and method == 'colt'")
    again = scores.assign(scored_by="own head", accuracy=scores["accuracy"] - 0.1)
    table = report.accuracy_table(pd.concat([records(), again], ignore_index=True), [0.5]).set_index(["method", "at"])
    plain = report.accuracy_table(records(), [0.5]).set_index(["method", "at"])["accuracy"]
    assert table.loc[("colt", 0.5), "accuracy"] == pytest.approx(plain["colt", 0.5])
    assert table.loc[("colt scored by own head", 0.5), "accuracy"] == pytest.approx(plain["colt", 0.5] - 0.1)
    alone = records().assign(scored_by=lambda r: np.where(r["kind"] == "score", "own head", None))
    assert set(report.accuracy_table(alone, [0.5])["method"]) == {"dense", "colt", "imp"}, "told only where it varies"
    both = pd.concat([records(), again], ignore_index=True)
    assert set(report.at_costs(both, [450])["method"]) == {"colt", "imp", "colt scored by own head"}
    compared = report.tables(records=both, sparsities=[0.5])["compare"]
    assert set(compared["method"]) == {"colt"}, "no control was scored as the other arm is"


def test_methods_that_this_process_does_not_know_stay_in_the_tables():
    frame = records()
    foreign = frame[frame["method"] == "imp"]
    both = [frame]
    for name in ("somebody.elses:FINDER", "forgotten"):
        both.append(foreign.assign(method=name, experiment=name + foreign["experiment"]))
    found = report.tables(records=pd.concat(both, ignore_index=True), sparsities=[0.5])
    assert {"somebody.elses:FINDER", "forgotten"} <= set(found["reach"]["method"]), "they count as trained in rounds"
    assert {"somebody.elses:FINDER", "forgotten"} <= set(next(iter(found.values()))["method"])
    assert not {"somebody.elses:FINDER", "forgotten"} & {*found["compare"]["method"], *found["compare"]["other"]}
    assert (
        report.called("forgotten (parts 2)") == "forgotten (parts 2)"
        and report.called("imp (rate 1)") == "IMP (rate 1)"
    )


def test_options_of_methods_tell_arms_apart_as_old_records_do_and_new_ones():
    colt = records().query("method == 'colt'").assign(method="consensus")
    new = [variant(colt, options=json.dumps({"pooling": name})) for name in ("smallest", "mean")]
    assert set(report.arms(pd.concat(new))["arm"]) == {"consensus (pooling smallest)", "consensus (pooling mean)"}
    old = [variant(colt, pooling="mean"), variant(colt, pooling=None)]
    assert set(report.arms(pd.concat(old))["arm"]) == {"consensus (pooling mean)", "consensus (pooling default)"}
    same = [variant(colt, pooling="mean"), colt.assign(options=json.dumps({"pooling": "mean"}), seed=colt["seed"] + 9)]
    assert set(report.arms(pd.concat(same))["arm"]) == {"consensus"}
    taught = [colt, variant(colt, objective=json.dumps({"name": "kd", "temperature": 2.0}))]
    assert set(report.arms(pd.concat(taught))["arm"]) == {
        "consensus (objective cross-entropy)", "consensus (objective kd, temperature 2)"}  # fmt: skip


def test_arms_go_by_the_names_that_their_study_gives_them_in_its_order():
    methods = {
        "matched": {},
        "half_data": {"method": "matched", "part": 0},
        "colt": {},
        "colt_own": {"method": "colt", "scoring": {"head": "own"}},
    }
    base = {"dataset": "cifar10-mini", "densities": [0.5], "scores": [0.5]}
    study = cc.Study(name="s", title="t", base=base, methods=methods, seeds=[0, 1])
    rows = []
    for arm in reversed(methods):
        for seed in study.seeds:
            own = study.experiment(arm, seed)
            about = own.labels() | {"experiment": own.hash, "seed": seed, "round": 1, "density": 0.5, "train_images": 9}
            about |= {"scored_on": own.dataset, "scored_by": str(own.scoring) if own.scoring else None}
            rows.append(about | {"kind": "score", "accuracy": 0.1 * len(arm) + 0.01 * seed})
    records = pd.DataFrame(rows)
    named = report.arms(report.called_by(records, study))
    arms = ["matched", "matched (half data)", "colt", "colt (own)"]
    assert list(dict.fromkeys(named["arm"])) == arms
    assert named.groupby("arm", sort=False)["accuracy"].mean().round(3).tolist() == [0.705, 0.905, 0.405, 0.805]
    assert not any(report.called_by(records.assign(experiment="other"), study)["called"].notna())
