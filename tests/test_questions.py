"""Questions asked beforehand: what the records say to them, against SciPy by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

import colt_core as cc
from colt_core import plots, report
from colt_core.report import Question, Questions

ROOT = Path(__file__).parent.parent
STUDY = {
    "name": "asked",
    "title": "t",
    "base": {"dataset": "cifar10-mini", "densities": [0.5, 0.25], "scores": [0.5, 0.75]},
    "methods": {
        "dense": {"scores": []},
        "colt": {},
        "matched": {},
        "random": {},
        "half": {"method": "matched", "part": 0},
    },
    "seeds": [0, 1, 2, 3, 4, 5],
}


@pytest.fixture(scope="module")
def study():
    return cc.Study(**STUDY)


def accuracies(seed=0):
    rng = np.random.default_rng(seed)
    means = {"colt": 0.60, "matched": 0.62, "random": 0.55, "half": 0.58}
    return {arm: mean + rng.normal(0, 0.004, (6, 2)) for arm, mean in means.items()}


def made_up(study, values):
    rows = []
    for experiment in study.experiments():
        if experiment.method == "dense":
            continue
        arm = "half" if experiment.options else experiment.method
        about = experiment.labels() | {"image_epochs": 1}
        for number, density in enumerate((1.0, 0.5, 0.25)):
            rows.append(about | {"kind": "round", "round": number, "density": density, "accuracy": None})
            if number:
                score = {"kind": "score", "scored_on": "cifar10-mini", "round": number, "density": density}
                rows.append(about | score | {"accuracy": values[arm][experiment.seed, number - 1], "train_images": 9})
    return pd.DataFrame(rows)


ASKED = Questions(
    margin={"matched": 0.5, "random": -0.5},
    questions={
        "A": Question(says="a", of={"colt": 1, "matched": -1}, expect="below"),
        "B": Question(says="b", of={"half": 1, "colt": -1}, expect="above"),
        "C": Question(says="c", of={"colt": 1, "matched": -1}, expect="equivalent"),
        "D": Question(says="d", of={"matched": 1, "random": -1}, expect="above", than=0.02, sided=1),
        "E": Question(says="e", of={"colt": 1, "half": -0.5, "matched": -0.5}, expect="above"),
    },
)


def test_each_answer_is_scipys_test_on_means_over_the_sparsities_and_all_are_one_family(study):
    values = accuracies()
    table = report.decided(study, made_up(study, values), ASKED).set_index("letter")
    m = {arm: v.mean(1) for arm, v in values.items()}
    margin = (m["matched"] - m["random"]) / 2
    gap = m["colt"] - m["matched"]
    p = {
        "A": stats.ttest_rel(m["colt"], m["matched"]).pvalue,
        "B": stats.ttest_rel(m["half"], m["colt"]).pvalue,
        "C": max(
            stats.ttest_1samp(gap + margin, 0, alternative="greater").pvalue,
            stats.ttest_1samp(gap - margin, 0, alternative="less").pvalue,
        ),
        "D": stats.ttest_1samp(m["matched"] - m["random"], 0.02, alternative="greater").pvalue,
        "E": stats.ttest_1samp(m["colt"] - (m["half"] + m["matched"]) / 2, 0).pvalue,
    }
    assert table["p"].to_dict() == pytest.approx(p)
    assert table["p_holm"].tolist() == pytest.approx(report.holm(list(p.values())).tolist())
    assert table["verdict"].to_dict() == {
        "A": "holds", "B": "the opposite", "C": "holds", "D": "holds", "E": table["verdict"]["E"],
    }  # fmt: skip
    assert table.loc["C", "margin"] == pytest.approx(margin.mean()) and np.isnan(table.loc["A", "margin"])
    assert (table["seeds"] == 6).all() and (table["left_out"] == "").all()


def test_a_seed_without_an_arm_is_left_out_of_the_questions_that_need_it_and_named(study):
    frame = made_up(study, accuracies())
    lost = frame["options"].notna() & (frame["seed"] == 4) & (frame["kind"] == "score") & (frame["round"] == 2)
    table = report.decided(study, frame[~lost], ASKED).set_index("letter")
    assert table["left_out"].to_dict() == {"A": "", "B": "4", "C": "", "D": "", "E": "4"}
    assert table.loc["B", "seeds"] == 5
    some = frame[~lost & ~((frame["options"].notna()) & (frame["seed"] > 1))]
    partly = report.decided(study, some, ASKED).set_index("letter")
    alone = report.decided(study, frame, Questions(margin=ASKED.margin, questions={
        letter: one for letter, one in ASKED.questions.items() if letter in "ACD"})).set_index("letter")  # fmt: skip
    assert partly.loc["B", "verdict"] == "too few seeds" and np.isnan(partly.loc["B", "p_holm"])
    assert partly.loc["A", "p"] == alone.loc["A", "p"] and partly.loc["A", "p_holm"] >= alone.loc["A", "p_holm"]
    assert partly["p_holm"].min() == pytest.approx(5 * partly["p"].min()), "a family of five stays one of five"
    few = report.decided(study, frame[frame["seed"] < 2], ASKED)
    assert set(few["verdict"]) == {"too few seeds"} and few["left_out"].iloc[0] == "2 3 4 5"
    assert set(report.decided(study, pd.DataFrame(), ASKED)["seeds"]) == {0}


def test_a_question_may_have_a_margin_of_its_own(study):
    values = accuracies()
    own = Question(says="c", of={"colt": 1, "matched": -1}, expect="equivalent", margin={"half": 0.5, "random": -0.5})
    asked = Questions(margin=ASKED.margin, questions={"C": ASKED.questions["C"], "O": own})
    table = report.decided(study, made_up(study, values), asked).set_index("letter")
    m = {arm: v.mean(1) for arm, v in values.items()}
    margin, gap = (m["half"] - m["random"]) / 2, m["colt"] - m["matched"]
    sides = [stats.ttest_1samp(margin + sign * gap, 0, alternative="greater").pvalue for sign in (1, -1)]
    assert table.loc["O", ["margin", "p"]].tolist() == pytest.approx([margin.mean(), max(sides)])
    assert table.loc["C", "margin"] == pytest.approx(((m["matched"] - m["random"]) / 2).mean())
    assert Questions(questions={"O": own}).margin_of(own) == own.margin, "then there need be none of all"


def test_no_difference_is_undecided_and_far_ones_are_not_equivalent(study):
    values = accuracies()
    values["colt"] = values["matched"] + np.array([1, -1, 1, -1, 1, -1])[:, None] * 0.01
    table = report.decided(study, made_up(study, values), ASKED).set_index("letter")
    assert table.loc["A", "verdict"] == "undecided"
    values["colt"] = values["random"]
    assert report.decided(study, made_up(study, values), ASKED).set_index("letter").loc["C", "verdict"] == "undecided"


def test_without_any_spread_it_is_no_accident(study):
    values = {
        arm: np.full((6, 2), mean) for arm, mean in {"colt": 0.6, "matched": 0.6, "random": 0.5, "half": 0.5}.items()
    }
    table = report.decided(study, made_up(study, values), ASKED).set_index("letter")
    assert table["p"].to_dict() == {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0, "E": 0.0}
    assert table["verdict"].to_dict() == {
        "A": "undecided", "B": "the opposite", "C": "holds", "D": "holds", "E": "holds",
    }  # fmt: skip


def test_what_studies_have_answered_is_read_from_their_folders_and_told_in_points(study, tmp_path):
    assert not len(report.predictions(tmp_path)) and not len(report.answers(report.predictions(tmp_path)))
    table = report.decided(study, made_up(study, accuracies()), ASKED)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        about = {"title": name, "base": {"dataset": "cifar10-mini"}, "methods": {"colt": {}}}
        (tmp_path / name / f"{name}.yaml").write_text(yaml.safe_dump(about))
        report.save(table, tmp_path / name, "decided")
    (tmp_path / "two" / "two.yaml").rename(tmp_path / "one" / "two.yaml")  # a study may lie in another one's folder
    found = report.predictions(tmp_path)
    assert list(found["study"]) == ["one"] * len(table) + ["two"] * len(table) and found["about"].iloc[-1] == "two"
    assert np.allclose(found["estimate"], [*table["estimate"]] * 2)
    told = report.answers(found).set_index("said beforehand")["number"]
    row = table.set_index("letter").loc["C"]
    within = f"c, within {100 * round(row['margin'], 4):g} points"
    assert told[within].iloc[0] == f"{100 * row['estimate']:+.1f} ± {100 * row['half_width']:.1f} points"
    assert plots.predictions(found).axes[0].get_yticklabels()[1].get_text() == "a"


def test_each_metric_is_told_in_its_own_unit_and_drawn_on_its_own_scale(study):
    values = made_up(study, accuracies())
    values["psnr"], values["nats"] = 20 + values["accuracy"], 1 - values["accuracy"]
    asked = ASKED.model_copy(
        update={"questions": {**ASKED.questions, "C": ASKED.questions["C"].model_copy(update={"metric": "psnr"}),
                              "D": ASKED.questions["D"].model_copy(update={"metric": "nats"})}}
    )  # fmt: skip
    table = report.decided(study, values, asked).assign(study="s", about="a")
    plain = report.decided(study, values, ASKED).set_index("letter")
    assert list(table["metric"]) == ["accuracy", "accuracy", "psnr", "nats", "accuracy"]
    row = table.set_index("letter").loc["C"]
    assert row["estimate"] == pytest.approx(plain.loc["C", "estimate"])
    own = {arm: study.experiment(arm, 0).hash for arm in ("colt", "half")}
    alone = asked.model_copy(update={"questions": {"D": asked.questions["D"]}})
    assert asked.metric_for(study, [own["colt"]]) == "accuracy" and alone.metric_for(study, own.values()) is None
    assert alone.metric_for(study, [study.experiment("random", 3).hash]) == "nats"
    numbers = list(report.answers(table)["number"])
    assert numbers[2] == f"{row['estimate']:+.3g} ± {row['half_width']:.2g} dB" and numbers[3].endswith(" nats")
    assert f"within {row['margin']:.3g} dB" in report.answers(table)["said beforehand"][2]
    panels = plots.predictions(table).axes
    assert [panel.get_xlabel().split(";")[0] for panel in panels] == [
        "difference in test accuracy, points", "difference in test PSNR, dB", "difference in test nats a pixel value",
    ]  # fmt: skip
    assert panels[1].containers[0].lines[0].get_xdata()[0] == pytest.approx(row["estimate"])


def test_an_arm_may_count_by_its_rounds_or_by_the_ticket_that_validation_chose(study):
    values = accuracies()
    records = made_up(study, values)
    rng = np.random.default_rng(9)
    records["validation_accuracy"] = np.where(records["kind"] == "score", rng.random(len(records)), np.nan)
    of = {"colt": 1, "half": -1}
    asked = Questions(questions={c: Question(says=c, of=of, expect="above", counts=c) for c in ("rounds", "chosen")})
    table = report.decided(study, records, asked).set_index("letter")
    best = {}
    for arm in of:
        hashes = [study.experiment(arm, seed).hash for seed in study.seeds]
        validation = [records[(records["experiment"] == h) & (records["kind"] == "score")] for h in hashes]
        best[arm] = np.array([values[arm][s, v["validation_accuracy"].argmax()] for s, v in enumerate(validation)])
    gaps = {"rounds": values["colt"].mean(1) - values["half"].mean(1), "chosen": best["colt"] - best["half"]}
    for counts, gap in gaps.items():
        assert table.loc[counts, "estimate"] == pytest.approx(gap.mean())
        assert table.loc[counts, "p"] == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)


def test_of_a_metric_of_ones_own_validation_chooses_by_its_direction(study):
    values = accuracies()
    records = made_up(study, values).assign(metric="slips", higher_is_better=False)
    records = records.rename(columns={"accuracy": "slips"}).assign(validation_slips=lambda t: t["slips"])
    asked = Question(says="c", of={"colt": 1, "half": -1}, expect="above", counts="chosen", metric="slips")
    table = report.decided(study, records, Questions(questions={"A": asked}))
    assert table["estimate"].iloc[0] == pytest.approx((values["colt"].min(1) - values["half"].min(1)).mean())


def test_what_is_described_is_the_mean_of_common_rounds_with_its_interval_and_no_test(study):
    values = accuracies()
    records = made_up(study, values)
    half = [study.experiment("half", seed).hash for seed in study.seeds]
    records = records[~(records["experiment"].isin(half) & (records["kind"] == "score") & (records["round"] == 1))]
    own = study.experiment("dense", 3)
    dense = own.labels() | {"kind": "score", "scored_on": "cifar10-mini", "round": 0, "density": 1.0, "accuracy": 0.7}
    records = pd.concat([records, pd.DataFrame([dense])])
    rows = {"all": {"colt": 1, "matched": -1}, "last": {"half": 1, "colt": -1}, "whole": {"dense": 1, "colt": -1}}
    table = report.described(study, records, Questions(described=rows)).set_index("said")
    gaps = {
        "all": values["colt"].mean(1) - values["matched"].mean(1),
        "last": values["half"][:, 1] - values["colt"][:, 1],
    }
    for said, gap in gaps.items():
        mean, half_width = report.interval(pd.Series(gap))
        assert (table.loc[said, "estimate"], table.loc[said, "half_width"]) == pytest.approx((mean, half_width))
    assert list(table["rounds"]) == ["1 2", "2", "1 2"] and list(table["seeds"]) == [6, 6, 1]
    assert table.loc["whole", "estimate"] == pytest.approx(0.7 - values["colt"][3].mean())
    assert table.loc["whole", "left_out"] == "0 1 2 4 5" and np.isnan(table.loc["whole", "half_width"])
    with pytest.raises(ValueError, match="^unknown arm 'grass'"):
        report.described(study, records, Questions(described={"x": {"grass": 1}}))


def test_the_share_of_imps_gain_is_told_of_every_reference_study_that_has_answers():
    found = report.answered_gains(ROOT / "results")
    told = report.predictions(ROOT / "results")
    without = {"super"}  # has no IMP beside whose gain could be shared
    assert set(found["study"]) == set(told.loc[told["metric"] == "accuracy", "study"]) - without
    own = found[found["study"] == "cause"]
    scores = pd.read_csv(ROOT / "figures" / "cause_recovered.csv")  # drawn from the tickets' own records
    keys = ["method", "seed"]
    pair = own.merge(scores, on=keys, suffixes=("", "_drawn"))
    assert len(pair) == len(own) == len(scores) and np.allclose(pair["share"], pair["share_drawn"], equal_nan=True)
    assert own["run"].unique().tolist() == ["cause: cifar10, conv3 width 16, 3 epochs, 6 seeds"]


def test_studies_without_answers_or_stores_have_no_share(tmp_path):
    assert len(report.answered_gains(tmp_path)) == 0
    (tmp_path / "one").mkdir()
    about = {"title": "one", "base": {"dataset": "cifar10-mini"}, "methods": {"colt": {}}}
    (tmp_path / "one" / "one.yaml").write_text(yaml.safe_dump(about))
    (tmp_path / "one" / "decided.csv").write_text("letter")
    assert not len(report.answered_gains(tmp_path)) and "share" in report.answered_gains(tmp_path)


def test_mistakes_in_questions_are_one_line(study, tmp_path):
    wrong = Questions(questions={"A": Question(says="a", of={"grass": 1}, expect="above")})
    with pytest.raises(ValueError, match="^unknown arm 'grass'; there are: dense, colt, matched, random, half$"):
        report.decided(study, pd.DataFrame(), wrong)
    for text, message in (
        ("[1]", "holds no questions"),
        ("questions: [1]", "must be a mapping of letters"),
        ("questions: {A: {says: a, of: {colt: 1}, expect: more}}", "expect"),
        ("questions: {}", "nothing is asked"),
        ("described: {x: {}}", "at least 1"),
        ("questions: {A: {says: a, of: {colt: 1}, expect: above, counts: all}}", "counts"),
        (
            "questions: {A: {says: a, of: {colt: 1}, expect: equivalent}}",
            "A asks for equivalence: give a margin",
        ),
    ):
        path = tmp_path / "questions.yaml"
        path.write_text(text)
        with pytest.raises(ValueError, match="^[^\n]*$") as problem:
            Questions.read(path)
        assert message in str(problem.value)


def test_every_study_of_the_plan_can_be_read_and_every_arm_that_is_asked_about_is_in_it():
    files = sorted((ROOT / "results").glob("*/questions.yaml"))
    assert len(files) >= 5
    plan = (ROOT / "results" / "PLAN.md").read_text()
    for path in files:
        asked = Questions.read(path)
        for study in (cc.Study.named(str(one)) for one in path.parent.glob("*.yaml") if one != path):
            assert f"`{study.name}`" in plan and len(asked.questions) + len(asked.described) >= 2
            for piece in study.each():
                assert len(report.described(piece, pd.DataFrame(), asked)) == len(asked.described)
            if asked.questions:
                assert len(report.decided(study, pd.DataFrame(), asked)) == len(asked.questions)


def test_what_a_study_describes_is_read_beside_what_it_answers():
    results = ROOT / "results"
    told = cc.report.told(results, "super")
    assert len(told) == len(pd.read_csv(results / "super" / "described.csv"))
    assert list(told.columns) == list(cc.report.predictions(results).columns)
    assert set(told["study"]) == {"super"} and set(told["verdict"]) == {""} and told["estimate"].notna().all()
    assert cc.report.told(results, "elastic").empty != (results / "elastic" / "described.csv").is_file()
    cc.plots.predictions(told)
