"""What a user defines outside the package goes the whole way: run, workers, a kill, plan, table, figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from toys import Headless, SquaredError

import colt_core as cc
from colt_core.studies.experiment import settings_in
from colt_core.studies.records import read_records

TOYS = {
    "a method": {"method": "toys:FILTERS", "least": 12},
    "an objective": {"objective": {"name": "toys:SquaredError", "scale": 2.0}, "network": "toys:headless"},
    "a network": {"network": "toys:headless", "network_args": {"width": 5}, "by": "random"},
    "a way of scoring": {"scoring": {"objective": "toys:SquaredError", "head": "own"}},
}
TIMES = ("seconds", "score_seconds")
KILLED = """
    import json, os, sys
    import colt_core as cc
    from colt_core.training import Trainer
    steps, real = [0], Trainer._step
    def step(*arguments):
        steps[0] += 1
        if steps[0] == int(sys.argv[3]):
            os._exit(9)
        return real(*arguments)
    Trainer._step = step
    cc.run(cc.Experiment(**json.loads(sys.argv[2])), sys.argv[1], device="cpu")
"""


@pytest.fixture
def make(folder):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.4, "target": 0.7, "recipe": recipe}
    return lambda toy, **fields: cc.Experiment(**(base | {"scores": (0.5,)} | TOYS[toy] | fields))


def left(store, experiment):
    """The bytes of an experiment's tickets, and its records without their times."""
    tickets = {p.name: p.read_bytes() for p in sorted((Path(store) / experiment.hash).glob("*.safetensors"))}
    return tickets, [{k: v for k, v in r.items() if k not in TIMES} for r in read_records(experiment, store)]


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_goes_the_whole_way(make, tmp_path, toy):
    experiment = make(toy)
    planned = cc.plan(experiment, tmp_path / "here", device="cpu")
    assert planned.rounds[1] >= 2 and planned.seconds[0] > 0
    frame = cc.run(experiment, tmp_path / "here", device="cpu")
    cc.study([experiment, make(toy, seed=1)], tmp_path / "workers", device="cpu", workers=2)
    assert left(tmp_path / "here", experiment) == left(tmp_path / "workers", experiment)
    killed = [sys.executable, "-c", "\n".join(line[4:] for line in KILLED.splitlines()), str(tmp_path / "killed")]
    killed += [json.dumps(experiment.model_dump(mode="json")), "17"]
    place = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLT_WORKERS": "1"}
    assert subprocess.run(killed, env=place).returncode == 9, "it was not killed"
    cc.run(experiment, tmp_path / "killed", device="cpu")
    assert left(tmp_path / "killed", experiment) == left(tmp_path / "here", experiment)
    assert cc.plan(experiment, tmp_path / "here", device="cpu").experiments == 0
    metric = "mse" if experiment.objective or experiment.scoring else "accuracy"
    table = cc.report.accuracy_table(frame, [0.5])
    assert len(table) == 1 and table[metric].notna().all()
    figure = cc.plots.accuracy_sparsity(table)
    assert metric.split()[0] in figure.axes[0].get_ylabel()
    line = figure.axes[0].lines[0].get_ydata()
    assert line == pytest.approx(frame.loc[frame["kind"] == "score", metric])


def test_a_toy_method_yields_whole_filters_and_goes_on_with_its_own_masks(make, tmp_path):
    experiment = make("a method", scores=None)
    rounds = list(cc.rounds(experiment, tmp_path, device="cpu"))
    followed = list(cc.rounds(experiment.reference(), tmp_path, device="cpu"))
    assert experiment.reference().method == "imp" and len(rounds) == len(followed)
    for found, other in zip(rounds[1:], followed[1:], strict=True):
        assert all(set(m.flatten(1).float().mean(1).tolist()) <= {0.0, 1.0} for m in found.ticket.mask.values())
        assert cc.masks.density(found.own) == pytest.approx(other.density, abs=1e-3)
        assert found.density != pytest.approx(other.density, abs=1e-3)
    for earlier, later in zip(rounds[1:], rounds[2:], strict=False):
        assert cc.masks.count(cc.masks.difference(later.own, earlier.own)) == 0
    (tmp_path / experiment.hash / "complete").unlink()
    (tmp_path / experiment.hash / f"round-{len(rounds) - 1:02d}.safetensors").unlink()
    path = tmp_path / experiment.hash / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    again = list(cc.rounds(experiment, tmp_path, device="cpu"))
    assert [r.ticket.hash for r in again] == [r.ticket.hash for r in rounds], "a resumed run goes on with its own mask"


