from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import colt_core as cc
from colt_core.data.augmentation import normalise
from colt_core.seeding import choose_device, derive, generator, memory_format, reproducible
from colt_core.training.loop import _MaskedWeights


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


@pytest.fixture
def backends(monkeypatch):
    """Stand-ins for PyTorch's switches, and for CUDA's own random state."""
    fake = SimpleNamespace(
        cudnn=SimpleNamespace(
            deterministic=False,
            benchmark=True,
            conv=SimpleNamespace(fp32_precision="none"),
            rnn=SimpleNamespace(fp32_precision="none"),
        ),
        cuda=SimpleNamespace(matmul=SimpleNamespace(fp32_precision="bf16x3")),
    )
    monkeypatch.setattr(torch, "backends", fake)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(fake.__dict__.update(seeded=device)))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext(fake.__dict__.update(forked=devices)))
    return fake


def rounding(backends):
    parts = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    return [one.fp32_precision for one in parts]


@pytest.mark.parametrize(("tf32", "within"), [(True, "tf32"), (False, "ieee")])
@pytest.mark.parametrize("fails", [False, True])
def test_cuda_rounds_to_tf32_where_it_is_asked_to_and_its_switches_are_put_back(backends, tf32, within, fails):
    device = torch.device("cuda:1")
    with pytest.raises(KeyError) if fails else nullcontext(), reproducible(device, 1, tf32=tf32):
        assert rounding(backends) == [within] * 3 and backends.forked == [backends.seeded] == [device]
        assert backends.cudnn.deterministic and not backends.cudnn.benchmark
        if fails:
            raise KeyError
    assert rounding(backends) == ["none", "none", "bf16x3"]
    assert not backends.cudnn.deterministic and backends.cudnn.benchmark


@pytest.mark.parametrize("tf32", [False, True])
def test_on_the_cpu_no_rounding_is_touched(backends, tf32):
    with reproducible(torch.device("cpu"), 1, tf32=tf32):
        assert rounding(backends) == ["none", "none", "bf16x3"] and backends.forked == []
    assert rounding(backends) == ["none", "none", "bf16x3"]


def test_pytorch_has_the_switches_that_are_set():
    for switch in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul):
        before = switch.fp32_precision
        for value in ("tf32", "ieee", before):
            switch.fp32_precision = value
            assert switch.fp32_precision == value


# --- threads ---


def test_threads_build_the_networks_that_one_builds():
    build = lambda seed: cc.build("conv3", 10, seed=seed, width=4)
    alone = [build(seed) for seed in range(200)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(build, range(200)))
    for one, other in zip(alone, together, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_threads_train_to_the_weights_that_one_trains_to(few, recipe):
    """MobileNetV2 has dropout, which draws from the process's random state."""
    images = few.train.take(torch.arange(0, 120, 3))

    def train(seed):
        network = cc.build("mobilenetv2", 10, seed=seed)
        torch.set_num_threads(1)
        cc.train(network, images, recipe.changed(batch_size=20), seed=seed, device="cpu")
        return network.state_dict()

    alone = [train(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(train, range(2)))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("device", "precision", "channels_last"),
    [("cpu", "float32", True), ("mps", "float32", True), ("cuda:0", "tf32", True), ("cuda", "float32", False)],
)
def test_float32_on_cuda_alone_has_plain_memory(device, precision, channels_last):
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert memory_format(torch.device(device), precision) is wanted


@pytest.mark.parametrize(("device", "channels_last"), [("cpu", True), ("cuda", False)])
def test_on_cuda_the_weights_decide_in_which_memory_convolutions_are(device, channels_last):
    with FakeTensorMode(), torch.device(device):
        pixels = normalise(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        assert pixels.is_contiguous(memory_format=torch.channels_last) is channels_last
        weight = torch.zeros(8, 3, 3, 3).contiguous(memory_format=memory_format(torch.device(device)))
        turned = torch.nn.functional.conv2d(pixels, weight)
        assert turned.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize("wanted", [torch.channels_last, torch.contiguous_format])
def test_masks_lie_in_memory_as_their_weights_do(wanted):
    network = cc.build("conv3", 10, width=8).to(memory_format=wanted)
    draw = generator(0, "mask")
    weights = {name: value for name, value in network.named_parameters() if value.ndim > 1}
    mask = {name: torch.rand(value.shape, generator=draw) < 0.5 for name, value in weights.items()}
    masked = _MaskedWeights(network, mask)
    for (name, kept), weight, factor in zip(mask.items(), masked.weights, masked.factors, strict=True):
        assert factor.stride() == weight.stride(), name
        assert torch.equal(factor, kept.float())
