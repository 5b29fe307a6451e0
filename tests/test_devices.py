"""What only another device than the CPU would show, without one."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import colt_core as cc
from colt_core.models.pools import _by_windows
from colt_core.training.optimizer import Optimizer


class Away(torch.Tensor):
    """A tensor on "another device": it does not turn into an array, and does not meet tensors that are here."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = function.__name__
        if name in ("cpu", "tolist", "item", "__float__", "__int__", "__bool__", "__len__", "__repr__"):
            with torch._C.DisableTorchFunctionSubclass():
                return function(args[0].as_subclass(torch.Tensor), *args[1:])
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert a tensor of another device to numpy")
        if name == "__getitem__" and isinstance(args[0], Away):  # a tensor there may be indexed by one here
            return super().__torch_function__(function, types, args, kwargs or {})
        found = []
        for one in args:
            found += one if isinstance(one, list | tuple) else [one]
        with torch._C.DisableTorchFunctionSubclass():
            kinds = {isinstance(one, Away) for one in found if isinstance(one, torch.Tensor) and one.ndim}
        if len(kinds) > 1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        return super().__torch_function__(function, types, args, kwargs or {})


def away(tensor):
    return tensor.detach().as_subclass(Away)


def test_the_other_device_of_these_tests_is_one():
    there, here = away(torch.arange(4.0)), torch.arange(4.0)
    for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: here[there.long()]):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        (there * 2).numpy()
    assert type(there.cpu()) is torch.Tensor and there[here.long()].tolist() == [0, 1, 2, 3]


def test_figures_take_tensors_of_any_device():
    network = cc.build("conv3", 10, 0, width=4)
    weights = {name: away(weight) for name, weight in network.named_parameters()}
    start = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    mask = cc.masks.magnitude(start, cc.masks.dense(start, cc.prunable(network)), 0.5)
    there, layer = {name: away(kept) for name, kept in mask.items()}, "conv2.weight"
    flat = torch.cat([weights[name].abs().flatten() for name in mask])
    cc.plots.magnitudes([flat, flat], [0.1, 0.1], 0.5)
    cc.plots.trained(weights, there)
    cc.plots.rewound(start, weights, there, layer)
    cc.plots.filters(there, there, layer)
    cc.plots.sizes_table({0: {"kept": flat}})
    cc.plots.picture_rows({"two": away(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))})


def test_images_of_any_device_are_split_and_measured(few):
    part = few.train
    there = cc.Images(away(part.pixels), away(part.labels), part.classes, part.mean, part.std, part.rows)
    for by in ("class", "random", "stratified", "order"):
        for mine, other in zip(cc.partition(there, 2, by), cc.partition(part, 2, by), strict=True):
            assert mine.labels.tolist() == other.labels.tolist()
    assert cc.data.channel_statistics(there) == cc.data.channel_statistics(part)
    held = cc.data.split_validation(there, 0.2)[1]
    assert held.labels.tolist() == cc.data.split_validation(part, 0.2)[1].labels.tolist()


@pytest.mark.parametrize(("side", "size"), [(3, 2), (7, 2), (28, 32), (8, 5), (26, 5), (10, 5)])
def test_pooling_by_windows_is_adaptive_pooling(side, size):
    x = torch.randn(2, 3, side, side + 1, dtype=torch.float64, requires_grad=True)
    pairs = ((functional.adaptive_avg_pool2d, torch.mean), (functional.adaptive_max_pool2d, torch.amax))
    for whole, take in pairs:
        one, other = whole(x, size), _by_windows(x, size, take)
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
        weights = torch.randn_like(one)
        slopes = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (one, other)]
        assert torch.allclose(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["alexnet", "lenet5", "fc1"])
def test_networks_pool_on_a_gpu_without_kernels_that_add_in_any_order(name, monkeypatch):
    called = []
    for kind in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d):
        monkeypatch.setattr(kind, "forward", lambda self, x: called.append(x))
    with FakeTensorMode(), torch.device("cuda"):
        assert cc.build(name, 10)(torch.zeros(2, 3, 36, 36)).shape == (2, 10)
    assert not called


def test_weights_may_get_their_first_gradient_late():
    start = nn.ParameterList([torch.randn(3), torch.randn(3)])
    mine, other = deepcopy(start), deepcopy(start)
    recipe = cc.Recipe.named("mini").changed(optimizer="sgd", momentum=0.9, weight_decay=0.0, learning_rate=0.1)
    optimizer, oracle = Optimizer(recipe, mine), torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    for step in range(3):
        for parameters in (mine, other):
            parameters[0].grad = torch.ones(3) * (step + 1)
            parameters[1].grad = torch.ones(3) if step else None
        optimizer.step()
        oracle.step()
    assert all(torch.allclose(a, b) for a, b in zip(mine, other, strict=True))
