"""What must hold on a CUDA device; elsewhere all of it is skipped (`python benchmarks/gpu.py --only tests` runs it)."""

import math

import pytest
import torch

import colt_core as cc
from colt_core import masks
from colt_core.compute.checkpoints import Checkpoint
from colt_core.studies.records import saved_rounds
from colt_core.training import Training, accuracy, epochs
from colt_core.training.pull import Pull

CUDA = "cuda"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")


def half(network):
    parameters = dict(network.named_parameters())
    return masks.magnitude(parameters, masks.dense(parameters, cc.prunable(network)), 0.5)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["conv3", "resnet20"])
def test_training_has_a_finite_loss_and_masked_weights_are_exactly_zero(few, recipe, name, precision):
    network = cc.build(name, 10, seed=0)
    mask = half(network)
    history = cc.train(network, few.train, recipe.changed(precision=precision), mask=mask, device=CUDA)
    assert math.isfinite(history.epochs[-1]["loss"])
    for layer, kept in mask.items():
        weight = network.get_parameter(layer).detach()
        assert weight.device.type == CUDA and weight.dtype == torch.float32
        assert not weight.cpu()[~kept].any() and weight.cpu()[kept].any()


def test_a_cycle_of_colt_is_the_and_of_its_copies_masks(network, parts, recipe):
    rounds = list(cc.colt(network, parts, recipe, rate=0.3, target=0.6, device=CUDA))
    assert len(rounds) > 1
    for earlier, found in zip(rounds, rounds[1:], strict=False):
        assert equal(found.ticket.mask, masks.overlap(*found.partition_masks))
        alive = masks.count(earlier.ticket.mask)
        assert [masks.count(own) for own in found.partition_masks] == [alive - round(0.3 * alive)] * 2
    assert all(torch.equal(value, network.state_dict()[key].cpu()) for key, value in rounds[-1].ticket.theta0.items())


def test_colt_comes_to_the_densities_that_are_asked_for(network, parts, recipe):
    rounds = list(cc.colt(network, parts, recipe, densities=[0.5, 0.25], device=CUDA))
    assert [found.density for found in rounds] == pytest.approx([1, 0.5, 0.25], abs=1e-3)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ["conv3", "resnet20"])
def test_magnitude_pruning_of_one_network_agrees_with_the_cpus_bit_for_bit(name, scope):
    """On the CPU NumPy selects the threshold, here `kthvalue`; equal magnitudes go in the same order on both."""
    weights = {key: value.detach() for key, value in cc.build(name, 10, seed=0).named_parameters()}
    weights = {key: (value * 50).round() / 50 for key, value in weights.items()}  # many equal ones
    mask = masks.dense(weights, cc.prunable(cc.build(name, 10, seed=0)))
    there = {key: value.to(CUDA) for key, value in weights.items()}, {key: kept.to(CUDA) for key, kept in mask.items()}
    for rate in (0.15, 0.5, 0.9):
        mask = masks.magnitude(weights, mask, rate, scope)
        there = there[0], masks.magnitude(*there, rate, scope)
        assert equal(there[1], mask) and all(kept.device.type == CUDA for kept in there[1].values())


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(few, tmp_path):
    """Bit for bit, as on the CPU: a kernel whose sums have no fixed order would show here."""
    recipe = cc.Recipe.named("mini").changed(epochs=3, batch_size=24)
    whole, broken, resumed = (cc.build("conv3", 10, seed=0, width=4) for _ in range(3))
    training = Training(few.train, recipe, validation=few.validation, seed=3)
    place = Checkpoint(str(tmp_path), "x")
    told = list(epochs(whole, training, CUDA))[-1]
    going = epochs(broken, training, CUDA, place.drive)
    next(going)
    going.close()
    left = list(epochs(resumed, training, CUDA, place.drive))
    assert len(left) == 2 and left[-1].epochs == told.epochs
    assert equal(resumed.state_dict(), whole.state_dict())


def test_an_experiment_that_was_stopped_goes_on_to_the_same_tickets(folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": recipe, "rate": 0.3, "target": 0.6}
    job = cc.Experiment(**base, scores=(0.5,))
    cc.run(job, tmp_path / "whole", device=CUDA)
    finder = cc.rounds(job, tmp_path / "broken", device=CUDA)
    assert [next(finder).number, next(finder).number] == [0, 1]
    finder.close()
    frame = cc.run(job, tmp_path / "broken", device=CUDA)
    assert set(frame["device"]) == {CUDA} and (frame["kind"] == "score").sum() == 1
    tickets = [[found.ticket.hash for found in saved_rounds(job, tmp_path / name)] for name in ("whole", "broken")]
    assert tickets[0] == tickets[1] and len(tickets[0]) > 2


def test_evaluation_agrees_with_the_cpus(few):
    """No two images' scores lie so near that another order of sums could tell them apart, but for one or two."""
    network = cc.build("resnet20", 10, seed=0)
    here = accuracy(network, few.test)
    assert abs(accuracy(network.to(CUDA), few.test.to(CUDA)) - here) <= 2 / len(few.test)
    assert accuracy(network, few.test, batch=7) == pytest.approx(accuracy(network, few.test), abs=2 / len(few.test))


def test_what_is_taught_shared_and_pulled_is_learnt_there_and_its_loss_agrees_with_the_cpus(few, recipe):
    teacher, tasks = cc.build("conv3", 10, seed=1, width=4), [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    two = [cc.build("conv3", 5, seed=seed, width=4) for seed in (2, 3)]
    gates = [{"conv1": torch.rand(4, generator=torch.Generator().manual_seed(k)) < 0.7} for k in range(2)]
    chosen = {name: ~kept for name, kept in half(cc.build("conv3", 10, seed=0, width=4)).items()}
    of_all = [cc.KD(teacher, soft=soft) for soft in ("teacher", "smoothed", "shuffled")] + [cc.KD(two, tasks=tasks)]
    for objective in [*of_all, cc.Sharing(tasks, gates), Pull(chosen, 3)]:
        here, there = (cc.build("conv3", 10, seed=0, width=4) for _ in "12")
        for network, device in ((here, "cpu"), (there, CUDA)):
            cc.train(network, few.train, recipe.changed(optimizer="sgd"), device=device, objective=objective, steps=1)
        for name, value in here.named_parameters():
            assert torch.allclose(there.get_parameter(name).detach().cpu(), value, atol=1e-4), (objective, name)
