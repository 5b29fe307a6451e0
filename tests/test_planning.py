import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import colt_core as cc
from colt_core import models
from colt_core.studies import plan as planning
from colt_core.studies import speed as calibration
from colt_core.training import loop


@pytest.fixture
def slow(monkeypatch):
    """A machine of 1,000 images a second."""
    monkeypatch.setattr(planning, "speed", lambda *_: 1000.0)


@pytest.fixture
def make(folder, recipe):
    base = {"dataset": f"{folder}", "network_args": {"width": 4}, "recipe": recipe, "rate": 0.4, "target": 0.6}
    return lambda **fields: cc.Experiment(**(base | fields))


def test_a_plan_is_what_the_run_then_does(make, tmp_path, slow):
    """IMP's rounds are arithmetic, COLT's lie between two bounds; image-epochs and FLOPs are those of the records."""
    for method, exact in (("imp", True), ("colt", False), ("dense", True)):
        experiment = make(method=method, scores=[0.5] if method != "dense" else [])
        plan = cc.plan(experiment, tmp_path, "cpu")
        records = cc.run(experiment, tmp_path, "cpu")
        rounds, scores = records[records["kind"] == "round"], records[records["kind"] == "score"]
        spent = rounds["image_epochs"].max() + scores["score_image_epochs"].sum()
        assert plan.rounds[0] <= len(rounds) <= plan.rounds[1] and plan.scores[1] == len(scores)
        assert plan.image_epochs[0] <= spent <= plan.image_epochs[1]
        assert not exact or plan.image_epochs == (spent, spent)
        network = cc.build("conv3", 3, width=4)
        assert plan.flops[0] == 3 * models.forward_flops(network) * plan.image_epochs[0]
        size = sum(path.stat().st_size for path in (tmp_path / experiment.hash).glob("*.safetensors"))
        assert size < plan.disk + 8000 * plan.rounds[1]
        done = cc.plan(experiment, tmp_path, "cpu")
        assert done.experiments == 0 and "nothing left to do" in str(done)
        anew = cc.plan(experiment, tmp_path, "cpu", anew=True)
        assert (anew.rounds, anew.image_epochs) == (plan.rounds, plan.image_epochs)


def test_what_is_rewound_to_is_planned_once_and_what_may_end_early_from_there_on(tmp_path, slow):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=54)
    base = {"dataset": "cifar10-mini@8:0,1", "network_args": {"width": 4}, "recipe": recipe, "rate": 0.5, "target": 0.7}
    one = cc.Experiment(method="imp", rewind=8, scores=None, **base)
    plan = cc.plan(one, tmp_path, "cpu")
    spent = cc.run(one, tmp_path, "cpu")["image_epochs"].max()
    assert plan.image_epochs == (spent, spent) == (432 + 2 * 108,) * 2, "8 steps once, then 2 of 10 a round"
    long = recipe.changed(epochs=10)
    early = cc.Experiment(method="imp", early_bird={"window": 1}, scores=None, **base | {"recipe": long})
    least, most = cc.plan(early, tmp_path, "cpu").image_epochs
    assert most == 2 * 10 * 540 and least == pytest.approx(2 * 2 * 540)


def test_what_follows_colt_counts_colt_once_and_knows_its_rounds_afterwards(make, tmp_path, slow):
    followers = [make(method=m, scores=None) for m in ("matched", "random")]
    before = cc.plan(followers, tmp_path, "cpu")
    assert before.experiments == 2, "random trains nothing; matched needs COLT's run"
    assert before.rounds[0] < before.rounds[1]
    found = cc.run(followers[0].reference(), tmp_path, "cpu")
    after = cc.plan(followers[0], tmp_path, "cpu")
    assert after.rounds == (len(found), len(found))


