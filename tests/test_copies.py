"""Copies side by side: the same bytes as one after the other, whatever happens to the processes that train them."""

import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest
import torch
from waiting import PATIENCE, wait_for

import colt_core as cc
from colt_core.compute import copies, pool
from colt_core.compute.copies import train_side_by_side
from colt_core.files import is_alive
from colt_core.training import Training


def same(a, b):
    states = a.state_dict(), b.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def fresh(parts, name="conv3", **arguments):
    return [cc.build(name, len(part.classes), seed=0, **(arguments or {"width": 4})) for part in parts]


@pytest.fixture
def held_out(few):
    return cc.partition(few.validation, 2)


def test_side_by_side_gives_the_bytes_of_one_after_the_other(parts, recipe, held_out):
    networks = fresh(parts)
    dense = cc.masks.dense(dict(networks[0].named_parameters()), cc.prunable(networks[0]))
    mask = cc.masks.random_like(cc.masks.magnitude(dict(networks[0].named_parameters()), dense, 0.5), torch.Generator())
    longer = recipe.changed(epochs=3)
    trainings = [
        Training(part, longer, kept, validation=out, seed=seed)
        for part, kept, out, seed in zip(parts, [mask, dense], held_out, [7, 8], strict=True)
    ]
    beside = train_side_by_side(networks, trainings, workers=2, device="cpu")
    after = train_side_by_side(fresh(parts), trainings, workers=1, device="cpu")
    for one, other in zip(beside, after, strict=True):
        a, b, left, right = one.network, other.network, one.history, other.history
        assert same(a, b)
        assert left.epochs == right.epochs and left.best_epoch == right.best_epoch and left.images == right.images
        assert all(torch.equal(v, right.best_state[k]) for k, v in left.best_state.items())
        assert [p.is_contiguous(memory_format=torch.channels_last) for p in a.parameters()] == [
            p.is_contiguous(memory_format=torch.channels_last) for p in b.parameters()
        ]
    assert not beside[0].network.conv2.weight.detach()[~mask["conv2.weight"]].any()


def test_dropout_and_more_copies_than_workers(few, recipe):
    parts = cc.partition(few.train.take(torch.arange(0, 120, 4)), 3)
    make = lambda: [cc.build("mobilenetv2", len(part.classes), seed=0) for part in parts]
    short = recipe.changed(batch_size=6)
    beside = cc.train_copies(make(), parts, short, workers=2, device="cpu")
    after = cc.train_copies(make(), parts, short, workers=1, device="cpu")
    assert all(same(a, b) for a, b in zip(beside, after, strict=True))


def test_workers_are_kept_and_share_the_pixels(parts, recipe):
    cc.train_copies(fresh(parts), parts, recipe, workers=2, device="cpu")
    first = {one.process.pid for one in pool._idle}
    path = parts[0].source.path
    cc.train_copies(fresh(parts), parts, recipe, workers=2, device="cpu")
    assert first <= {one.process.pid for one in pool._idle}
    assert parts[0].pixels is parts[1].pixels and parts[0].source.path == parts[1].source.path == path is not None


def test_networks_that_build_did_not_make_are_trained_here(parts, recipe, monkeypatch):
    monkeypatch.setattr(copies, "_in_workers", lambda *_: pytest.fail("a worker could not rebuild these"))
    changed = fresh(parts)
    changed[0].average = torch.nn.AdaptiveMaxPool2d(1)
    rebuilt = lambda one: copies._can_be_rebuilt(copies.Copy(one, Training(parts[0], recipe)))
    assert rebuilt(fresh(parts)[0]) and not rebuilt(changed[0])
    copies._say_once.cache_clear()
    with pytest.warns(UserWarning, match="copies of this Sequential train one after the other in this process"):
        cc.train_copies(changed, parts, recipe, workers=2, device="cpu")
    frozen = fresh(parts)
    frozen[1].conv1.weight.requires_grad_(False)
    before = frozen[1].conv1.weight.clone()
    cc.train_copies(frozen, parts, recipe, workers=2, device="cpu")
    assert torch.equal(frozen[1].conv1.weight, before)


def test_a_copys_mistake_reaches_the_caller_with_its_type(parts, recipe):
    bad = recipe.changed(epochs=9, optimizer="sgd", learning_rate=1e20, warmup=0)
    with pytest.raises(FloatingPointError, match="lower the recipe's learning rate"):
        cc.train_copies(fresh(parts), parts, bad, workers=2, device="cpu")


