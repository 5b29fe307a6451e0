"""What the C library does with freed memory while a network trains: set for a training alone, and given back."""

import ctypes
import gc
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import colt_core as cc
from colt_core.training import keeping_memory, memory

SET = [(-1, -1), (-2, 2**26), (-4, 0)]  # trim threshold, top pad, most blocks of their own, as mallopt(3) numbers them
GIVEN_BACK = [(-1, 128 * 1024), (-2, 128 * 1024), (-4, 65536)]  # the defaults that mallopt(3) names
CPU = torch.device("cpu")


@pytest.fixture
def glibc(monkeypatch):
    """A stand-in for the C library of Linux that notes what it is told."""
    told = []
    library = SimpleNamespace(
        told=told, gnu_get_libc_version=lambda: b"2.36", mallopt=lambda *pair: told.append(pair),
        malloc_trim=lambda keep: told.append(("trim", keep)),
    )  # fmt: skip
    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="linux"))
    return library


def test_freed_memory_is_kept_within_and_given_back_afterwards(glibc):
    with keeping_memory(CPU):
        assert glibc.told == SET
    assert glibc.told == [*SET, *GIVEN_BACK, ("trim", 0)]


def test_it_is_given_back_when_what_is_within_raises(glibc):
    with pytest.raises(KeyError), keeping_memory(CPU):
        raise KeyError
    assert glibc.told == [*SET, *GIVEN_BACK, ("trim", 0)]


def test_a_training_keeps_memory_from_its_first_step_to_its_last_and_a_diverging_one_gives_it_back(
    glibc, network, few, recipe, monkeypatch
):
    steps, real = [], cc.training.Trainer._step
    step = lambda *arguments: steps.append(list(glibc.told)) or real(*arguments)
    monkeypatch.setattr(cc.training.Trainer, "_step", step)
    cc.train(network, few.train, recipe, device="cpu")
    assert len(steps) == 5 and all(told == SET for told in steps) and glibc.told == [*SET, *GIVEN_BACK, ("trim", 0)]
    glibc.told.clear()
    with pytest.raises(FloatingPointError):
        cc.train(
            network, few.train, recipe.changed(epochs=9, optimizer="sgd", learning_rate=1e20, warmup=0), device="cpu"
        )
    assert glibc.told == [*SET, *GIVEN_BACK, ("trim", 0)]


def absent(name):
    raise OSError(f"there is no library {name}")


@pytest.mark.parametrize(
    ("device", "system", "library"),
    [
        ("cuda", "linux", None),
        ("cpu", "darwin", None),
        ("cpu", "win32", None),
        ("cpu", "linux", absent),
        ("cpu", "linux", lambda name: SimpleNamespace(mallopt=pytest.fail)),  # musl, say
    ],
    ids=["an accelerator", "macOS", "Windows", "no library", "another C library"],
)
def test_elsewhere_nothing_is_done(glibc, monkeypatch, device, system, library):
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=system))
    if library:
        monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=library))
    within = []
    with keeping_memory(torch.device(device)):
        within.append(device)
    assert within == [device] and glibc.told == []


@pytest.mark.skipif(
    not (sys.platform == "linux" and platform.libc_ver()[0] == "glibc"), reason="this system has another C library"
)
def test_on_this_machine_a_large_block_stays_within_and_goes_afterwards():
    def own():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory that earlier tests have freed would serve the block
    with keeping_memory(CPU):
        before = own()
        block = torch.ones(200 * 2**18)  # 200 MiB
        held = own()
        del block
        kept = own()
    assert held - before > 150 and kept > held - 50, (before, held, kept)
    assert own() < held - 150, "the memory was given back"