def test_what_refills_imps_masks_trains_one_network_and_is_planned_as_imp(make):
    from colt_core.studies.foresight import doubts
    from colt_core.studies.plan import together

    imp, colt = (make(method="refill", parts=3, options={"source": source}) for source in ("imp", "colt"))
    assert (together(imp, 3), together(colt, 3)) == (1, 3)
    assert doubts(imp) == [] and doubts(colt), "three copies of a single class each"
    own = {"method": "dual", "densities": (0.5,), "target": 0.5, "options": {"steps": 120}}
    images = {rewind: cc.plan(make(**own, rewind=rewind, scores=None)).image_epochs for rewind in (0, 1)}
    assert images[1][0] >= images[0][0] == 120 * 64, "a transformation is no training that rewinding shortens"


def test_time_is_images_over_speed_and_side_by_side(make, tmp_path, slow):
    colt = make(method="colt", scores=None)
    alone, beside = (cc.plan(colt, tmp_path, "cpu", workers=n) for n in (1, 2))
    assert alone.seconds[0] == pytest.approx(2 * beside.seconds[0])
    study = cc.plan([make(method="imp", scores=None, seed=s) for s in range(4)], tmp_path, "cpu", workers=4)
    one = cc.plan(make(method="imp", scores=None), tmp_path, "cpu", workers=4)
    assert study.seconds[0] == pytest.approx(one.seconds[0]), "a single IMP run cannot use four workers"


def test_the_text_says_what_a_reader_asks(make, tmp_path, slow):
    text = str(cc.plan(make(method="colt"), tmp_path, "cpu", workers=2))
    for word in (
        "image-epochs:",
        "training FLOPs:",
        "about",
        "on cpu (2 trainings side by side, each conv3 width 4",
        "MB",
    ):
        assert word in text
    assert planning.duration(50) == "50 s" and planning.duration(7200) == "2.0 h"


@pytest.mark.parametrize("speed", [40.0, 1000.0, 4000.0])
def test_the_calibration_is_the_speed_of_a_real_training(monkeypatch, speed):
    """By a clock that only training moves on, and the first training, which loads what it needs, by seconds more."""
    clock, steps, real = [0.0], [], loop.Trainer._step

    def step(trainer, number, pixels, labels):
        clock[0] += len(labels) / speed + (0 if steps else 5)
        steps.append(len(labels))
        return real(trainer, number, pixels, labels)

    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(loop.Trainer, "_step", step)
    recipe = cc.Recipe.named("mini").model_dump()
    assert calibration.calibrate("conv3", {"width": 4}, 10, (3, 32, 32), recipe) == pytest.approx(speed)
    assert set(steps) == {32}, "the recipe's own batches"
    assert 1 < clock[0] - 5 < 4, "it lasts long enough to be told, and no longer"


def test_a_plan_tells_what_the_finished_trainings_say_of_its_speed(make, tmp_path, slow):
    done, open_ = make(method="imp", scores=()), make(method="imp", scores=(), seed=1)
    frame = cc.run(done, tmp_path, device="cpu")
    assert cc.plan(open_, tmp_path, "cpu").checks == ()
    (check,) = cc.plan([done, open_], tmp_path, "cpu").checks
    rounds, scores = frame[frame["kind"] == "round"], frame[frame["kind"] == "score"]
    images = rounds["image_epochs"].max() + scores["score_image_epochs"].sum()
    rate = images / (rounds["seconds"].max() + scores["score_seconds"].sum())
    count = len(rounds) - 1 + len(scores)
    assert check.startswith(
        f"conv3 width 4: {count} trainings in the store ran at {rate:,.0f} images/s, {1000 / rate:.2f}"
    )
    assert cc.plan([open_], tmp_path, "cpu").against(50).endswith("took 50 s") and not cc.plan(done, tmp_path).against(
        1
    )


def test_notebook_02_plans_every_arm_that_it_then_runs():
    """It promised two of five."""
    source = (Path(cc.__file__).parent.parent / "notebooks" / "02_cycles.ipynb").read_text()
    planned, run = re.search(r"cc\.plan\((.*?), anew", source)[1], re.search(r"cc\.study\((.*?)\)\\n", source)[1]
    assert planned == run == "study.experiments([seed])"