def test_a_worker_that_is_killed_is_one_line_and_the_next_call_starts_a_new_one(parts, recipe):
    cc.train_copies(fresh(parts), parts, recipe, workers=2, device="cpu")
    victim = pool._idle[-1].process
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    cc.train_copies(fresh(parts), parts, recipe, workers=2, device="cpu")
    with pytest.raises(RuntimeError, match="the worker process died"), pool.lend(1) as (one,):
        with pytest.raises(ValueError, match="unknown network 'vgg'"):
            list(one.call("colt_core.models:build", name="vgg"))
        with pytest.raises(RuntimeError, match="can't decode byte"):  # an error that cannot be made of its words alone
            list(one.call("urllib.parse:unquote", string="%ff", errors="strict"))
        assert one.process.poll() is None, "a mistake does not end it"
        list(one.call("os:abort"))


def test_a_worker_ends_with_its_parent_even_in_the_middle_of_a_call(tmp_path):
    code = """
import json, sys, time
from colt_core.compute.pool import Worker
one, begun = Worker(), sys.argv[1]
busy = ["sh", "-c", f"touch {begun}; while test -e {begun}; do sleep 0.1; done"]
one.process.stdin.write(json.dumps({"call": "subprocess:run", "arguments": {"args": busy}}) + chr(10))
one.process.stdin.flush()
print(one.process.pid, flush=True)
sys.stdin.read()
"""
    begun, pipes = tmp_path / "begun", {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(begun)], **pipes) as parent:
        child = int(parent.stdout.readline())
        wait_for(begun.exists)
        assert is_alive(str(child))
        parent.kill()
    wait_for(lambda: not is_alive(str(child)), lambda: "the worker outlived its parent")
    begun.unlink()


def test_colt_workers_limits_the_processes_and_is_checked(monkeypatch, parts, recipe):
    from colt_core.compute.pool import cores

    monkeypatch.setenv("COLT_WORKERS", "1")
    monkeypatch.setattr(copies, "_in_workers", lambda *_: pytest.fail("one process was asked for"))
    assert cores() == 1
    cc.train_copies(fresh(parts), parts, recipe, device="cpu")
    monkeypatch.setenv("COLT_WORKERS", "many")
    with pytest.raises(ValueError, match="COLT_WORKERS must be a whole number from 1, not 'many'"):
        cc.train_copies(fresh(parts), parts, recipe, device="cpu")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_copy_that_has_settled_ends_and_the_other_goes_on(parts, recipe, workers):
    seen = []

    def settled(networks):
        seen.append([network.conv1.weight.detach().clone() for network in networks])
        return [len(seen) == 2, False]

    longer = recipe.changed(epochs=4)
    trainings = [Training(part, longer, seed=seed) for part, seed in zip(parts, [1, 2], strict=True)]
    trained = train_side_by_side(fresh(parts), trainings, settled=settled, workers=workers, device="cpu")
    assert [copy.history.saved for copy in trained] == [2, 0]
    assert not torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[1][0], trained[0].network.conv1.weight)
    whole = cc.train_copies(fresh(parts), parts, longer, seeds=[1, 2], workers=1, device="cpu")
    assert same(trained[1].network, whole[1]), "watching a training must not change it"


def test_what_lies_in_the_current_folder_runs_in_no_worker_and_a_users_network_there_does(folder, tmp_path):
    clusters = [None, "local"] if find_spec("distributed") else [None]
    for name in ("random", "torch", "numpy", "tqdm", "json"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(7)")
    lines = [
        "def net(classes, width=4):",
        "    import colt_core as cc",
        "    return cc.build('conv3', classes, width=width)",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json")
    base = {"dataset": str(folder), "network": "mine:net", "rate": 0.3, "target": 0.3, "recipe": recipe, "scores": None}
    code = f"""if True:
        import sys
        import colt_core as cc
        sys.path.append("")
        jobs = [cc.Experiment(**{base!r}, seed=seed) for seed in (0, 1)]
        for cluster in {clusters!r}:
            store = f"{tmp_path}/{{cluster}}"
            print(len(cc.study(jobs, store, device="cpu", workers=2, cluster=cluster)))
    """
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          timeout=PATIENCE)  # fmt: skip
    assert done.returncode == 0, done.stderr
    counted = [int(line) for line in done.stdout.split()]
    assert len(counted) == len(clusters) and min(counted) >= 4 and len(set(counted)) == 1


def test_workers_that_nothing_uses_end_and_the_next_call_starts_new_ones(monkeypatch):
    pool.stop_idle()
    monkeypatch.setattr(pool, "IDLE", 0.2)
    monkeypatch.setattr(pool, "_ending", threading.Lock())  # a timer of before waits for its minute
    with pool.lend(2) as workers:
        processes = [worker.process for worker in workers]
    nurseries = [nursery.process for nursery in pool._nurseries.values()]
    wait_for(lambda: all(one.poll() is not None for one in [*processes, *nurseries]))
    assert not pool._idle and not pool._nurseries
    with pool.lend(1) as [again]:
        assert list(again.call("os:getpid")) == []
