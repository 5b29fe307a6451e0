import sys
from types import ModuleType, SimpleNamespace

import pytest

import colt_core as cc
from colt_core.publish import trackers
from colt_core.studies.records import read_records


@pytest.fixture
def experiment(folder):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=8)
    about = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.4, "scores": (0.4,)}
    return cc.Experiment(**about, recipe=recipe, seed=3)


class Run(SimpleNamespace):
    """A stand-in for the run of wandb and trackio."""

    def log(self, metrics, step=None):
        self.logged.append((step, metrics))

    def finish(self):
        self.finished = True


@pytest.fixture
def library(monkeypatch):
    """Put a stand-in where a tracker's library would be; return the list of the runs it was asked for."""
    runs = []

    def init(**about):
        runs.append(Run(about=about, logged=[], summary={}, finished=False))
        return runs[-1]

    for name in ("wandb", "trackio"):
        module = ModuleType(name)
        module.init = init
        monkeypatch.setitem(sys.modules, name, module)
    return runs


def test_tensorboard_reads_back_what_the_records_say(experiment, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with trackers.tensorboard(tmp_path / "logs") as tracker:
        cc.run(experiment, tmp_path / "store", callback=tracker)
    (folder,) = {path.parent for path in (tmp_path / "logs").rglob("events.*")}
    assert str(folder.relative_to(tmp_path / "logs")) == "pictures0/conv3/colt/seed 3"
    events = EventAccumulator(str(folder)).Reload()
    drawn = lambda name: {event.step: event.value for event in events.Scalars(name)}
    records = read_records(experiment, tmp_path / "store")
    rounds = [r for r in records if r["kind"] == "round"]
    (score,) = [r for r in records if r["kind"] == "score"]
    assert drawn("density") == pytest.approx({r["round"]: r["density"] for r in rounds})
    assert drawn("accuracy") == pytest.approx({score["round"]: score["accuracy"]})
    assert drawn("overlap/jaccard") == pytest.approx({r["round"]: r["overlap"]["jaccard"] for r in rounds[1:]})
    for i, curve in enumerate(rounds[1]["curves"]):
        assert list(drawn(f"round 01/copy {i}/loss").values()) == pytest.approx([epoch["loss"] for epoch in curve])
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert experiment.hash in text and "rate: `0.3`" in text


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_with_runs_gets_one_an_experiment_with_its_settings(experiment, tmp_path, library, name):
    with getattr(trackers, name)("colt", group="tests") as tracker:
        for one in (experiment, experiment.changed(method="dense")):
            cc.run(one, tmp_path, callback=tracker)
        assert [run.finished for run in library] == [True, False]
    assert [run.about["name"] for run in library] == [f"pictures0/conv3/{m}/seed 3" for m in ("colt", "dense")]
    assert all(run.about["project"] == "colt" and run.about["group"] == "tests" and run.finished for run in library)
    assert library[0].about["config"]["experiment"] == experiment.hash and library[0].about["config"]["rate"] == 0.3
    records = read_records(experiment, tmp_path)
    steps = [step for step, _ in library[0].logged]
    assert steps == [r["round"] for r in records] == sorted(steps)
    last = library[0].logged[-1][1]
    assert last["accuracy"] == records[-1]["accuracy"] and last["image_epochs"] == records[-1]["image_epochs"]
    first = next(metrics for step, metrics in library[0].logged if step == 1)
    assert first["copy 1/loss"] == records[1]["curves"][1][-1]["loss"]
    assert first["overlap/chance"] == records[1]["overlap"]["chance"]


def test_what_was_scored_on_other_data_is_named_after_it():
    record = {"dataset": "/somewhere/me/pictures", "scored_on": "cifar10:0-1", "accuracy": 0.5, "density": 0.1}
    assert trackers.scalars(record) == {"accuracy on cifar10:0-1": 0.5, "density": 0.1}
    assert trackers.scalars(record | {"scored_on": "/somewhere/me/pictures"}) == {"accuracy": 0.5, "density": 0.1}


@pytest.mark.parametrize(
    ("make", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_a_missing_library_is_one_clear_line(make, module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"pip install {make}$") as caught:
        getattr(trackers, make)(str(tmp_path))
    assert "\n" not in str(caught.value)
