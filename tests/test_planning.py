import pytest

import colt_core as cc
from colt_core import models
from colt_core.studies import plan as planning


@pytest.fixture
def slow(monkeypatch):
    """A machine of 1,000 images a second."""
    monkeypatch.setattr(planning, "_speed", lambda *_: 1000.0)


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


def test_what_follows_colt_counts_colt_once_and_knows_its_rounds_afterwards(make, tmp_path, slow):
    followers = [make(method=m, scores=None) for m in ("matched", "random")]
    before = cc.plan(followers, tmp_path, "cpu")
    assert before.experiments == 2, "random trains nothing; matched needs COLT's run"
    assert before.rounds[0] < before.rounds[1]
    found = cc.run(followers[0].reference(), tmp_path, "cpu")
    after = cc.plan(followers[0], tmp_path, "cpu")
    assert after.rounds == (len(found), len(found))


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


def test_the_calibration_is_the_speed_of_a_real_training(mini):
    recipe = cc.Recipe.named("mini").model_dump()
    speed = planning.calibrate("conv3", '{"width": 16}', 32, recipe, "cpu")
    history = cc.train(
        cc.build("conv3", 10, width=16), mini.train, cc.Recipe.named("mini").changed(epochs=1), device="cpu"
    )
    assert 0.2 < speed / (history.images / history.seconds) < 5, "a plan must at least be of the right size"
