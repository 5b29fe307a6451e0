import pytest
import torch

from colt_core.seeding import choose_device, derive, generator, reproducible


def test_every_purpose_has_a_generator_of_its_own():
    purposes = [(0, "train", 1, 0), (0, "train", 0, 1), (0, "train", 10), (1, "train", 1, 0), (0, "epoch", 1, 0)]
    assert len({derive(*p) for p in purposes}) == len(purposes)
    first, second = (torch.rand(3, generator=generator(0, "a")) for _ in range(2))
    assert torch.equal(first, second)


def test_derived_seeds_do_not_change_between_versions():
    assert derive(0, "train", 1, 0) == 8022284783188889541


def test_the_device_is_chosen_or_refused():
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("abacus", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=r"unknown device|this machine has none"):
            choose_device(name)


def test_global_state_is_put_back_even_after_an_error():
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), reproducible(torch.device("cpu"), 1, threads + 1):
        torch.rand(5)
        raise RuntimeError("stop")
    assert torch.equal(state, torch.random.get_rng_state()) and torch.get_num_threads() == threads
