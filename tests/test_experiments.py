import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

import colt_core as cc
from colt_core import methods
from colt_core.studies import scoring
from colt_core.studies.experiment import Experiment
from colt_core.studies.records import read_records
from colt_core.studies.study import Study


@pytest.fixture
def make(folder):
    """Experiments of seconds: a folder of 36 pictures, a narrow conv3, one epoch."""
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.4, "target": 0.6, "scores": (0.5,)}
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    return lambda **fields: Experiment(**(base | {"recipe": recipe} | fields))


def files(store, experiment):
    """The bytes of an experiment's tickets and its records without their times."""
    folder = store / experiment.hash
    records = [
        {k: v for k, v in r.items() if k not in ("seconds", "score_seconds")} for r in read_records(experiment, store)
    ]
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}, records


# --- the description ---


def test_the_hash_names_what_is_found_and_not_what_is_measured():
    one = Experiment()
    assert one.hash == Experiment(dataset="cifar10-mini").hash == Experiment(recipe=cc.Recipe.named("mini")).hash
    assert one.hash == one.changed(scores=(0.9,), score_on="cifar10").hash
    others = [
        one.changed(**c) for c in ({"seed": 1}, {"rate": 0.2}, {"parts": 3}, {"method": "union"}, {"by": "random"})
    ]
    assert len({one.hash, *(e.hash for e in others)}) == 6
    assert one.hash != one.changed(recipe=one.recipe.changed(epochs=3)).hash


def test_rates_default_to_the_methods_own():
    assert Experiment().rate == Experiment(method="matched").rate == 0.15 and Experiment(method="imp").rate == 0.2
    assert Experiment(method="matched").reference().hash == Experiment(method="colt").hash


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "mnist"}, "unknown data set 'mnist'; allowed: cifar10-mini"),
        ({"network": "vgg16"}, "unknown network 'vgg16'; allowed: conv3"),
        ({"method": "magic"}, "unknown method 'magic'; allowed: dense, colt, imp"),
        ({"method": "clot"}, "or package.module:NAME; did you mean 'colt'\\?$"),
        ({"dataset": "cifar11"}, "did you mean 'cifar10'\\?$"),
        ({"network": "conv4"}, "did you mean 'conv3'\\?$"),
        ({"epochs": 3, "sed": 1}, "did you mean 'seed'\\?"),
        ({"recipe": "best"}, "unknown recipe 'best'; allowed: official"),
        ({"rate": 1.0}, "rate must lie strictly between 0 and 1"),
        ({"target": 0}, "target must lie strictly between 0 and 1"),
        ({"sparsity": 0.9}, "unknown key 'sparsity'; allowed: dataset, parts"),
        ({"parts": 0}, "parts"),
        ({"by": "colour"}, "unknown by 'colour'; allowed: class, random"),
        ({"scores": [1.5]}, "scores must lie"),
    ],
)
def test_bad_descriptions_are_one_clear_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Experiment(**fields)
    assert "\n" not in str(caught.value)


