"""Processes that die or race leave in a store what an undisturbed run would have left, byte for byte."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from waiting import PATIENCE

import colt_core as cc
from colt_core.compute.checkpoints import Checkpoint, kept
from colt_core.studies.records import read_records
from colt_core.training import Trainer, Training, epochs

TIMES = ("seconds", "score_seconds")


@pytest.fixture(scope="module")
def make(folder):
    """Experiments of a second or two: 36 pictures, a narrow conv3, four epochs, Adam, so that there is a middle."""
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=4)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.8, "recipe": recipe}
    return lambda **fields: cc.Experiment(**(base | {"scores": (0.3, 0.7)} | fields))


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """The store of an experiment that nothing has disturbed."""
    store = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLT_WORKERS", "1")
        cc.run(make(), store, device="cpu")
    return store


def left(store, experiment):
    """The bytes of an experiment's tickets, and its records in order of round without their times."""
    tickets = {p.name: p.read_bytes() for p in sorted((store / experiment.hash).glob("*.safetensors"))}
    records = [{k: v for k, v in r.items() if k not in TIMES} for r in read_records(experiment, store)]
    return tickets, sorted(records, key=lambda r: (r["kind"], r["round"], r.get("scored_on") or ""))


def script(code, *arguments, check=True, **environment):
    """Start a Python process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def described(*jobs):
    return json.dumps([job.model_dump(mode="json") for job in jobs])


# Two processes, forked once everything is imported, do the same jobs on one store; each says how many steps it took.
RACE = """
    import json, os, sys
    import colt_core as cc
    from colt_core.training import Trainer
    steps, real = [0], Trainer._step

    def step(*arguments):
        steps[0] += 1
        return real(*arguments)

    def work(store, described, how):
        jobs = [cc.Experiment(**job) for job in json.loads(described)]
        if how == "study":
            cc.study(jobs, store, device="cpu", workers=1)
        for job in jobs if how == "run" else ():
            cc.run(job, store, device="cpu")
        print(steps[0], flush=True)
        os._exit(0)

    Trainer._step = step
    for child in [os.fork() or work(*sys.argv[1:]) for _ in range(2)]:
        assert os.waitpid(child, 0)[1] == 0