def test_the_record_of_a_toy_method_is_what_figures_and_tables_ask(make, tmp_path):
    experiment = make("a method")
    assert experiment.options == {"least": 12} and make("a method", least=1).options == {}
    assert cc.plots.arm_name("toys:FILTERS (least 12)") == "whole filters (least 12)"
    frame = cc.run(experiment, tmp_path, device="cpu")
    assert settings_in(frame.iloc[0])["least"] == 12
    assert {"experiment", "options"} <= set(frame) and cc.report.reach(frame, [0.5])["rounds"].notna().all()


def test_an_objective_is_part_of_what_is_found_and_scoring_is_not(make):
    plain, other = make("a network"), make("a network", objective="toys:SquaredError")
    assert plain.hash != other.hash != make("a network", objective={"name": "toys:SquaredError", "scale": 3}).hash
    assert make("a network", objective="cross-entropy").hash == plain.hash
    assert make("a network", scoring={"head": "own"}).hash == plain.hash


def test_another_way_of_scoring_stands_beside_the_plain_one_and_is_told_to_who_asks_for_it(make, tmp_path):
    both = [make("a network"), make("a network", scoring={"objective": "toys:SquaredError"})]
    told = lambda frame: sorted(frame[frame["kind"] == "score"].get("scored_by", pd.Series([None])).fillna("as found"))
    for experiment, way in zip(both, ("as found", "toys:SquaredError"), strict=True):
        assert told(cc.run(experiment, tmp_path, device="cpu")) == [way]
    assert told(pd.DataFrame(read_records(both[0], tmp_path))) == ["as found", "toys:SquaredError"], "both are kept"
    for experiment, way in zip(both, ("as found", "toys:SquaredError"), strict=True):
        assert told(cc.study([experiment], tmp_path, device="cpu", workers=1)) == [way], "not what others scored"
    assert told(cc.study(both, tmp_path, device="cpu", workers=1)) == ["as found", "toys:SquaredError"]


def test_the_objective_of_a_worker_has_its_settings(few, recipe):
    networks = [cc.build("toys:headless", 10, seed=0) for _ in range(4)]
    parts = cc.partition(few.train, 2, "random")
    from colt_core.compute.copies import train_side_by_side
    from colt_core.training import Training

    trainings = [Training(part, recipe, seed=i, objective=SquaredError(0.5)) for i, part in enumerate(parts)]
    beside = train_side_by_side(networks[:2], trainings, workers=2, device="cpu")
    here = train_side_by_side(networks[2:], trainings, workers=1, device="cpu")
    for one, other in zip(beside, here, strict=True):
        assert one.history.epochs == other.history.epochs and "mse" in one.history.epochs[0]
        weights = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)


def test_the_best_epoch_of_a_metric_that_falls_is_its_lowest(few, recipe):
    history = cc.train(
        cc.build("toys:headless"), few.train, recipe.changed(epochs=4, schedule="constant", learning_rate=0.05),
        validation=few.validation, objective=SquaredError(),
    )  # fmt: skip
    values = [epoch["validation_mse"] for epoch in history.epochs]
    assert history.best_epoch == values.index(min(values))


