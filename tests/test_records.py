"""What every table of `report` does with records: each counts once, what is not whole is refused, failures are told."""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import carried_records, errors, noisy, records, variant

from colt_core import plots, report

ROOT = Path(__file__).parent.parent
LEVELS = [0.5, 0.7, 0.9]
TABLES = {  # every public function that makes numbers of records
    "arms": report.arms,
    "scored": report.scored,
    "at_sparsities": lambda frame: report.at_sparsities(frame, LEVELS),
    "accuracy_table": lambda frame: report.accuracy_table(frame, LEVELS),
    "paper_table": lambda frame: report.paper_table(frame, LEVELS),
    "area": lambda frame: report.area(frame, 0.5, 0.7),
    "compare": lambda frame: report.compare(frame, "colt", "imp", LEVELS),
    "against": lambda frame: report.against(frame, "colt", ["imp", "dense"], LEVELS),
    "over_sparsities": lambda frame: report.over_sparsities(frame, "colt", "imp", LEVELS),
    "reach": lambda frame: report.reach(frame, LEVELS),
    "rounds_table": lambda frame: report.rounds_table(frame, LEVELS),
    "at_costs": lambda frame: report.at_costs(frame, [300, 450]),
    "overlaps": report.overlaps,
    "transfers": lambda frame: report.transfers(frame, [0.5]),
    "transfer_gains": lambda frame: report.transfer_gains(frame, [0.5]),
    "warnings": report.warnings,
    "failures": report.failures,
    "distinct": report.distinct,
}


def agreeing(frame, **fields):
    """The same records, COLT's rounds with an overlap that differs from seed to seed."""
    cycles = (frame["kind"] == "round") & (frame["method"] == "colt") & (frame["round"] > 0)
    each = zip(frame["seed"], cycles, strict=True)
    told = [{"jaccard": 0.5 + seed / 10, "chance": 0.4} if here else None for seed, here in each]
    return frame.assign(overlap=told, flops=1.0, seconds=1.0, **fields)


