"""A run in a process of its own: watched, paused, continued, stopped, and always the same tickets."""

import logging
import threading
import time
from types import SimpleNamespace

import pytest
from waiting import trainings, wait_for

import colt_core as cc
from colt_core.studies.live import Live, attach
from colt_core.training import loop


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """An experiment, the store in which `run` has carried it out, and the names of its trainings by round."""
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=8)
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.8, "scores": None}
    found, store = cc.Experiment(recipe=recipe, **fields), tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLT_WORKERS", "1")
        return SimpleNamespace(experiment=found, store=store, trainings=trainings(found, store))


@pytest.fixture
def experiment(alone, monkeypatch):
    monkeypatch.setenv("COLT_WORKERS", "1")  # starting more processes takes longer than these trainings
    return alone.experiment


def tickets(store, experiment):
    return {p.name: p.read_bytes() for p in sorted((store / experiment.hash).glob("*.safetensors"))}


def end_of_followers():
    """Wait until the threads that follow a run have told all there is."""
    for thread in threading.enumerate():
        if "_follow" in thread.name:
            thread.join()


def test_a_run_that_is_paused_stopped_and_continued_finds_the_same_tickets_as_run(experiment, alone, tmp_path, hold):
    assert len(alone.trainings) > 3, "there is no third round: make it longer"
    second, third = (hold(tmp_path, alone.trainings[number][0]) for number in (2, 3))
    live = Live(experiment, tmp_path, device="cpu")
    assert live.state == "ready" and live.rounds == []
    live.start()
    wait_for(lambda: len(live.rounds) == 2)
    live.pause()
    assert live.state == "paused"
    clock = live.seconds
    second.let_go()
    wait_for(lambda: second.taken)  # before its first step it is held
    time.sleep(0.5)  # whatever is not held goes on meanwhile
    assert len(live.records) == 2 and not any(number == 2 for number, _ in live.running)
    assert second.taken and live.seconds == clock
    live.resume()
    wait_for(lambda: len(live.rounds) == 3)
    assert live.state == "running" and live.seconds > clock
    live.stop()
    assert live.state == "stopped" and len(live.rounds) == 3
    third.let_go()
    found = Live(experiment, tmp_path, device="cpu")  # as after a restart
    assert found.state == "stopped" and [r.number for r in found.rounds] == [0, 1, 2]
    found.resume()
    wait_for(lambda: found.state != "running")
    assert found.state == "done", found.problem
    assert tickets(tmp_path, experiment) == tickets(alone.store, experiment)
    assert Live(experiment, tmp_path).state == "done"


def test_a_pause_does_not_count_as_training_time(network, few, recipe, tmp_path, monkeypatch):
    """By a clock that goes while the training waits, and stands still while it trains."""
    flag, clock = tmp_path / "pause", [0.0]

    def sleep(_):
        clock[0] += 1000
        if clock[0] == 3000:
            flag.unlink()

    flag.touch()
    monkeypatch.setenv(loop.PAUSE, str(flag))
    monkeypatch.setattr(
        loop, "time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=lambda: clock[0], sleep=sleep)
    )
    history = cc.train(network, few.train, recipe, device="cpu")
    assert clock[0] == 3000 and history.seconds == 0 and history.images == len(few.train)


def test_what_goes_wrong_is_told_in_one_line_and_keeps_what_was_found(experiment, tmp_path):
    diverging = experiment.changed(recipe=experiment.recipe.changed(learning_rate=1e20, optimizer="sgd"))
    heard = []
    live = Live(diverging, tmp_path, device="cpu")
    live.listeners.append(lambda: heard.append(live.state))
    live.start()
    wait_for(lambda: heard and heard[-1] != "running")
    assert live.state == "failed" and "training diverged" in live.problem and "\n" not in live.problem
    assert heard[-1] == "failed" and len(live.rounds) == 1  # the dense one


def test_what_scores_could_only_fail_of_is_told_before_any_training(experiment, tmp_path):
    live = Live(experiment.changed(scores=(), scoring={"objective": {"name": "kd", "teacher": "nothing"}}), tmp_path)
    live.start()
    wait_for(lambda: live.state == "failed")
    assert "'nothing', which is to teach or to judge" in live.problem
    assert not live.records and not list(tmp_path.glob("trainings/*.safetensors"))


def test_a_run_that_goes_on_is_found_again_in_the_same_process_and_a_stop_is_no_failure(
    experiment, alone, tmp_path, hold
):
    hold(tmp_path, alone.trainings[1][0])
    live = attach(experiment, tmp_path, "cpu")
    live.start()
    assert attach(experiment, tmp_path, "cpu") is live
    wait_for(lambda: live.records)
    live.stop()
    end_of_followers()
    assert (live.state, live.problem) == ("stopped", "")
    assert attach(experiment, tmp_path, "cpu") is not live


def test_a_process_that_dies_while_it_is_paused_can_be_continued(experiment, alone, tmp_path, hold):
    first = hold(tmp_path, alone.trainings[1][0])
    live = Live(experiment.changed(target=0.5), tmp_path, device="cpu")
    live.start()
    live.pause()
    first.let_go()
    wait_for(lambda: first.taken)
    live._worker.process.kill()
    wait_for(lambda: live.state == "failed")
    assert live.problem == "the worker process died"
    live.resume()
    wait_for(lambda: live.state != "running")
    assert live.state == "done" and live.problem == ""


@pytest.fixture(scope="module")
def followed(alone, tmp_path_factory):
    """A run that follows a COLT run, watched by two listeners, of which the first fails."""
    told, said = [], []
    listens = logging.Handler()
    listens.emit = lambda record: said.append(record.getMessage())
    live = Live(alone.experiment.changed(method="matched"), tmp_path_factory.mktemp("followed"), device="cpu")
    live.listeners += [lambda: 1 / 0, lambda: told.append((live.reference, live.seconds_left()))]
    logging.getLogger("colt_core.studies.live").addHandler(listens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLT_WORKERS", "1")
        live.start()
    wait_for(lambda: live.state != "running")
    end_of_followers()
    logging.getLogger("colt_core.studies.live").removeHandler(listens)
    return SimpleNamespace(live=live, told=told, said=said)


def test_the_run_that_another_follows_is_told_of_and_counts(followed):
    assert followed.live.state == "done" and followed.told[-1][0] is None
    first = [pair for pair in followed.told if pair[0] is not None]
    rounds = [number for number, _ in first]
    assert rounds and rounds == sorted(rounds) and all(left is not None for _, left in first)


def test_the_time_left_lies_between_bounds_that_close(followed):
    told = [left for _, left in followed.told if left]
    assert told and all(0 <= low <= high for low, high in told) and followed.live.seconds_left() is None
    assert told[-1][1] < told[0][1]


def test_a_listener_that_fails_does_not_end_the_run(followed):
    assert followed.live.state == "done" and "a view of the run could not be drawn" in followed.said


def test_a_store_that_no_other_process_sees_is_refused(experiment):
    with pytest.raises(ValueError, match="use a folder or a bucket"):
        Live(experiment, "memory://live", device="cpu").start()