"""


def race(store, jobs, how):
    """Let two processes do the jobs; return how many steps they take together."""
    process = script(RACE, store, described(*jobs), how, COLT_WORKERS="1")

    def steps():
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return sum(map(int, out.split()))

    return steps


@pytest.fixture
def steps(monkeypatch):
    """The optimiser steps of this process, and so many."""
    taken, real = [], Trainer._step
    monkeypatch.setenv("COLT_WORKERS", "1")
    monkeypatch.setattr(Trainer, "_step", lambda *arguments: taken.append(1) or real(*arguments))
    return taken


def test_two_processes_that_race_for_one_experiment_share_its_trainings(make, tmp_path, steps):
    job = make()
    both = race(tmp_path / "race", [job], "run")
    cc.run(job, tmp_path / "alone", device="cpu")
    assert both() == len(steps), "no step is done twice"
    assert left(tmp_path / "race", job) == left(tmp_path / "alone", job)
    lines = (tmp_path / "race" / job.hash / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(read_records(job, tmp_path / "race")), "no record is written twice"


def test_two_studies_on_one_store_do_the_work_once(make, tmp_path, steps):
    jobs = [make(seed=1), make(), make(method="dense"), make(method="random")]
    both = race(tmp_path / "both", jobs, "study")
    cc.study(jobs, tmp_path / "alone", device="cpu", workers=1)
    assert both() == len(steps)
    for job in jobs:
        assert left(tmp_path / "both", job) == left(tmp_path / "alone", job)


# --- within one training ---


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_goes_on_from_its_last_epoch_bit_for_bit(few, tmp_path, optimizer):
    recipe = cc.Recipe.named("mini").changed(epochs=4, batch_size=24, optimizer=optimizer, learning_rate=0.01)
    networks = [cc.build("resnet20", 10, seed=0) for _ in range(2)]
    checkpoint = Checkpoint(str(tmp_path), "x")
    training = Training(few.train.take(torch.arange(0, 120, 2)), recipe, validation=few.validation, seed=3)
    whole = list(epochs(networks[0], training, "cpu"))[-1]
    broken = epochs(cc.build("resnet20", 10, seed=0), training, "cpu", checkpoint.drive)
    next(broken)
    next(broken)
    broken.close()
    resumed = list(epochs(networks[1], training, "cpu", checkpoint.drive))
    assert len(resumed) == 2, "two epochs were over"
    assert resumed[-1].epochs == whole.epochs and resumed[-1].best_epoch == whole.best_epoch
    assert resumed[-1].images == whole.images and resumed[-1].steps == whole.steps
    for (name, a), b in zip(networks[0].state_dict().items(), networks[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_finished_training_is_looked_up_with_the_very_weights(few, tmp_path, monkeypatch):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=24)
    first, second = (cc.build("conv3", 10, seed=0, width=4) for _ in range(2))
    mask = cc.masks.magnitude(dict(first.named_parameters()), cc.Ticket.of(first).mask, 0.5)
    training = Training(few.train, recipe, mask, seed=1)
    place = Checkpoint(str(tmp_path), training.key(first))
    done = list(kept(first, training, "cpu", place))[-1]
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("trained again"))
    again = list(kept(second, training, "cpu", place))[-1]
    assert again.epochs == done.epochs
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes(), "-0.0 is another byte, and another key for what goes on"


def test_a_store_changes_nothing_of_what_is_trained(few, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=24)
    with_store, without = (cc.build("conv3", 10, seed=0, width=4) for _ in range(2))
    training = Training(few.train, recipe, seed=1)
    plain = list(epochs(without, training, "cpu"))[-1]
    done = list(kept(with_store, training, "cpu", Checkpoint(str(tmp_path), "x")))
    assert len(done) == 3 and done[-1].epochs == plain.epochs and done[-1].images == plain.images
    assert all(
        torch.equal(a, b) for a, b in zip(with_store.state_dict().values(), without.state_dict().values(), strict=True)
    )
    assert [p.name for p in (tmp_path / "trainings").iterdir()] == ["x.safetensors"]


def test_every_cause_of_another_result_gives_another_key(few):
    recipe, network = cc.Recipe.named("mini"), cc.build("conv3", 10, seed=0, width=4)
    mask = cc.Ticket.of(network).mask
    plain = Training(few.train, recipe, mask, few.validation)
    fewer = cc.masks.magnitude(dict(network.named_parameters()), mask, 0.1)
    changes = [
        {"seed": 1}, {"threads": 2}, {"first_step": 1}, {"steps": 3}, {"validation": None}, {"mask": fewer},
        {"images": few.train.take(torch.arange(50))}, {"recipe": recipe.changed(epochs=3)},
    ]  # fmt: skip
    keys = [plain.key(network), *(replace(plain, **change).key(network) for change in changes)]
    keys.append(plain.key(cc.build("conv3", 10, seed=1, width=4)))
    assert len(set(keys)) == len(keys)
    assert plain.key(cc.build("conv3", 10, seed=0, width=4)) == keys[0]


def test_a_damaged_checkpoint_or_training_is_done_again(make, whole, tmp_path):
    job = make()
    shutil.copytree(whole / "trainings", tmp_path / "trainings")
    for path in (tmp_path / "trainings").glob("*.safetensors"):
        path.write_bytes(b"\0" * path.stat().st_size)  # what a power cut can leave
    cc.run(job, tmp_path)
    assert left(tmp_path, job) == left(whole, job)


def test_kept_trainings_that_are_altered_or_another_ones_take_place_again(make, whole, tmp_path):
    """One flipped bit in each, somewhere in its weights; then each in the place of another."""
    shutil.copytree(whole, tmp_path / "store")
    files = sorted((tmp_path / "store" / "trainings").glob("*.safetensors"))
    contents = [path.read_bytes() for path in files]
    flipped = [content[:-9] + bytes([content[-9] ^ 16]) + content[-8:] for content in contents]
    for damaged in (flipped, contents[1:] + contents[:1]):
        for path, content in zip(files, damaged, strict=True):
            path.write_bytes(content)
        shutil.rmtree(tmp_path / "store" / make().hash)
        cc.run(make(), tmp_path / "store", device="cpu")
        assert left(tmp_path / "store", make()) == left(whole, make())


def test_what_was_killed_after_its_end_was_kept_leaves_no_epoch_behind(make, tmp_path, monkeypatch):
    """Between the end of a training, or of a score, and the removal of its last epoch."""
    removed = Checkpoint.clear
    monkeypatch.setattr(Checkpoint, "clear", lambda self: None)
    cc.run(make(), tmp_path, device="cpu")
    assert list((tmp_path / "trainings").glob("*.epoch"))
    monkeypatch.setattr(Checkpoint, "clear", removed)
    shutil.rmtree(tmp_path / make().hash)
    cc.run(make(), tmp_path, device="cpu")
    assert not list((tmp_path / "trainings").glob("*.epoch"))


def test_what_another_experiment_trained_is_not_trained_again(make, tmp_path, monkeypatch):
    cc.run(make(scores=None), tmp_path)
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("trained again"))
    nearer = cc.run(make(scores=None, target=0.6), tmp_path)
    assert nearer["density"].min() <= 0.4


def test_the_records_of_a_finished_run_are_enough_for_who_asks_for_its_densities_alone(make, whole, tmp_path):
    """Reference runs are kept without tickets; a run that lacks one of several is damaged as before."""
    follower = make(method="matched", scores=None)
    shutil.copytree(whole, tmp_path / "tickets")
    cc.run(follower, tmp_path / "tickets", device="cpu")
    shutil.copytree(whole / make().hash, tmp_path / "records" / make().hash)
    some = sorted((tmp_path / "records" / make().hash).glob("round-*.safetensors"))
    some[1].unlink()
    with pytest.raises(FileNotFoundError, match="round-01.safetensors"):
        cc.run(follower, tmp_path / "records", device="cpu")
    for path in some[:1] + some[2:]:
        path.unlink()
    cc.run(follower, tmp_path / "records", device="cpu")
    assert left(tmp_path / "records", follower) == left(tmp_path / "tickets", follower)
    with pytest.raises(FileNotFoundError, match="round-00.safetensors"):  # masks are another matter
        cc.run(make(method="random", scores=None), tmp_path / "records", device="cpu")


# --- a disk that fills ---

FULL = """
    import resource, sys, json
    import colt_core as cc
    job = cc.Experiment(**json.loads(sys.argv[2])[0])
    for limit in sys.argv[3:]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        try:
            cc.run(job, f"{sys.argv[1]}/{limit}", device="cpu")
        except OSError as problem:
            print(problem)