def test_a_network_without_a_head_says_so_in_one_line(make, few, recipe):
    network = cc.build("toys:headless", 10)
    assert cc.prunable(network) == ["body1.weight", "body2.weight"] and isinstance(network, Headless)
    with pytest.raises(ValueError, match="toys:headless has no head that could be made anew for 5 classes"):
        cc.with_head(network, 5)
    with pytest.raises(ValueError, match="the head has 10 outputs but the images have 5 classes"):
        cc.colt(network, cc.partition(few.train, 2), recipe, 0.4, 0.7, device="cpu")
    score = cc.evaluate(cc.Ticket.of(network), few, recipe, device="cpu")
    assert score.metric == "accuracy" and 0 <= score.accuracy <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "nowhere:M"}, "the method 'nowhere:M' cannot be imported: No module named 'nowhere'"),
        ({"method": "toys:headless"}, "toys:headless must be a Method, not a function"),
        ({"method": "toys:FILTERS", "most": 1}, "unknown key 'most'"),
        ({"method": "toys:FILTERS", "options": {"most": 1}}, "unknown key 'most'; allowed: least"),
        ({"method": "colt", "options": {"least": 1}}, "the method colt has no option 'least'"),
        ({"network": "toys:missing"}, "the network 'toys:missing' cannot be imported: toys has no missing"),
        (
            {"objective": "mse"},
            "unknown objective 'mse'; allowed: cross-entropy, kd, reconstruction, vae, adv",
        ),
        ({"objective": "toys:Headless"}, "toys:Headless must be a subclass of colt_core.Objective"),
        ({"objective": {"name": "toys:SquaredError", "size": 2}}, r"does not take the settings \['size'\]"),
        ({"objective": {"name": "toys:Forgetful", "scale": 2}}, r"is made with scale: its settings\(\) must tell them"),
        ({"scoring": {"head": "new"}}, "head"),
    ],
)
def test_a_mistake_in_a_name_is_one_clear_line(fields, message):
    with pytest.raises(ValueError, match=message) as told:
        cc.Experiment(**fields)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("toys:Colliding", "the objective's metric is called density, as a column of every record"),
        ("toys:Covering", r"others\(\) of the objective names seconds, a column of every record"),
    ],
)
def test_a_measure_does_not_cover_a_column_of_every_record(objective, message, folder, tmp_path):
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": {"epochs": 1}, "method": "dense"}
    with pytest.raises(ValueError, match=message):
        cc.run(cc.Experiment(**fields, objective=objective), tmp_path, "cpu")


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ({"loss": lambda right: right[0]}, r"loss\(\) of Odd gives a tensor \[\]; two are expected"),
        ({"loss": lambda right: (right[0].repeat(2), right[1])}, r"gives \(a tensor \[2\], a tensor \[\]\); two are"),
        ({"loss": lambda right: (right[0].item(), right[1])}, r"gives \(float, a tensor \[\]\); two are expected"),
        ({"score": lambda right: torch.ones(3)}, r"score\(\) of Odd gives a tensor \[3\]; a number is expected"),
        ({"score": lambda right: None}, r"score\(\) of Odd gives NoneType; a number is expected"),
        ({"others": lambda right: [1.0]}, r"others\(\) of Odd gives list; numbers by name are expected"),
        ({"others": lambda right: {"far": "3"}}, r"others\(\) of Odd, far, gives str; a number is expected"),
    ],
)
def test_what_an_objective_gives_that_is_no_number_is_one_clear_line(few, recipe, gives, message):
    with pytest.raises(ValueError, match=message) as told:
        cc.evaluate(cc.Ticket.of(cc.build("toys:headless", 10)), few, recipe, device="cpu", objective=odd(gives))
    assert "\n" not in str(told.value)


def test_tensors_and_numpys_numbers_are_numbers(few, recipe):
    gives = {
        "loss": lambda right: (right[0], float(right[1])),
        "score": torch.tensor,
        "others": lambda right: {"far": np.float32(2.5), "near": torch.tensor([0.5])},
    }
    network = cc.Ticket.of(cc.build("toys:headless", 10))
    odd_ones = cc.evaluate(network, few, recipe, device="cpu", objective=odd(gives))
    plain = cc.evaluate(network, few, recipe, device="cpu", objective=SquaredError())
    assert odd_ones.others == {"far": 2.5, "near": 0.5} and json.dumps(odd_ones.as_dict())
    assert odd_ones.value == pytest.approx(plain.value, rel=1e-6)
    assert odd_ones.curve[0]["mse"] == pytest.approx(plain.curve[0]["mse"], rel=1e-6)


def odd(gives):
    """Squared error; what it gives is changed by functions."""

    def changed(name):
        right = getattr(SquaredError, name)
        return lambda self, *given: gives.get(name, lambda value: value)(right(self, *given))

    return type("Odd", (SquaredError,), {name: changed(name) for name in ("loss", "score", "others")})()


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (lambda setting: None, "the method mine must give Rounds, one after another, not NoneType"),
        (lambda setting: [setting.network], "the method mine must give a Round each time; it gives Sequential"),
    ],
)
def test_a_method_that_gives_no_rounds_says_so_in_one_line(folder, tmp_path, monkeypatch, find, message):
    monkeypatch.setattr(toys, "MINE", cc.Method("mine", "mine", find, cc.Look("mine")), raising=False)
    fields = {"dataset": str(folder), "network": "conv3", "network_args": {"width": 4}, "recipe": {"epochs": 1}}
    with pytest.raises(ValueError, match=message):
        cc.run(cc.Experiment(**fields, method="toys:MINE", scores=None), tmp_path, "cpu")


def test_stored_scores_of_older_versions_stay_readable():
    score = cc.Score.from_dict({"accuracy": 0.5, "validation_accuracy": 0.4, "best_epoch": 1, "something": "new"})
    assert score.accuracy == score.value == 0.5 and score.best_accuracy is None and score.curve == []
    assert cc.Score.from_dict(score.as_dict()) == score and "metric" not in score.as_dict()