def numbers(table):
    """A table with its rows in order and without the hashes, whose order is that of the records."""
    table = table.drop(columns=["experiments", "overlap"], errors="ignore").reset_index(drop=True)
    order = table.astype(str).sort_values([n for n in table if table[n].dtype.kind not in "f"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def same(one, other):
    pd.testing.assert_frame_equal(numbers(one), numbers(other), check_dtype=False, rtol=1e-9, atol=1e-9)


# --- each record counts once -------------------------------------------------------------------------------------


def test_three_seeds_handed_in_again_stay_three_with_the_same_p():
    frame = noisy(3)
    again = pd.concat([frame, frame.query("method == 'colt'"), frame.query("method == 'imp'")])
    first, second = (report.compare(rows, "colt", "imp", LEVELS) for rows in (frame, again))
    assert second["seeds"].tolist() == [3, 3, 3] and second["p"].tolist() == first["p"].tolist()
    alone = report.compare(pd.concat([frame.query("seed == 0")] * 3), "colt", "imp", [0.5]).iloc[0]
    assert alone["seeds"] == 1 and report.verdict(alone) == "too few seeds"
    assert report.accuracy_table(pd.concat([records(1)] * 3), LEVELS)["half_width"].isna().all()


@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
@settings(max_examples=5)
def test_the_order_of_rows_copies_of_rows_and_names_of_seeds_change_no_number(name, data):
    seeds = data.draw(st.integers(1, 7))
    frame = carried_records(seeds) if name.startswith("transfer") else agreeing(noisy(seeds))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    frame = frame[~((frame["seed"] == 1) & (frame["method"] == "dense"))]  # an arm may lack a seed
    again = pd.concat([frame, frame.iloc[rng.integers(len(frame), size=20)]], ignore_index=True)
    mixed = again.iloc[rng.permutation(len(again))]
    same(TABLES[name](frame), TABLES[name](mixed))
    if name not in ("arms", "scored", "at_sparsities", "distinct"):  # these show the seeds
        named = rng.permutation(50)
        same(TABLES[name](frame), TABLES[name](frame.assign(seed=named[frame["seed"]])))


@given(st.integers(1, 8), st.floats(0.001, 0.1), st.floats(0.001, 0.05))
@settings(max_examples=8)
def test_a_difference_turned_round_has_the_other_sign_and_says_the_same(seeds, spread, margin):
    frame = noisy(seeds, spread)
    for make in (report.compare, report.over_sparsities):
        one, other = (make(frame, *pair, LEVELS, margin) for pair in (("colt", "imp"), ("imp", "colt")))
        assert one["difference"].tolist() == pytest.approx((-other["difference"]).tolist())
        for column in ("half_width", "p", "p_holm", "p_equivalence", "detectable", "equivalent", "seeds"):
            assert one[column].tolist() == pytest.approx(other[column].tolist(), nan_ok=True)
        turned = {"better": "worse", "worse": "better"}
        first = [report.verdict(row).split(", ")[0] for row in one.itertuples()]
        second = [report.verdict(row).split(", ")[0] for row in other.itertuples()]
        assert [turned.get(word, word) for word in first] == second


@given(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=6))
@settings(max_examples=8)
def test_a_sparsity_asked_for_twice_is_told_once(levels):
    frame, once = noisy(3), list(dict.fromkeys(levels))
    same(report.accuracy_table(frame, levels), report.accuracy_table(frame, once))
    same(report.paper_table(frame, iter(levels)), report.paper_table(frame, once))
    same(report.compare(frame, "colt", "imp", levels), report.compare(frame, "colt", "imp", once))
    same(report.reach(frame, levels), report.reach(frame, once))
    budgets = [1000 * level for level in levels]
    same(report.at_costs(frame, budgets), report.at_costs(frame, dict.fromkeys(budgets)))


def test_all_tables_of_records_handed_in_twice_are_those_of_once():
    once, twice = (report.tables(records=rows, sparsities=LEVELS) for rows in (noisy(), pd.concat([noisy()] * 2)))
    assert set(once) == set(twice)
    for name in once:
        same(once[name], twice[name])


def test_two_records_of_one_thing_that_differ_are_refused_in_one_line():
    frame = records()
    here = (frame["experiment"] == "colt1") & (frame["round"] == 2)
    score = frame[here & (frame["kind"] == "score")]
    message = "^two records of experiment colt1, round 2, scored on d, differ: accuracy 0.77 and 0.5; keep one of them$"
    for make in TABLES.values():
        with pytest.raises(ValueError, match=message):
            make(pd.concat([agreeing(frame), score.assign(accuracy=0.5)]))
    denser = frame[here & (frame["kind"] == "round")].assign(density=0.3)
    with pytest.raises(ValueError, match=r"^two records of experiment colt1, round 2, differ: density 0.25 and 0.3; "):
        report.accuracy_table(pd.concat([frame, denser]), LEVELS)
    with pytest.raises(ValueError, match="differ: accuracy 0.77 and nan"):
        report.distinct(pd.concat([frame, score.assign(accuracy=None)]))
    nearly = pd.concat([frame, score.assign(accuracy=score["accuracy"] + 1e-15)])
    assert len(report.distinct(nearly)) == len(frame)
    assert len(report.distinct(pd.concat([frame, score.assign(scored_by="own head")]))) == len(frame) + 1


def test_one_experiment_with_two_seeds_is_refused_and_two_experiments_of_one_seed_are_no_two_seeds():
    frame = agreeing(records()).assign(target=0.9)
    with pytest.raises(ValueError, match="^records of experiment colt0 say seed 0 and 7: a hash stands for one$"):
        report.reach(pd.concat([frame, frame[frame["experiment"] == "colt0"].assign(seed=7)]), LEVELS)
    other = variant(frame[frame["method"] == "colt"], target=0.95)
    table = report.accuracy_table(pd.concat([frame, other]), LEVELS)
    assert {"colt (target 0.9)", "colt (target 0.95)"} <= set(table["method"]) and set(table["seeds"]) == {3}
    alike = variant(frame[frame["method"] == "colt"], format=3)  # nothing that an arm's name could tell
    message = "^the records mix 2 experiments of colt with n on d, seed 0; choose among them"
    for name in set(TABLES) & {"accuracy_table", "compare", "area", "reach", "rounds_table", "at_costs", "overlaps"}:
        with pytest.raises(ValueError, match=message):
            TABLES[name](pd.concat([frame, alike]))


def test_one_experiment_in_two_studies_is_no_second_seed():
    frame = agreeing(records())
    both = pd.concat([frame.assign(study="a"), frame.assign(study="b")])
    with pytest.raises(ValueError, match="the records mix 2 experiments of"):
        report.accuracy_table(both, LEVELS)
    apart = report.overlaps(both.assign(dataset=both["study"] + ": " + both["dataset"]))  # as `Answer.cycles` has them
    assert set(apart["dataset"]) == {"a: d", "b: d"} and set(apart["seeds"]) == {3}


def test_rounds_of_a_run_handed_in_twice_are_drawn_once():
    rows = agreeing(records()).query("experiment == 'colt0' and kind == 'round'").to_dict("records")
    told = [row | {"accuracies": [0.5], "curves": [[{"loss": 1.0, "accuracy": 0.5}]]} for row in rows]
    once = plots.rounds_table({"colt": told})
    pd.testing.assert_frame_equal(plots.rounds_table({"colt": told[::-1] + told}), once)
    pd.testing.assert_frame_equal(plots.epochs_table(told * 2), plots.epochs_table(told))
    with pytest.raises(ValueError, match="^colt has two rounds 3 that differ: hand in those of one experiment$"):
        plots.rounds_table({"colt": [*told, told[3] | {"density": 0.9}]})
    with pytest.raises(ValueError, match="^colt has two rounds 0 that differ"):
        plots.rounds_table({"colt": told + [row | {"experiment": "colt1"} for row in told]})


# --- what is not whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TABLES, "figure of overlaps"])
def test_no_records_are_refused_in_one_line(name):
    make = TABLES.get(name, plots.overlaps)
    for frame in (pd.DataFrame(), records().head(0)):
        with pytest.raises(ValueError, match="^no records: hand in rows of cc.report.load or cc.study once"):
            make(frame)
    assert report.tables(records=pd.DataFrame()) == {}, "of no records there are no tables"


def test_no_rows_are_not_drawn():
    empty = pd.DataFrame()
    figures = [plots.accuracy_sparsity, plots.tickets, plots.costs, plots.countings, plots.comparisons]
    for draw in [
        *figures,
        plots.overlap_over_cycles,
        plots.overlap_by_layer,
        lambda table: plots.transfer(table, table),
    ]:
        with pytest.raises(ValueError, match="^no records: the table has no rows, so there is nothing to draw$"):
            draw(empty)
    for runs in ({}, {"colt": []}):
        with pytest.raises(ValueError, match="^no records: there are no rounds"):
            plots.rounds_table(runs)
    with pytest.raises(ValueError, match="^no records: the table has no rows"):
        plots.overlaps(records().assign(overlap=None))


def broken():
    """Records that lack something, and what is to be said of it: None where that can do without."""
    frame = agreeing(records())
    for column in ("kind", "experiment", "dataset", "network", "method", "seed", "round", "density", "accuracy"):
        yield frame.drop(columns=column), f"the records lack {column}: "
    for column in ("experiment", "method", "seed", "round", "density", "kind"):
        yield frame.assign(**{column: frame[column].where(frame.index != 5)}), f" lacks {column}: "
    yield frame.drop(columns="scored_on"), "the records lack scored_on: "
    yield frame.assign(scored_on=frame["scored_on"].where(frame["kind"] == "round")), " lacks scored_on: "
    for column in ("train_images", "chance", "score_image_epochs"):
        yield frame.drop(columns=column), None
    yield frame[frame["seed"] == 0], None
    yield (
        frame[(frame["method"] == "colt") & (frame["seed"] < 2) | (frame["method"] == "imp") & (frame["seed"] == 2)],
        None,
    )
    yield frame.assign(accuracy=frame["accuracy"].astype(object).where(frame["accuracy"].notna(), None)), None
    yield frame.assign(kind="another"), None
    yield frame[frame["kind"] == "round"], None
    yield frame[frame["kind"] == "score"], None
    for nothing in (None, math.nan, math.inf, "high"):
        yield frame.assign(accuracy=nothing), None


@pytest.mark.parametrize("name", TABLES)
def test_a_frame_that_lacks_something_makes_a_table_or_one_clear_line(name):
    allowed = ("no scores of", "no records: the table has no rows")
    for frame, message in broken():
        try:
            TABLES[name](frame)
            assert message is None, message
        except ValueError as problem:
            assert "\n" not in str(problem)
            assert message in str(problem) if message else str(problem).startswith(allowed)


def test_what_a_table_needs_beyond_is_named_in_one_line():
    for make, column in ((report.overlaps, "overlap"), (TABLES["rounds_table"], "image_epochs")):
        with pytest.raises(ValueError, match=f"^the records lack {column}: hand in rows of"):
            make(agreeing(records()).drop(columns=column))
    with pytest.raises(ValueError, match="^the records lack flops: "):
        report.at_costs(records(), [450], "flops")
    with pytest.raises(ValueError, match="^the records lack higher_is_better: "):
        report.accuracy_table(errors(records()).drop(columns="higher_is_better"), LEVELS)
    with pytest.raises(ValueError, match="^the records lack train_images: "):
        report.transfers(carried_records().drop(columns="train_images"), [0.5])


def test_a_score_that_is_no_number_counts_for_no_seed_and_is_told():
    frame = records()
    lost = (frame["experiment"] == "colt1") & (frame["kind"] == "score") & (frame["round"] == 1)
    frame.loc[lost, "accuracy"] = math.nan
    table = report.accuracy_table(frame, [0.5, 0.7]).set_index(["method", "at"])
    assert table.loc[("colt", 0.5), "seeds"] == 2 and math.isnan(table.loc[("colt", 0.5), "half_width"])
    assert table.loc[("colt", 0.7), "seeds"] == 3
    assert report.compare(frame, "colt", "imp", [0.5, 0.7])["seeds"].tolist() == [2, 3]
    told = report.warnings(frame).iloc[0]
    assert (told["experiment"], told["round"], told["warning"]) == ("colt1", 1, "accuracy is not a number")
    other = errors(records())
    other.loc[lost, "mse"] = math.inf
    assert report.warnings(other)["warning"].tolist() == ["mse is not a number"]


# --- warnings ----------------------------------------------------------------------------------------------------

DIVERGED, COLLAPSED = "copy 1 ended at chance (10.0 %, loss 1e12)", "layer conv3 has no weight left"


def warned_of(frame, **texts):
    """The records, those of some experiments' second rounds with warnings."""
    here = (frame["round"] == 2) & (frame["kind"] == "round")
    each = zip(frame["experiment"], here, strict=True)
    told = [list(texts.get(name, ())) if second else None for name, second in each]
    return frame.assign(warnings=told)


def test_warnings_are_a_table_and_stay_with_their_records():
    frame = agreeing(records())
    told = warned_of(frame, colt1=[DIVERGED, COLLAPSED])
    table = report.warnings(told)
    assert list(table) == ["experiment", "method", "dataset", "seed", "round", "warning"]
    assert table["warning"].tolist() == [DIVERGED, COLLAPSED] and set(table["experiment"]) == {"colt1"}
    for old in (frame, frame.assign(warnings=None)):  # copies from before records had warnings
        pd.testing.assert_frame_equal(report.warnings(pd.concat([old, told])), table)
        assert not len(report.warnings(old)) and report.say_warnings(old) == []
    assert report.say_warnings(told) == ["1 of 147 records carry warnings: see cc.report.warnings"]


def test_a_copy_at_chance_agrees_with_nobody():
    frame = agreeing(records())
    plain, table = (report.overlaps(rows) for rows in (frame, warned_of(frame, colt1=[DIVERGED], colt2=[COLLAPSED])))
    assert "warned" not in plain and table["warned"].tolist() == [0, 2] + [0] * 9
    row = table[table["round"] == 2].iloc[0]
    assert row["seeds"] == 2 and row["gap"] == pytest.approx((0.1 + 0.3) / 2), "colt1 is out, a collapsed layer is in"
    others = table["round"] != 2
    pd.testing.assert_frame_equal(table[others].drop(columns="warned"), plain[others])
    every = report.overlaps(warned_of(frame, colt0=[DIVERGED], colt1=[DIVERGED], colt2=[DIVERGED]))
    assert every["gap"].isna().tolist() == [False, True] + [False] * 9 and every["seeds"].tolist()[:2] == [3, 0]


def test_figures_of_agreement_leave_a_copy_at_chance_out_and_say_so():
    frame = agreeing(records())
    figure = plots.overlaps(warned_of(frame, colt0=[DIVERGED], colt1=[DIVERGED], colt2=[DIVERGED]))
    assert "3 of 147 records carry warnings: see cc.report.warnings" in figure.legends[0].get_title().get_text()
    assert "warnings" not in plots.overlaps(frame).legends[0].get_title().get_text()
    drawn = pd.Series(figure.axes[0].containers[0].lines[0].get_ydata(), dtype=float)
    assert drawn.isna().tolist() == [False, True] + [False] * 9
    told = warned_of(frame, colt0=[DIVERGED]).query("experiment == 'colt0' and kind == 'round'").to_dict("records")
    rest = {"chance_global": 0.4, "inherited": 0.5, "kappa": 0.1}
    rows = [r | {"accuracies": [], "overlap": r["overlap"] and r["overlap"] | rest} for r in told]
    table = plots.rounds_table({"colt": rows})
    assert table["warned"].sum() == 1 and table["jaccard"].isna().tolist() == [True, False, True] + [False] * 9
    legend = plots.overlap_over_cycles(table).axes[0].get_legend()
    assert legend.get_title().get_text() == "1 of 12 records carry warnings: see cc.report.warnings"


# --- failed experiments ------------------------------------------------------------------------------------------

LABELS = ["experiment", "dataset", "network", "method", "seed"]


def failed(frame, *experiments, at=99, problem="the training diverged"):
    """Records of failures, as `studies.run` writes them: no density, no scores."""
    rows = frame[frame["experiment"].isin(experiments)].drop_duplicates("experiment")[LABELS]
    return rows.assign(kind="failed", round=at, problem=problem)


@pytest.mark.parametrize("name", [n for n in TABLES if n not in ("paper_table", "failures", "arms", "distinct")])
def test_failed_experiments_change_no_number(name):
    frame = carried_records() if name.startswith("transfer") else agreeing(records())
    lost = failed(frame, *frame["experiment"].unique()[:4])
    alone = lost.assign(method="snip", experiment="lost" + lost["experiment"])
    plain, table = TABLES[name](frame), TABLES[name](pd.concat([frame, lost, alone]))
    same(table.reindex(columns=plain.columns), plain)


def test_the_main_table_says_what_failed():
    frame = records()
    part, whole = failed(frame, "colt1"), failed(frame, "imp0", "imp1", "imp2", problem="the loss is not finite")
    rest = frame[(frame["method"] != "imp") & (frame["experiment"] != "colt1")]
    both = pd.concat([rest, part, whole])
    table = report.paper_table(both, LEVELS).set_index("method")
    assert table["note"].to_dict() == {
        "dense": "",
        "colt": "1 of 3 seeds failed: the training diverged",
        "imp": "failed: the loss is not finite",
    }
    assert table["seeds"].to_dict() == {"dense": 3, "colt": 2, "imp": 0}
    assert table.loc["imp", ["dense", "50% sparse", "training images"]].tolist() == ["-"] * 3
    shown = report.tables(records=both, sparsities=LEVELS)
    (main,) = [t for name, t in shown.items() if name.startswith("accuracy-")]
    assert main.set_index("method")["note"].to_dict() == table["note"].to_dict()
    assert "note" not in report.paper_table(frame, LEVELS) and not len(report.failures(frame))


def test_where_everything_failed_the_main_table_has_nothing_but_that():
    lost = failed(records(), "colt0", "colt1", "imp0", problem="no weight is left")
    shown = report.tables(records=lost, sparsities=LEVELS)
    assert [name.split("-")[0] for name in shown] == ["accuracy"]
    (table,) = shown.values()
    assert table["note"].tolist() == ["failed: no weight is left"] * 2 and table["seeds"].tolist() == [0, 0]
    assert report.paper_table(lost, LEVELS)["method"].tolist() == ["colt", "imp"]
    assert not len(report.accuracy_table(lost, LEVELS)) and not len(report.reach(lost, LEVELS))


def test_tables_of_another_metric_say_what_failed_too():
    frame = errors(records())
    table = report.paper_table(pd.concat([frame, failed(frame, "imp2"), failed(frame, "dense0")]), LEVELS)
    assert set(table["metric"]) == {"mse"} and table["note"].str.startswith("1 of 3 seeds failed").sum() == 2


def test_a_failure_that_a_later_round_has_overtaken_is_over():
    frame = records()
    gone, stands = failed(frame, "colt0", at=11), failed(frame, "colt0", at=12)
    assert not len(report.failures(pd.concat([frame, gone])))
    (row,) = report.failures(pd.concat([frame, stands, stands])).to_dict("records")
    assert (row["method"], row["failed"], row["seeds"]) == ("colt", 1, 3)


def test_an_answer_without_the_last_studys_store_has_no_transfers(tmp_path):
    shutil.copytree(ROOT / "results" / "small" / "store", tmp_path / "small" / "store")
    found = report.answer(tmp_path, ["small", "world"])
    assert not len(found.gains) and found.say_transfer() == ["no reference run has transferred a ticket yet"]
    some = found.records["method"].eq("colt") & found.records["kind"].eq("round") & found.records["round"].eq(1)
    found.records["warnings"] = [[DIVERGED] if here else None for here in some]
    lines = found.say_agreement()
    assert lines[-1].endswith("records carry warnings: see cc.report.warnings") and "cycle 2: " in lines[0]
    found.records["warnings"] = [[DIVERGED]] * len(found.records)
    assert all(line.endswith("in every cycle a copy ended at chance") for line in found.say_agreement()[:-1])