"""


def test_a_disk_that_fills_is_one_clear_line_and_nothing_is_lost(make, whole, tmp_path):
    pytest.importorskip("resource", reason="no file size limits on this system")
    job, limits = make(), (6_000, 20_000)  # bytes a file
    out, err = script(FULL, tmp_path, described(job), *limits, COLT_WORKERS="1").communicate(timeout=PATIENCE)
    assert len(out.splitlines()) == 2 and all("cannot be written" in line for line in out.splitlines()), (out, err)
    assert not list(tmp_path.rglob("*.part"))
    for limit in limits:
        cc.run(job, tmp_path / str(limit))
        assert left(tmp_path / str(limit), job) == left(whole, job)


def test_a_record_that_does_not_fit_leaves_no_half_line(make, tmp_path, monkeypatch):
    import errno

    job = make(method="dense", scores=())
    real, real_fsync = os.ftruncate, os.fsync

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    finder = cc.rounds(job, tmp_path)
    next(finder)
    before = (tmp_path / job.hash / "records.jsonl").read_bytes()
    store = cc.open_store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.append(job.hash, {"kind": "score", "round": 0}, ("kind", "round"))
    monkeypatch.setattr(os, "fsync", real_fsync)
    assert os.ftruncate is real
    assert (tmp_path / job.hash / "records.jsonl").read_bytes() == before