def test_what_only_the_data_can_tell_is_refused_before_any_training(make, tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    with pytest.raises(ValueError, match="parts must be at most 3, the number of classes, not 4"):
        cc.run(make(parts=4), tmp_path)
    with pytest.raises(ValueError, match="cannot be reached"):
        cc.run(make(target=0.99999), tmp_path)
    with pytest.raises(ValueError, match="conv3 does not take the arguments"):
        cc.run(make(network_args={"depth": 3}), tmp_path)
    with pytest.raises(ValueError, match=r"rewind must lie in 0\.\.\d+, the recipe's steps, not 999"):
        cc.run(make(rewind=999), tmp_path)
    assert not list(tmp_path.iterdir())


# --- run ---


def test_records_have_what_tables_need(make, tmp_path):
    frame = cc.run(make(), tmp_path)
    named = ["dataset", "network", "method", "seed", "round", "density", "density_all", "accuracy", "train_images"]
    assert {*named, "image_epochs", "seconds", "device", "threads"} <= set(frame.columns)
    rounds, scores = frame[frame["kind"] == "round"], frame[frame["kind"] == "score"]
    assert rounds["round"].tolist() == list(range(len(rounds))) and rounds["density"].is_monotonic_decreasing
    assert len(scores) == 1 and scores["accuracy"].between(0, 1).all() and 1 - scores["density"].iloc[0] >= 0.5


SPLIT = {"soup": "random", "crossfit": "random"}  # these need copies with one head
SHORT = {"dual": {"options": {"steps": 120}}}  # of 1,500; fewer would not bring a weight to zero


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_runs_resumes_by_round_and_ends_with_the_same_bytes(make, tmp_path, method):
    experiment = make(method=method, by=SPLIT.get(method, "class"), **SHORT.get(method, {}))
    cc.run(experiment, tmp_path / "whole")
    whole = files(tmp_path / "whole", experiment)
    last = max(r["round"] for r in whole[1])
    finder = cc.rounds(experiment, tmp_path / "pieces")
    for _ in range(min(2, last + 1)):
        next(finder)
    finder.close()
    cc.run(experiment, tmp_path / "pieces")
    pieces = files(tmp_path / "pieces", experiment)
    assert whole[0] == pieces[0] and len(whole[0]) == last + 1
    key = lambda r: (r["kind"], r["round"])
    assert sorted(whole[1], key=key) == sorted(pieces[1], key=key)


def test_what_is_there_is_not_computed_again(make, tmp_path, monkeypatch):
    first = cc.run(make(), tmp_path)
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    assert cc.run(make(), tmp_path).equals(first)
    assert [r.number for r in cc.rounds(make(), tmp_path)] == sorted(first[first["kind"] == "round"]["round"])


def test_more_scores_are_added_without_finding_again(make, tmp_path, monkeypatch):
    cc.run(make(), tmp_path)
    monkeypatch.setattr("colt_core.methods.cycles.train_side_by_side", lambda *_, **__: pytest.fail("found again"))
    frame = cc.run(make(scores=()), tmp_path)
    assert frame[frame["kind"] == "score"]["round"].nunique() == frame["round"].nunique()


def test_a_score_is_looked_up_by_content(make, tmp_path, monkeypatch):
    """The dense tickets of two methods are one ticket: scored once."""
    cc.run(make(method="dense", scores=()), tmp_path)
    calls = []
    monkeypatch.setattr(scoring, "evaluate", lambda ticket, *_: calls.append(ticket.density) or pytest.fail("again"))
    cc.run(make(method="dense", target=0.6, scores=()), tmp_path)
    assert not calls


def test_a_score_says_what_finding_cost_and_what_scoring_cost(make, tmp_path):
    frame = cc.run(make(), tmp_path)
    score = frame[frame["kind"] == "score"].iloc[0]
    found = frame[(frame["kind"] == "round") & (frame["round"] == score["round"])].iloc[0]
    assert score["image_epochs"] == found["image_epochs"] and score["flops"] == found["flops"]
    assert score["score_image_epochs"] == score["train_images"]  # one epoch


def test_work_done_twice_counts_once(make, tmp_path):
    experiment = make()
    once = cc.run(experiment, tmp_path)
    path = tmp_path / experiment.hash / "records.jsonl"
    path.write_text("".join(line + line for line in path.read_text().splitlines(keepends=True)))
    assert cc.run(experiment, tmp_path).equals(once)
    assert cc.run(make(method="matched"), tmp_path)["round"].max() == once["round"].max()


def test_records_are_json_even_where_a_statistic_is_undefined(make, tmp_path):
    experiment = make(scope="layer", rate=0.001, target=0.001, scores=None)
    cc.run(experiment, tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (tmp_path / experiment.hash / "records.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_an_unknown_kind_of_store_is_refused_in_one_line(make):
    with pytest.raises(ValueError, match=r"the store \S+test_experiments.py is a file, and a folder is needed"):
        cc.study([make(), make(seed=1)], __file__)
    with pytest.raises(ValueError, match="the store 'nowhere://bucket/x' cannot be opened") as caught:
        cc.run(make(), "nowhere://bucket/x")
    assert "\n" not in str(caught.value)


def test_a_torn_last_line_is_left_out_and_mended(make, tmp_path):
    experiment = make()
    cc.run(experiment, tmp_path)
    whole = files(tmp_path, experiment)
    path = tmp_path / experiment.hash / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / experiment.hash / "complete").unlink()
    path.write_text("".join(lines[:2]) + lines[2][:40])
    assert len(read_records(experiment, tmp_path)) == 2
    cc.run(experiment, tmp_path)
    assert files(tmp_path, experiment) == whole
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_round_is_refused_and_named(make, tmp_path):
    experiment = make()
    cc.run(experiment, tmp_path)
    path = tmp_path / experiment.hash / "round-01.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"round-01\.safetensors is no ticket or is truncated"):
        list(cc.rounds(experiment, tmp_path))


def test_a_record_that_is_missing_or_altered_is_named(make, tmp_path):
    experiment = make(scores=())
    path = tmp_path / experiment.hash / "records.jsonl"
    cc.run(experiment, tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    damages = {
        "lacks the record of round 1": lines[:2] + [line for line in lines[2:] if b'"round": 1,' not in line],
        "line 2, has been altered": [lines[0], lines[1].replace(b'"seed": 0', b'"seed": 1'), *lines[2:]],
        "line 3, is no record": [*lines[:2], b"[1, 2]\n", *lines[2:]],
        "line 1, is no record": [b'{"kind": "round", "round": "0"}\n', *lines],
        "is marked complete, but 0 of its rounds have records": [],
        "is marked complete, but 2 of its rounds have records": lines[:4],
    }
    for message, damaged in damages.items():
        path.write_bytes(b"".join(damaged))
        for use in (lambda: cc.run(experiment, tmp_path), lambda: cc.study([experiment], tmp_path)):
            with pytest.raises(ValueError, match=message) as caught:
                use()
            assert experiment.hash in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(b"".join(lines))
    cc.run(experiment, tmp_path)


def test_one_damaged_run_does_not_block_the_tables_of_the_others(make, tmp_path):
    jobs = [make(method="dense"), make(method="dense", seed=1)]
    cc.study(jobs, tmp_path)
    path = tmp_path / jobs[0].hash / "records.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.warns(UserWarning, match=f"{jobs[0].hash}.*line 1, is no record"):
        frame = cc.report.load(tmp_path)
    assert set(frame["experiment"]) == {jobs[1].hash}


def test_a_ticket_that_is_another_rounds_or_another_runs_is_refused(make, tmp_path):
    one, other = make(scores=None), make(scores=None, seed=1)
    for job in (one, other):
        cc.run(job, tmp_path)
    file = lambda job, number: tmp_path / job.hash / f"round-{number:02d}.safetensors"
    whole = file(one, 2).read_bytes()
    for foreign in (file(one, 1), file(other, 2)):
        file(one, 2).write_bytes(foreign.read_bytes())
        with pytest.raises(ValueError, match=r"round-02\.safetensors holds another ticket than round 2 found"):
            list(cc.rounds(one, tmp_path))
    file(one, 2).write_bytes(whole)
    found = list(cc.rounds(one, tmp_path))
    orphan = replace(found[2], ticket=found[2].ticket.derived(mask=found[1].ticket.mask, parent="0" * 64))
    orphan.save(file(one, 2))
    with pytest.raises(ValueError, match="holds another ticket"):
        list(cc.rounds(one, tmp_path))


def test_a_run_whose_files_go_meanwhile_is_not_marked_complete(make, tmp_path):
    experiment = make(scores=None)
    finder = cc.rounds(experiment, tmp_path)
    next(finder), next(finder)
    (tmp_path / experiment.hash / "round-00.safetensors").unlink()
    with pytest.raises(ValueError, match=r"round-00\.safetensors was removed or replaced during the run"):
        list(finder)
    shutil.rmtree(tmp_path / experiment.hash)
    finder = cc.rounds(experiment, tmp_path)
    next(finder), next(finder)
    shutil.rmtree(tmp_path / experiment.hash)
    with pytest.raises(ValueError, match=r"records.jsonl lacks the record of round 0"):
        list(finder)
    assert not (tmp_path / experiment.hash / "complete").exists()


def test_a_description_without_its_data_is_named(make, tmp_path):
    experiment = make(method="dense")
    cc.run(experiment, tmp_path)
    path = tmp_path / experiment.hash / "experiment.json"
    about = json.loads(path.read_text())
    del about["data"]
    for text in (json.dumps(about), "", "[]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"experiment\.json does not say which data the run began with"):
            cc.run(experiment, tmp_path)


def test_a_damaged_score_is_taken_again_and_is_the_same(make, tmp_path):
    experiment = make(method="dense", scores=(0.5,))  # stands beside every sparsity
    assert experiment == make(method="dense", scores=())
    before = cc.run(experiment, tmp_path).iloc[-1]["accuracy"]
    [path] = (tmp_path / "scores").glob("*.json")
    whole = json.loads(path.read_text())
    for text in ("", "[]", "{", json.dumps(whole | {"accuracy": 0.99})):
        path.write_text(text)
        (tmp_path / experiment.hash / "records.jsonl").unlink()
        (tmp_path / experiment.hash / "complete").unlink()
        assert cc.run(experiment, tmp_path).iloc[-1]["accuracy"] == before
    assert json.loads(path.read_text())["accuracy"] == before


def test_data_that_changed_under_a_run_is_noticed(make, tmp_path, folder):
    shutil.copytree(folder, tmp_path / "pictures")
    experiment = make(dataset=str(tmp_path / "pictures"))
    finder = cc.rounds(experiment, tmp_path / "store")
    next(finder)
    finder.close()
    shutil.copy(folder / "ant" / "00.png", tmp_path / "pictures" / "bee" / "99.png")
    with pytest.raises(ValueError, match="has changed since"):
        cc.run(experiment, tmp_path / "store")


@pytest.mark.parametrize("own", [True, False])
def test_data_that_changes_between_two_scores_is_noticed(make, tmp_path, folder, own):
    """In the same process, whether it is what was trained on or another folder that tickets are scored on."""
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    experiment = make(scores=(), **({"dataset": str(pictures)} if own else {"score_on": str(pictures)}))

    def change(record):
        if record["kind"] == "score":
            shutil.copy(folder / "ant" / "00.png", pictures / "bee" / "99.png")

    with pytest.raises(ValueError, match="'.*pictures' has changed since"):
        cc.run(experiment, tmp_path / "store", callback=change)
    with pytest.raises(ValueError, match="'.*pictures' has changed since"):
        cc.study([experiment], tmp_path / "store")


def test_a_study_whose_data_changed_between_two_runs_is_refused(make, tmp_path, folder):
    """One table would hold old and new pictures."""
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    jobs = [make(dataset=str(pictures), method="dense", seed=seed) for seed in (0, 1)]
    cc.study(jobs[:1], tmp_path / "store")
    shutil.copy(folder / "ant" / "00.png", pictures / "bee" / "99.png")
    with pytest.raises(ValueError, match="has changed since"):
        cc.study(jobs, tmp_path / "store")


def test_an_unwritable_store_is_one_clear_line_before_any_training(make, tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as caught:
        cc.run(make(), tmp_path / "file" / "store")
    assert "\n" not in str(caught.value)


def test_controls_follow_the_colt_run_of_their_settings(make, tmp_path):
    frame = cc.study([make(method=m) for m in ("random", "matched")], tmp_path, workers=1)
    colt = {r.number: r for r in cc.rounds(make(), tmp_path)}
    assert (tmp_path / make().hash / "complete").exists()
    for row in frame[frame["kind"] == "round"].itertuples():
        assert row.density == colt[row.round].density


def test_transfer_scores_on_the_other_data(make, tmp_path):
    frame = cc.run(make(score_on="cifar10-mini:0-1"), tmp_path)
    score = frame[frame["kind"] == "score"].iloc[0]
    assert score["scored_on"] == "cifar10-mini:0-1" and score["test_images"] == 400 and score["chance"] == 0.5


@pytest.fixture
def on_test_set(few, monkeypatch):
    """Call it with a test set: from then on "cifar10-mini" is a few images, with that test set."""

    train = few.train.take(torch.arange(0, len(few.train), 3))

    def put(images):
        monkeypatch.setattr(cc.data, "load", lambda name: replace(few, train=train, test=images))
        monkeypatch.setattr(cc.data, "stamp", lambda name: f"{name} {id(images)}")

    return put


def test_the_test_set_touches_no_ticket_of_any_method_and_only_the_test_scores(make, few, on_test_set, tmp_path):
    """The same test images as negatives, their labels shifted: all tickets are the same, byte for byte."""
    recipe = make().recipe.changed(batch_size=24)
    jobs = [
        make(
            dataset="cifar10-mini",
            method=name,
            by=SPLIT.get(name, "class"),
            **SHORT.get(name, {}),
            recipe=recipe.changed(epochs=2) if name == "soup" else recipe,  # a step that is shared, and one that is not
        )
        for name in methods.METHODS
    ]
    jobs += [make(dataset="cifar10-mini", recipe=recipe.changed(epochs=3), early_bird={"delta": 0.9, "window": 1})]
    negatives = replace(few.test, pixels=255 - few.test.images, rows=None, labels=(few.test.labels + 1) % 10)
    for place, images in (("one", few.test), ("other", negatives)):
        on_test_set(images)
        cc.study(jobs, tmp_path / place, workers=1)
    tested, seen = ("accuracy", "best_accuracy", "score_data"), []
    for job in jobs:
        (tickets, records), (others, changed) = (files(tmp_path / place, job) for place in ("one", "other"))
        assert tickets == others and tickets
        for one, other in zip(records, changed, strict=True):
            assert {k: v for k, v in one.items() if k not in tested} == {
                k: v for k, v in other.items() if k not in tested
            }
            seen += [(one["accuracy"], other["accuracy"])] if one["kind"] == "score" else []
    assert len(seen) == len(jobs) and any(one != other for one, other in seen)


# --- worker processes ---


def test_worker_processes_give_the_same_bytes_as_this_one(make, tmp_path):
    jobs = [make(method=m, seed=s) for s in (0, 1) for m in ("colt", "matched", "dense")]
    cc.study(jobs, tmp_path / "one", workers=1)
    cc.study(jobs, tmp_path / "two", workers=2, progress=False)
    for job in jobs:
        assert files(tmp_path / "one", job) == files(tmp_path / "two", job)


def test_who_takes_a_dead_workers_place_is_ended_with_the_others(make, tmp_path, monkeypatch):
    from colt_core.studies import queue as queues

    class Fake:
        def __init__(self, ended=None):
            self.process = SimpleNamespace(poll=lambda: ended)

        def call(self, *_, **__):
            return iter(())

    monkeypatch.setattr(queues, "Worker", Fake)
    workers, store, done = [Fake(ended=-9)], cc.compute.store.open_store(tmp_path), []
    queue = queues._Queue([make(seed=seed) for seed in (1, 2)], store)
    queues._feed(queue, workers[0], workers, store, "cpu", done.append)
    assert len(done) == 2 and len(workers) == 2, "an interrupt ends all that are in this list"


def test_a_score_that_diverges_on_one_data_set_is_taken_on_another(make, tmp_path, monkeypatch):
    """They share a folder: what is scored is no part of the hash."""
    away, home = make(method="dense", scores=(), score_on="cifar10-mini:0-2"), make(method="dense", scores=())
    real = scoring.evaluate

    def evaluate(ticket, data, *more, **how):
        if data.name != home.dataset:
            raise FloatingPointError("training diverged in epoch 0")
        return real(ticket, data, *more, **how)

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    cc.study([away], tmp_path, workers=1)
    assert list(cc.status([away, home], tmp_path)["state"]) == ["failed", "begun"]
    frame = cc.study([away, home], tmp_path, workers=1)
    assert set(frame[frame["kind"] == "score"]["scored_on"]) == {home.dataset}
    assert list(cc.status([away, home], tmp_path)["state"]) == ["failed", "done"]
    own = cc.run(home, tmp_path)
    assert "failed" not in set(own["kind"]), "what another way of scoring came to is none of this one's"
    assert "failed" in set(cc.study([away], tmp_path, workers=1)["kind"])


def test_a_file_in_the_way_of_another_store_does_not_matter(make, tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLT_STORE", raising=False)
    assert len(cc.run(make(method="dense"), tmp_path / "own", device="cpu"))


def test_a_batch_of_one_image_that_only_scoring_has_is_refused_before_any_training(make, tmp_path, few, monkeypatch):
    """Two partitions of even sizes; the other data set, on which tickets are scored, has an odd number of images."""
    odd = replace(few, train=few.train.take(torch.arange(61)))
    monkeypatch.setattr(cc.data, "load", lambda name: odd if name == "cifar10" else few)
    monkeypatch.setattr(cc.data, "stamp", lambda name: f"{name}, made odd")  # what is kept under it is nobody else's
    fields = {"dataset": "cifar10-mini", "network": "toys:pooled", "network_args": {}}
    job = make(**fields, score_on="cifar10", recipe=make().recipe.changed(batch_size=2), target=0.3)
    with pytest.raises(ValueError, match="61 images at batch_size 2 leave a batch of one image"):
        cc.study([job], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_ends_one_experiment_alone_and_is_named_at_the_end(make, tmp_path, workers):
    jobs = [make(objective="toys:Broken", seed=s) for s in (1, 2)] + [make(method="dense")]
    with pytest.raises(RuntimeError) as caught:
        cc.study(jobs, tmp_path, workers=workers)
    message = str(caught.value)
    assert message.startswith("2 of 3 experiments failed: colt on ") and "\n" not in message
    assert message.count("ArithmeticError: the loss cannot be computed") == 2 and "seed 1" in message
    assert (tmp_path / jobs[2].hash / "complete").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_that_diverges_is_part_of_the_study_and_is_not_tried_again(make, tmp_path, workers, monkeypatch):
    wild = make().recipe.changed(optimizer="sgd", learning_rate=1e30, warmup=0)
    jobs = [make(recipe=wild), make(recipe=wild, method="matched"), make(method="dense", scores=())]
    frame = cc.study(jobs, tmp_path, workers=workers)
    failed = frame[frame["kind"] == "failed"].set_index("experiment")["problem"]
    assert set(failed.index) == {job.hash for job in jobs[:2]}
    assert failed.str.startswith("training diverged in epoch 0: the loss is ").all()
    assert set(frame[frame["kind"] == "score"]["experiment"]) == {jobs[2].hash}
    assert list(cc.status(jobs, tmp_path)["state"]) == ["failed", "failed", "done"]
    again = lambda jobs, *_: pytest.fail("it was tried again") if jobs else iter(())
    monkeypatch.setattr("colt_core.studies.study.work_off", again)
    assert len(cc.study(jobs, tmp_path)) == len(frame) and not cc.plan(jobs, tmp_path).experiments
    monkeypatch.undo()
    with pytest.raises(FloatingPointError, match="training diverged"):
        cc.run(jobs[0], tmp_path)
    assert len(cc.study(jobs, tmp_path)) == len(frame), "the failure is told once"


def test_a_mistake_in_one_experiment_of_a_study_is_found_before_any_training(make, tmp_path):
    with pytest.raises(ValueError, match="parts must be at most 3"):
        cc.study([make(), make(parts=9, seed=1)], tmp_path)
    for call in (cc.study, cc.plan, cc.status):
        with pytest.raises(ValueError, match=r"experiments are taken, or a Study, not 'mini'; .*named\('mini'\)"):
            call("mini", tmp_path)
    assert not list(tmp_path.iterdir())
    world = cc.Study.named("world")
    every = [e.hash for one in world.each() for e in one.experiments() + (one.transfers() if one.transfer else [])]
    assert cc.status(world, tmp_path)["experiment"].tolist() == every and len(every) > len(world.experiments())


def test_a_worker_that_dies_ends_the_study_instead_of_hanging_it(make, tmp_path, monkeypatch):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nread line; printf '{\"done\": tr'\n")
    dying.chmod(0o755)
    monkeypatch.setattr("colt_core.compute.pool.sys.executable", str(dying))
    with pytest.raises(RuntimeError, match="the worker process died"):
        cc.study([make(method=m) for m in ("colt", "random", "matched")], tmp_path / "store", workers=2)


# --- presets ---


@pytest.mark.parametrize("name", ["mini", "small", "world", "paper"])
def test_ready_studies_are_valid_and_say_what_they_are(name):
    study = Study.named(name)
    assert {"dense", "colt", "imp", "matched", "random"} <= set(study.methods) and len(study.seeds) >= 3
    sets = len(study.grid.get("dataset", [0]))
    assert study.title and len(study.experiments()) == sets * len(study.methods) * len(study.seeds)
    assert study.experiment("imp").rate == 0.2


def test_the_mini_preset_keeps_its_budget():
    """About 1.2 million training-image passes, by arithmetic, with COLT's masks independent."""
    study, images = Study.named("mini"), 2700
    imp, colt = study.experiment("imp"), study.experiment("colt")
    import math

    rounds = lambda keep: math.ceil(math.log(1 - imp.target) / math.log(keep))
    found = rounds(1 - imp.rate) + 2 * rounds((1 - colt.rate) ** 2)
    scored = 1 + len(colt.scores) * 4
    passes = len(study.seeds) * (found + scored) * colt.recipe.epochs * images
    assert passes < 1_000_000  # the rest is for the transfer notebook


def test_a_preset_can_be_put_on_other_data(folder):
    study = Study.named("mini", str(folder))
    assert study.dataset == str(folder)
    with pytest.raises(ValueError, match="has 3 classes; to be split in two halves it needs four"):
        study.transfers()
    four = Study.named("mini", "cifar10-mini:2-5")
    assert four.carried_among() == ("cifar10-mini:2,3", "cifar10-mini:4,5")
    assert {e.dataset for e in four.transfers()} == {"cifar10-mini:2,3", "cifar10-mini:4,5"}


def test_the_transfer_matrix_has_every_direction_with_its_controls():
    study = Study.named("world")
    names, found = ["cifar10", "cifar100", "tinyimagenet"], study.transfers([0])
    for method in ("colt", "random", "reinit"):
        pairs = {(e.dataset, e.score_on or e.dataset) for e in found if e.method == method}
        assert pairs == {(source, target) for source in names for target in names}
    assert sorted(e.dataset for e in found if e.method == "dense") == names
    assert len(found) == 3 * 9 + 3 and {e.seed for e in study.transfers()} == {0, 1, 2}
    carried = {e.hash for e in found if e.method == "colt"}
    assert {e.reference().hash for e in found if e.method in ("random", "reinit")} == carried
    slower = study.changed(methods=study.methods | {"colt": {"rate": 0.2}}).transfers([0])
    assert {e.rate for e in slower if e.method != "dense"} == {0.2}, "the controls follow the tickets carried"
    own = [e.hash for e in study.experiments([0])]
    assert all(e.hash in own for e in found), "what the study finds anyway is not found again for the transfers"


def test_a_study_of_pieces_is_run_in_their_order(tmp_path):
    pieces = [{"name": "first", "seeds": [0]}, {"name": "second", "base": {"parts": 5}, "methods": {"colt": {}}}]
    content = {"title": "t", "base": {"rate": 0.3}, "methods": {"colt": {}, "dense": {}}, "seeds": [0, 1]}
    path = tmp_path / "pieces.json"
    path.write_text(json.dumps(content | {"pieces": pieces}))
    first, second = Study.named(str(path)).each()
    assert first.name == "pieces/first" and [(e.method, e.seed) for e in first.experiments()] == [
        ("colt", 0),
        ("dense", 0),
    ]
    assert [(e.method, e.seed, e.parts, e.rate) for e in second.experiments()] == [
        ("colt", 0, 5, 0.3),
        ("colt", 1, 5, 0.3),
    ]
    assert [piece.name for piece in Study.named("mini").each()] == ["mini"]


def test_the_paper_study_asks_what_a_gpu_is_to_answer_in_order():
    pieces = Study.named("paper").each()
    networks = [piece.base["network"] for piece in pieces]
    assert networks == ["conv3", "resnet18", "mobilenetv2", "resnet18", "resnet18", "mobilenetv2"]
    full = [piece for piece in pieces if piece.name.split("/")[1] in ("conv3", "resnet18", "mobilenetv2")]
    for piece in full:
        assert {"colt", "imp", "matched", "union", "random"} <= set(piece.methods) and len(piece.seeds) == 3
        assert all(e.scores == () and e.recipe.epochs == 50 for e in piece.experiments())
        assert {e.dataset for e in piece.experiments()} == {"cifar10", "cifar100"}
    short = pieces[1].experiment("colt")
    assert short.recipe.epochs == 20 and len(short.scores) == 5
    moved = [e for piece in pieces for e in (piece.transfers() if piece.transfer else [])]
    assert any((e.dataset, e.score_on, e.network) == ("tinyimagenet", "cifar10", "resnet18") for e in moved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title: [", "is no YAML"),
        ("just words", "holds no study"),
        ("title: t\nbase: {dataset: mnist}\nmethods: {colt: {}}", "unknown data set 'mnist'"),
        ("title: t\nbase: {}\nmethods: {magic: {}}", "unknown method 'magic'"),
        ("title: t\nbase: {speed: 3}\nmethods: {colt: {}}", "unknown key 'speed'"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\nsedes: [0]", "unknown key 'sedes'"),
        ("title: t\nbase: [1]\nmethods: {colt: {}}", "base"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\ntransfer: {source: x}", "unknown key 'source'; allowed: among"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\ntransfer: {among: [x]}", "at least two different data sets, not x"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\npieces: [{base: {}}]", "every piece needs a name of its own"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\npieces: [{name: a, base: {speed: 1}}]", "unknown key 'speed'"),
        ("title: t\nbase: {}\nmethods: {}", "at least one is needed"),
        ("title: t\nbase: {}\nmethods: {colt: {pooling: mean}}", "pooling belongs to the method consensus alone"),
        (
            "title: t\nbase: {}\nmethods: {colt: {source: imp}}",
            "source belongs to the methods .*elastic.*refill.* alone, not",
        ),
        ("title: t\nbase: {}\nmethods: {consensus: {pooling: median}}", "pooling"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\nseeds: []", "seeds"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\nseeds: [-1]", "seed"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\ngrid: {colour: [1]}", "unknown key 'colour'"),
        (
            "title: t\nbase: {}\nmethods: {colt: {}}\ngrid: {seed: [1]}",
            "'seed'; seeds stand beside the grid; allowed: d",
        ),
        ("title: t\nbase: {}\nmethods: {colt: {}}\ngrid: {parts: []}", "parts has no values"),
        ("title: t\nbase: {}\nmethods: {colt: {}}\ngrid: {rate: [0.2, 2]}", "rate must lie strictly"),
        ("title: t\nbase: {recipe: {epochs: 0}}\nmethods: {colt: {}}", "epochs"),
        ("title: t\nmethods: {colt: {}}", "base"),
    ],
)
def test_a_study_file_with_a_mistake_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Study.named(str(path))
    assert "\n" not in str(caught.value)


def test_a_grid_is_every_combination_and_no_experiment_twice(tmp_path):
    grid = {"parts": [2, 5], "by": ["class", "random"], "rate": [0.15, 0.3]}
    content = {"title": "t", "base": {}, "methods": {"colt": {}, "imp": {"rate": 0.2}, "dense": {}}, "seeds": [0, 1]}
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(content | {"grid": grid}))
    found = Study.named(str(path)).experiments()
    count = lambda method: sum(e.method == method for e in found)
    assert count("colt") == 2 * 8 and count("imp") == 2 and len({e.hash for e in found}) == len(found)
    assert {e.rate for e in found if e.method == "imp"} == {0.2}


def test_an_unknown_preset_names_the_ready_ones():
    with pytest.raises(ValueError, match="unknown preset 'huge'; allowed: mini, official, paper, small, world"):
        Study.named("huge")


def test_records_and_studies_are_plain_files(make, tmp_path):
    experiment = make(method="dense")
    cc.run(experiment, tmp_path)
    about = json.loads((tmp_path / experiment.hash / "experiment.json").read_text())
    again = Experiment(**{k: v for k, v in about.items() if k not in ("format", "data")})
    assert again.hash == experiment.hash
    assert yaml.safe_dump(experiment.model_dump(mode="json"))
    assert torch.equal(cc.Ticket.load(tmp_path / experiment.hash / "round-00.safetensors").mask["conv1.weight"],
                       torch.ones(4, 3, 3, 3, dtype=torch.bool))  # fmt: skip


# --- what comes to nothing is told ---


def warned(frame, kind="round"):
    return frame[frame["kind"] == kind].get("warnings", pd.Series(dtype=object)).dropna().tolist()


def test_copies_that_end_at_chance_are_told_in_the_records(make, tmp_path):
    wild = make().recipe.changed(optimizer="adam", learning_rate=1e6, warmup=0)
    frame = cc.run(make(dataset="cifar10-mini:0-3", recipe=wild, target=0.3), tmp_path)
    [first, *_] = warned(frame)
    assert [told.split(" (")[0] for told in first[:2]] == ["copy 0 ended at chance", "copy 1 ended at chance"]
    assert first[2].startswith("the copies' agreement") and "means nothing" in first[2]
    assert "loss" in first[0]
    again = list(cc.rounds(make(dataset="cifar10-mini:0-3", recipe=wild, target=0.3), tmp_path))
    assert [r.warnings for r in again[1:]] == warned(frame)
    tame = cc.run(make(dataset="cifar10-mini:0-3", recipe="mini", target=0.3), tmp_path)
    assert "warnings" not in tame


def test_a_score_whose_training_ends_at_chance_is_told(make, tmp_path):
    wild = make().recipe.changed(optimizer="adam", learning_rate=1e6, warmup=0)
    frame = cc.run(make(method="dense", dataset="cifar10-mini:0-3", recipe=wild, scores=()), tmp_path)
    [[told]] = warned(frame, "score")
    assert told.startswith("the score's training ended at chance")


def test_partitions_of_one_class_and_emptied_layers_are_told(make, tmp_path):
    frame = cc.run(make(parts=3, target=0.5), tmp_path)
    for copies in warned(frame):
        assert copies[:3] == [f"copy {i} has a single class to learn" for i in range(3)]
        assert copies[3].startswith("the copies' agreement") and "means nothing" in copies[3]
    found = next(cc.rounds(make(), tmp_path))
    name = next(iter(found.ticket.mask))
    empty = found.ticket.derived(mask=found.ticket.mask | {name: torch.zeros_like(found.ticket.mask[name])})
    assert replace(found, ticket=empty).record()["warnings"] == [f"{name} has no weight left"]
