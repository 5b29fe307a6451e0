"""Workers that are forked from a process that has imported everything: the same as fresh ones, and as mortal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import wait_for

import colt_core as cc
from colt_core.compute import nursery, pool

pytestmark = pytest.mark.skipif(not nursery.possible(), reason="workers cannot be forked here")


@pytest.fixture
def start():
    """Start workers that end with the test."""
    begun = []

    def one():
        begun.append(pool.Worker())
        return begun[-1]

    yield one
    for worker in begun:
        worker.stop()


def asked(worker, function, **arguments):
    call = worker.call(function, **arguments)
    with pytest.raises(StopIteration) as end:
        next(call)
    return end.value.value


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_workers_come_from_one_process_and_have_what_this_one_has(start, monkeypatch, tmp_path):
    monkeypatch.setenv("COLT_TOLD", "so")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "of_the_test.py").write_text("import os\ndef told():\n    return os.environ['COLT_TOLD']\n")
    one, two = start(), start()
    assert parent_of(one.process.pid) == parent_of(two.process.pid) != os.getpid()
    assert asked(one, "os:getcwd") == str(tmp_path) and asked(two, "of_the_test:told") == "so"
    assert asked(one, "os:getpid") == one.process.pid != two.process.pid
    assert asked(one, "torch:get_num_threads") == 1


def test_an_interrupt_is_left_to_the_parent_from_the_beginning(tmp_path):
    (tmp_path / "late.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = pool.interpreter("import late, sys; print('colt_core.compute.worker' in sys.modules)", [str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_a_forked_worker_trains_to_the_bits_of_a_fresh_one(few, recipe, monkeypatch):
    parts, found = cc.partition(few.train, 2), []
    for fork in ("1", "0"):
        monkeypatch.setenv("COLT_FORK", fork)
        pool.stop_idle()
        networks = [cc.build("conv3", 5, 0, width=4) for _ in parts]
        found.append(cc.train_copies(networks, parts, recipe, device="cpu", workers=2))
        kinds = {type(worker.process) is nursery.Forked for worker in pool._idle}
        assert kinds == {fork == "1"}
    for forked, fresh in zip(*found, strict=True):
        assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in forked.state_dict().items())
    pool.stop_idle()


def test_where_the_process_that_forks_has_died_another_takes_its_place(start):
    first = start()
    dead = parent_of(first.process.pid)
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{dead}").exists() or "Z" in Path(f"/proc/{dead}/stat").read_text().split(")")[1])
    second = start()
    assert asked(second, "os:getpid") == second.process.pid and parent_of(second.process.pid) != dead
    assert asked(first, "os:getpid") == first.process.pid, "what it had forked lives on"


def test_a_worker_is_waited_for_and_ends_when_it_is_killed(start):
    worker = start()
    assert worker.process.poll() is None
    worker.process.kill()
    assert worker.process.wait() == worker.process.poll() == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="the worker process died"):
        next(worker.call("os:getpid"))


def test_everything_ends_with_the_process_that_asked(tmp_path):
    """Killed, it can tell nobody: the worker sees its pipe closed, the process that forks its socket."""
    import subprocess

    code = "import os, time; from colt_core.compute.pool import Worker; w = Worker(); "
    code += "print(w.process.pid, flush=True); time.sleep(600)"
    place = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=place, stdout=subprocess.PIPE, text=True) as asking:
        pid = int(asking.stdout.readline())
        above = parent_of(pid)
        asking.kill()
    gone = lambda one: not Path(f"/proc/{one}").exists() or ") Z" in Path(f"/proc/{one}/stat").read_text()
    wait_for(lambda: gone(pid) and gone(above))


def test_after_an_interrupt_while_a_worker_starts_the_next_ones_are_who_they_say(start, monkeypatch):
    start()
    real = nursery.socket.recv_fds
    with monkeypatch.context() as patch:
        patch.setattr(nursery.socket, "recv_fds", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pool.Worker()
    assert nursery.socket.recv_fds is real and not pool._nurseries
    for worker in (start(), start()):
        assert asked(worker, "os:getpid") == worker.process.pid
