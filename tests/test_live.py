"""A run in a process of its own: watched, paused, continued, stopped, and always the same tickets."""

import time

import pytest

import colt_core as cc
from colt_core.studies.live import Live, attach
from colt_core.studies.run import read_records


@pytest.fixture
def experiment(folder, monkeypatch):
    monkeypatch.setenv("COLT_WORKERS", "1")  # starting more processes takes longer than these trainings
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=8)
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.8, "scores": None}
    return cc.Experiment(recipe=recipe, **fields)


def wait_for(what, seconds=90):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def tickets(store, experiment):
    return {p.name: p.read_bytes() for p in sorted((store / experiment.hash).glob("*.safetensors"))}


def test_a_run_that_is_paused_stopped_and_continued_finds_the_same_tickets_as_run(experiment, tmp_path):
    cc.run(experiment, tmp_path / "alone", device="cpu")
    live = Live(experiment, tmp_path / "live", device="cpu")
    assert live.state == "ready" and live.rounds == []
    live.start()
    wait_for(lambda: live.running)
    live.pause()
    assert live.state == "paused"
    time.sleep(0.5)  # what was between two looks at the flag is over
    curves, records = {k: len(c) for k, (_, c) in live.running.items()}, len(live.records)
    clock = live.seconds
    time.sleep(1)
    assert {k: len(c) for k, (_, c) in live.running.items()} == curves and len(live.records) == records
    assert live.seconds == clock
    live.resume()
    wait_for(lambda: len(live.rounds) >= 2)
    live.stop()
    assert live.state == "stopped" and len(live.rounds) >= 2
    found = Live(experiment, tmp_path / "live", device="cpu")  # as after a restart
    assert found.state == "stopped" and [r.number for r in found.rounds] == [r.number for r in live.rounds]
    found.resume()
    wait_for(lambda: found.state != "running")
    assert found.state == "done", found.problem
    assert tickets(tmp_path / "live", experiment) == tickets(tmp_path / "alone", experiment)
    assert Live(experiment, tmp_path / "live").state == "done"


def test_a_pause_does_not_count_as_training_time(experiment, tmp_path):
    live = Live(experiment.changed(target=0.5), tmp_path, device="cpu")
    live.start()
    wait_for(lambda: live.running)
    live.pause()
    time.sleep(3)
    live.resume()
    wait_for(lambda: live.state != "running")
    spent = read_records(live.experiment, tmp_path)[-1]["seconds"]
    assert live.state == "done" and spent < 3


def test_what_goes_wrong_is_told_in_one_line_and_keeps_what_was_found(experiment, tmp_path):
    diverging = experiment.changed(recipe=experiment.recipe.changed(learning_rate=1e20, optimizer="sgd"))
    heard = []
    live = Live(diverging, tmp_path, device="cpu")
    live.listeners.append(lambda: heard.append(live.state))
    live.start()
    wait_for(lambda: live.state != "running")
    assert live.state == "failed" and "training diverged" in live.problem and "\n" not in live.problem
    assert heard[-1] == "failed" and len(live.rounds) == 1  # the dense one


def test_a_run_that_goes_on_is_found_again_in_the_same_process_and_a_stop_is_no_failure(experiment, tmp_path):
    live = attach(experiment, tmp_path, "cpu")
    live.start()
    assert attach(experiment, tmp_path, "cpu") is live
    wait_for(lambda: live.records)
    live.stop()
    time.sleep(0.5)
    assert (live.state, live.problem) == ("stopped", "")
    assert attach(experiment, tmp_path, "cpu") is not live


def test_the_time_left_lies_between_bounds_that_close(experiment, tmp_path):
    seen = []
    live = Live(experiment, tmp_path, device="cpu")
    live.listeners.append(lambda: seen.append(live.seconds_left()))
    live.start()
    wait_for(lambda: live.state != "running")
    told = [pair for pair in seen if pair]
    assert told and all(0 <= low <= high for low, high in told) and live.seconds_left() is None
    assert told[-1][1] < told[0][1]


def test_a_process_that_dies_while_it_is_paused_can_be_continued(experiment, tmp_path):
    live = Live(experiment.changed(target=0.5), tmp_path, device="cpu")
    live.start()
    wait_for(lambda: live.running)
    live.pause()
    live._worker.process.kill()
    wait_for(lambda: live.state == "failed")
    assert live.problem == "the worker process died"
    live.resume()
    wait_for(lambda: live.state != "running")
    assert live.state == "done" and live.problem == ""


def test_the_run_that_another_follows_is_told_of_and_counts(experiment, tmp_path):
    seen = []
    live = Live(experiment.changed(method="matched"), tmp_path, device="cpu")
    live.listeners.append(lambda: seen.append((live.reference, live.seconds_left())))
    live.start()
    wait_for(lambda: live.state != "running")
    assert live.state == "done" and seen[-1][0] is None
    told = [pair for pair in seen if pair[0] is not None]
    rounds = [number for number, _ in told]
    assert rounds and rounds == sorted(rounds) and all(left is not None for _, left in told)


def test_a_listener_that_fails_does_not_end_the_run(experiment, tmp_path, caplog):
    live = Live(experiment.changed(target=0.5), tmp_path, device="cpu")
    live.listeners.append(lambda: 1 / 0)
    live.start()
    wait_for(lambda: live.state != "running")
    assert live.state == "done" and "a view of the run could not be drawn" in caplog.text


def test_a_store_that_no_other_process_sees_is_refused(experiment):
    with pytest.raises(ValueError, match="use a folder or a bucket"):
        Live(experiment, "memory://live", device="cpu").start()
