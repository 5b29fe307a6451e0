"""Networks without their dead channels: the same function, physically smaller, rebuilt from name and arguments."""

import importlib.util
import pickle
from copy import deepcopy

import pandas as pd
import pytest
import torch
from torch import nn

import colt_core as cc
from colt_core import models
from colt_core.models.gather import Gather
from colt_core.publish.speed import in_words, speed

SIZES = {"torchvision:resnet50": 64, "torchvision:mobilenet_v2": 64, "torchvision:squeezenet1_1": 64}
NETWORKS = {
    "conv3": {"width": 8}, "resnet20": {}, "resnet18": {}, "mobilenetv2": {}, "shufflenetv2": {}, "densenet121": {},
    "lenet5": {}, "fc1": {"image_size": 8}, "torchvision:resnet50": {}, "torchvision:mobilenet_v2": {},
    "torchvision:mobilenet_v3_small": {}, "torchvision:squeezenet1_1": {},
}  # fmt: skip

SMALLER = {"torchvision:mobilenet_v3_small": 0.35}  # what its gates multiply is followed too


def settled(network, seed=0):
    """The network with statistics, scales, shifts and biases that are not those of an initialisation."""
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean = torch.randn(count, generator=rng) * 0.1
            module.running_var = torch.rand(count, generator=rng) + 0.5
            if module.affine:
                module.weight.data = torch.rand(count, generator=rng) + 0.5
                module.bias.data = torch.randn(count, generator=rng) * 0.3
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data = torch.randn(len(module.bias), generator=rng) * 0.1
    return network.eval()


def with_dead_rows(network, share=0.4, seed=1):
    """A mask that keeps half of the weights, and of each layer a share of the rows not at all."""
    rng = torch.Generator().manual_seed(seed)
    mask = {}
    for name, kept in cc.Ticket.of(network).mask.items():
        mask[name] = torch.rand(kept.shape, generator=rng) < 0.5
        dead = torch.randperm(len(kept), generator=rng)[: int(share * len(kept))]
        mask[name][dead] = False
        mask[name][(~mask[name].flatten(1).any(1)).logical_and(~torch.isin(torch.arange(len(kept)), dead))] = True
    return mask


def silence(network, mask):
    """The reference: masked in place, with what `silenced` names at zero too."""
    cc.masks.apply(mask, network)
    cc.masks.apply(cc.masks.silenced(mask, network), network)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compact_network_is_the_same_function(name):
    network = settled(cc.build(name, 10, seed=0, **NETWORKS[name]))
    mask = with_dead_rows(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    small = cc.compact(network, mask).eval()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "it is not changed"
    images = torch.randn(3, 3, SIZES.get(name, 32), SIZES.get(name, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = silence(network, mask)(images), small(images)
    scale = expected.abs().max()
    assert scale > 1e-3 and torch.allclose(found, expected, atol=1e-5 * max(1.0, float(scale)), rtol=1e-5)
    count = lambda one: sum(p.numel() for p in one.parameters())
    assert count(small) < SMALLER.get(name, 0.85) * count(network)
    shape = images.shape[1:]
    assert models.forward_flops(small, shape) < 0.95 * models.forward_flops(network, shape)


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_of_a_multiple_are_the_channels_that_layers_read_too(name):
    network = settled(cc.build(name, 10, seed=0))
    ticket = cc.Ticket.of(network, with_dead_rows(network))
    small = ticket.compact(8)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = silence(network, ticket.mask)(images), small.model().eval()(images)
    assert torch.allclose(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-5)
    layers = {name: one for name, one in small.model().named_modules() if isinstance(one, nn.Conv2d)}
    wide = {name: (one.in_channels, one.out_channels) for name, one in layers.items()}
    assert {name: read for name, (read, _) in wide.items() if read % 8 and read != 3} == {}
    assert {name: given for name, (_, given) in wide.items() if given % 8} == {}
    assert sum(given for _, given in wide.values()) < 0.85 * sum(
        one.out_channels for one in network.modules() if isinstance(one, nn.Conv2d)
    )


@pytest.mark.parametrize("places", [[0, 1, 3], [-1, 0, -1, 1, 2, 3, -1], [3, 1]])
def test_channels_are_moved_by_ones_as_by_indices_forwards_and_backwards(places):
    by_ones, by_indices = (Gather(torch.tensor(places), 4) for _ in "12")
    by_indices.by_ones = False
    x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    wanted = torch.stack([x[:, place] if place >= 0 else torch.zeros(3, 5, 6) for place in places], 1)
    weight, gradients = torch.linspace(-1, 1, wanted.numel()).view_as(wanted), []
    for module in (by_ones, by_indices):
        given = x.clone().requires_grad_()
        moved = module(given)
        assert torch.equal(moved, wanted)
        (moved * weight).sum().backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)
    assert by_ones(x).is_contiguous(memory_format=torch.channels_last)
    assert models.forward_flops(nn.Sequential(nn.Conv2d(3, 4, 1), by_ones), (3, 5, 6)) == 2 * 3 * 4 * 30


def test_the_bias_of_a_depthwise_layer_outside_the_mask_is_silenced_where_it_reads_zeros():
    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.dw, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1)
            self.head, self.prunable = nn.Linear(16, 10), ["a.weight", "b.weight"]

        def forward(self, x):
            return self.head(self.b(torch.relu(self.dw(torch.relu(self.a(x))))).mean((2, 3)))

    network = Depthwise().eval()
    mask = cc.Ticket.of(network).mask
    mask["a.weight"][2:] = False
    silent = cc.masks.silenced(mask, network)
    assert set(silent) == {"a.bias", "dw.bias"} and torch.equal(silent["dw.bias"], silent["a.bias"])
    small, x = cc.compact(network, mask), torch.randn(4, 3, 8, 8)
    cc.masks.apply(mask | silent, network)
    assert torch.allclose(small(x), network(x), atol=1e-5) and small.dw.weight.shape[0] == 2


def test_a_depthwise_layer_that_reads_nothing_alive_is_refused_in_one_line():
    network = cc.build("mobilenetv2", 10)
    weights = dict(network.named_parameters())
    mask = cc.masks.magnitude(weights, cc.Ticket.of(network).mask, 0.99, "layer")
    with pytest.raises(ValueError, match="^the mask leaves layer [^ ]+ without a channel$"):
        cc.compact(network, mask)


def test_silenced_are_scale_and_shift_of_what_normalises_a_dead_row():
    network = cc.build("conv3", 10, width=4)
    mask = cc.Ticket.of(network).mask
    mask["conv2.weight"][[1, 5]] = False
    silent = cc.masks.silenced(mask, network)
    assert set(silent) == {"norm2.weight", "norm2.bias"}
    assert all(torch.equal((~kept).nonzero().flatten(), torch.tensor([1, 5])) for kept in silent.values())
    assert cc.masks.silenced(cc.Ticket.of(network).mask, network) == {}
    with pytest.raises(ValueError, match="the mask is for another network"):
        cc.masks.silenced({"conv9.weight": torch.ones(1).bool()}, network)
    network = settled(cc.build("conv3", 10, width=4))
    cc.masks.apply(mask, network)
    hidden = []
    network.norm2.register_forward_hook(lambda _, __, out: hidden.append(out.clone()))
    network(torch.randn(2, 3, 32, 32))
    assert (hidden[0][:, [1, 5]] != 0).any(), "a row of zeros alone is no dead channel"
    cc.masks.apply(silent, network)
    network(torch.randn(2, 3, 32, 32))
    assert (hidden[1][:, [1, 5]] == 0).all() and (hidden[1][:, [0, 2]] != 0).any()


def test_inner_channels_are_those_that_a_residual_block_may_lose_and_the_stream_stays_whole():
    network = cc.build("resnet20", 10)
    mask = cc.Ticket.of(network).mask
    mask["stage1.0.conv1.weight"][3:9] = False
    mask["stage2.0.conv2.weight"][[0, 12]] = False
    small = cc.compact(network, mask)
    layers = dict(small.named_modules())
    assert layers["stage1.0.conv1"].out_channels == layers["stage1.0.conv2"].in_channels == 10
    assert layers["stage2.0.conv2"].out_channels == layers["stage2.0.bn2"].num_features == 30
    # Channel 12 of the stream has what the shortcut brings; channel 0, which that leaves zero, is gone altogether.
    assert layers["stage2.1.conv1"].in_channels == 31 and layers["stage2.0.conv1"].in_channels == 16


def test_the_oracle_of_another_library_finds_the_same_inner_channels():
    pruning = pytest.importorskip("torch_pruning")
    network = settled(cc.build("resnet18", 10))
    mask = cc.Ticket.of(network).mask
    dead = [2, 7, 40]
    mask["layer2.1.conv1.weight"][dead] = False
    small = cc.compact(network, mask).eval()
    other = settled(cc.build("resnet18", 10))
    graph = pruning.DependencyGraph().build_dependency(other, example_inputs=torch.randn(1, 3, 32, 32))
    graph.get_pruning_group(other.layer2[1].conv1, pruning.prune_conv_out_channels, idxs=dead).prune()
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(small(images), other(images), atol=1e-5)


def test_the_oracle_of_another_library_finds_the_same_chain_and_the_same_inner_channels_of_a_small_resnet():
    pruning = pytest.importorskip("torch_pruning")
    for name, options, layers in (
        ("conv3", {"width": 4}, {"conv1": [0, 3], "conv2": [2, 5, 6], "conv3": [1]}),
        ("resnet20", {}, {"stage1.2.conv1": [0, 9], "stage3.0.conv1": [5, 6, 60]}),
    ):
        network, other = (settled(cc.build(name, 10, **options)) for _ in "12")
        mask = cc.Ticket.of(network).mask
        for layer, dead in layers.items():
            mask[f"{layer}.weight"][dead] = False
            graph = pruning.DependencyGraph().build_dependency(other, example_inputs=torch.randn(1, 3, 32, 32))
            group = graph.get_pruning_group(other.get_submodule(layer), pruning.prune_conv_out_channels, idxs=dead)
            group.prune()
        small, images = cc.compact(network, mask).eval(), torch.randn(2, 3, 32, 32)
        assert torch.allclose(small(images), other(images), atol=1e-5)
        theirs = widths(other)
        assert {layer: count for layer, count in widths(small).items() if layer in theirs} == theirs


def test_the_operations_of_a_compact_chain_are_those_of_its_formula():
    network = cc.build("conv3", 10, width=8)
    mask = with_dead_rows(network)
    small = cc.compact(network, mask)
    rows = [3, *(int(kept.flatten(1).any(1).sum()) for name, kept in mask.items() if kept.ndim == 4)]
    places = [32 * 32, 16 * 16, 8 * 8]
    expected = sum(2 * k * read * 9 * n for read, k, n in zip(rows, rows[1:], places, strict=False))
    head = 2 * small.head.weight.numel()
    assert models.forward_flops(small) == expected + head and rows[1:] == [5, 10, 20]


def test_a_compact_network_trains_and_every_parameter_takes_part(few):
    network = cc.build("resnet20", 10)
    small = cc.compact(network, with_dead_rows(network))
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    before = {name: value.clone() for name, value in small.named_parameters()}
    cc.train(small, few.train, recipe, device="cpu")
    assert all(not torch.equal(value, before[name]) for name, value in small.named_parameters())


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_compact_ticket_is_built_again_from_its_file_and_trains_like_any(few, tmp_path, multiple):
    network = settled(cc.build("conv3", 10, width=8))
    ticket = cc.Ticket.of(network, with_dead_rows(network))
    small = ticket.compact(multiple)
    rows = {"conv1.weight": 5, "conv2.weight": 10, "conv3.weight": 20}
    wanted = {name: -(-count // multiple) * multiple for name, count in rows.items()}
    assert {name: len(kept) for name, kept in small.mask.items()} == wanted
    assert small.architecture["name"] == "compact:conv3" and small.provenance["parent"] == ticket.hash
    left = cc.masks.count(ticket.mask) - cc.masks.count(small.mask)
    assert left > 0 if multiple == 1 else left >= 0, "weights that read what is gone are gone too"
    read = cc.Ticket.load(small.save(tmp_path / "small.safetensors"))
    assert read.hash == small.hash
    images = torch.randn(2, 3, 32, 32)
    expected = silence(network, ticket.mask)(images)
    assert torch.allclose(read.model().eval()(images), expected, atol=1e-5)
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    scores = [cc.evaluate(one, few, recipe, device="cpu").accuracy for one in (read, small)]
    assert scores[0] == scores[1]
    parts, how = cc.partition(few.train, 2), {"rate": 0.3, "target": 0.3, "device": "cpu"}
    found = [list(cc.colt(read.model(), parts, recipe, workers=count, **how)) for count in (1, 2)]
    assert found[0][-1].ticket.hash == found[1][-1].ticket.hash, "workers build it too"
    again = read.compact(multiple)
    assert again.architecture["arguments"] == read.architecture["arguments"], "nothing is left to be cut"
    assert read.redraw(3).theta0["conv1.weight"].shape == read.theta0["conv1.weight"].shape


@pytest.mark.parametrize("name, options", [("conv3", {"width": 8}), ("resnet20", {}), ("toys:Inverted", {})])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_silent_ticket_and_its_compact_form_are_one_function_while_they_train(name, options, multiple):
    network = settled(cc.build(name, 10, seed=0, **options))
    mask = with_dead_rows(network)
    if name == "toys:Inverted":  # of the depthwise layer others are gone than before it
        mask["depth.weight"][:] = True
    ticket = cc.Ticket.of(network, mask).silent()
    small = ticket.compact(multiple)
    assert ("silent" in small.architecture) == (multiple > 1), "else nothing is left to be silent"
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    outputs = []
    for one in (ticket, small):
        learner = one.model().train()
        held = one.mask_for(learner)
        optimiser = torch.optim.SGD(learner.parameters(), 0.05)
        for _ in range(3):
            cc.masks.apply(held, learner)
            optimiser.zero_grad()
            nn.functional.cross_entropy(learner(images), labels).backward()
            optimiser.step()
        cc.masks.apply(held, learner)
        outputs.append(learner.eval()(images))
    assert torch.allclose(*outputs, atol=1e-4)


def test_compacting_twice_counts_rows_in_the_whole_network():
    network = settled(cc.build("conv3", 10, width=8))
    ticket = cc.Ticket.of(network, with_dead_rows(network))
    once = ticket.compact()
    mask = {name: kept.clone() for name, kept in once.mask.items()}
    mask["conv2.weight"][:2] = False
    twice = once.derived(mask=mask).compact()
    assert len(twice.mask["conv2.weight"]) == len(mask["conv2.weight"]) - 2
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(twice.model().eval()(images), silence(once.model().eval(), mask)(images), atol=1e-5)


@pytest.mark.parametrize("name, depthwise", [("mobilenetv2", False), ("mobilenetv2", True), ("resnet20", False)])
def test_networks_of_residual_blocks_and_depthwise_convolutions_are_made_compact_twice(name, depthwise):
    network = settled(cc.build(name, 10, seed=0))
    mask = {name: torch.ones_like(kept) for name, kept in cc.Ticket.of(network).mask.items()}
    layers = [name for name, kept in mask.items() if kept.ndim == 4][3:12]
    for name in layers:
        if mask[name].shape[1] > 1:  # a depthwise one loses with it what it reads
            mask[name][:4] = False
    once = cc.Ticket.of(network, mask).compact()
    mask = {name: kept.clone() for name, kept in once.mask.items()}
    for name in layers:
        if (mask[name].shape[1] == 1) == depthwise:
            mask[name][:2] = False
    twice = once.derived(mask=mask).compact()
    assert sum(kept.numel() for kept in twice.mask.values()) < sum(kept.numel() for kept in once.mask.values())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = twice.model().eval()(images), silence(once.model().eval(), mask)(images)
    assert torch.allclose(found, expected, atol=1e-5 * max(1, float(expected.abs().max())))


# --- what is followed, and what stays whole ----------------------------------------------------------------------


def assert_same_function(network, mask=None, images=None):
    """The law: compact is the masked network, its dead channels silenced. Return the compact one."""
    network = settled(network)
    mask = with_dead_rows(network) if mask is None else mask
    small = cc.compact(network, mask).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)) if images is None else images
    with torch.no_grad():
        expected, found = silence(network, mask)(images), small(images)
    scale = float(expected.abs().max())
    assert scale > 1e-3 and torch.allclose(found, expected, atol=1e-5 * max(1.0, scale), rtol=1e-5)
    return small


def widths(network):
    return {n: len(m.weight) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


class Layers(nn.Module):
    """Layers by name, and a forward pass that is given: of the module and the images."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.how = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.how(self, x)


class Standardised(nn.Conv2d):
    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        spread = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return self._conv_forward(x, (self.weight - mean) / spread, self.bias)


class Lifted(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


class Threefold(nn.Linear):
    def forward(self, x):
        return super().forward(x) + self.weight.sum()


class Above(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 0.5


def two(middle=None, last=None, act=None):
    """Two convolutions, what is given between and behind them, and a head."""
    middle, last = middle or nn.BatchNorm2d(8), last or nn.Conv2d(8, 8, 3, padding=1)
    layers = {"c1": nn.Conv2d(3, 8, 3), "middle": middle, "act": act or nn.ReLU(), "c2": last, "fc": nn.Linear(8, 10)}
    return Layers(lambda s, x: s.fc(s.c2(s.act(s.middle(s.c1(x)))).mean((2, 3))), **layers)


@pytest.mark.parametrize(
    "network",
    [
        two(nn.BatchNorm2d(8, affine=False)), two(Lifted(8)), two(last=Standardised(8, 8, 3)), two(act=Above()),
        two(act=nn.Hardtanh(0.5, 2)), two(act=nn.Hardtanh(-2, -0.5)), two(nn.GroupNorm(4, 8)), two(nn.PReLU(8)),
    ],
    ids=["no affine", "a norm's own", "standardised", "an act's own", "hardtanh", "below zero", "group norm", "prelu"],
)  # fmt: skip
def test_what_gives_a_dead_channel_a_value_is_not_read_as_plain(network):
    small = assert_same_function(network)
    assert small.c1.out_channels == 5, "the row before it goes all the same"


def test_alpha_dropout_gives_dead_channels_a_value_in_training_and_its_reader_keeps_them():
    small = assert_same_function(two(act=nn.Sequential(nn.SELU(), nn.AlphaDropout(0.5))))
    assert (small.c1.out_channels, small.c2.in_channels) == (5, 8)


def test_a_linear_layer_with_a_forward_of_its_own_stays_whole():
    small = assert_same_function(
        Layers(
            lambda s, x: s.fc(s.own(s.c1(x).mean((2, 3))).relu()),
            c1=nn.Conv2d(3, 8, 3), own=Threefold(8, 12), fc=nn.Linear(12, 10),
        )
    )  # fmt: skip
    assert widths(small) == {"c1": 5, "own": 12, "fc": 10}


def test_images_flattened_to_several_sizes_are_told_apart():
    def forward(s, x):
        a = nn.functional.max_pool2d(s.c1(x).relu(), 4)
        b = nn.functional.max_pool2d(s.c2(a).relu(), 2)
        return s.fc(torch.cat([a.flatten(1), b.flatten(1)], 1))

    layers = {"c1": nn.Conv2d(3, 8, 3, padding=1), "c2": nn.Conv2d(8, 8, 3, padding=1)}
    small = assert_same_function(Layers(forward, **layers, fc=nn.Linear(8 * 64 + 8 * 16, 10)))
    assert widths(small) == {"c1": 5, "c2": 5, "fc": 10} and small.fc.in_features == 640

    def pooled(s, x):
        a = s.c1(x).relu()
        parts = [a.mean((2, 3)), nn.functional.adaptive_avg_pool2d(s.c2(a), 1).flatten(1), a[:, :, 0, 0]]
        return s.fc(torch.cat(parts, 1))

    small = assert_same_function(Layers(pooled, **layers, fc=nn.Linear(24, 10)))
    assert small.fc.in_features == 15, "of one place a channel they are followed"

    def normalised(s, x):
        return s.fc(s.norm(nn.functional.avg_pool2d(s.c1(x), 8).flatten(1)))

    assert_same_function(Layers(normalised, c1=layers["c1"], norm=nn.LayerNorm(128), fc=nn.Linear(128, 10)))


GATES = {
    "sigmoid": torch.sigmoid, "module": nn.Hardsigmoid(), "in place": nn.Hardsigmoid(inplace=True),
    "by hand": lambda x: nn.functional.relu6(x + 3) / 6, "one less": lambda x: 1 - x.sigmoid(),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_what_a_gate_multiplies_is_followed(gate):
    def forward(s, x):
        x = s.c1(x).relu()
        return s.fc(s.c2(x * s.gate(s.f2(s.f1(x.mean((2, 3))).relu()))[:, :, None, None]).mean((2, 3)))

    def pooled(s, x):
        x = s.c1(x).relu()
        return s.fc(s.c2(x * s.gate(s.g2(s.g1(x.mean((2, 3), keepdim=True)).relu()))).mean((2, 3)))

    layers = {"c1": nn.Conv2d(3, 8, 3), "c2": nn.Conv2d(8, 6, 3), "fc": nn.Linear(6, 10)}
    linear = {"f1": nn.Linear(8, 4), "f2": nn.Linear(4, 8)}
    small = assert_same_function(Layers(pooled, **layers, g1=nn.Conv2d(8, 4, 1), g2=nn.Conv2d(4, 8, 1), gate=Act(gate)))
    assert widths(small) == {"c1": 5, "g1": 3, "g2": 5, "c2": 4, "fc": 10}
    assert small.c2.in_channels == small.g1.in_channels == 5
    assert_same_function(Layers(forward, **layers, **linear, gate=Act(gate)))


class Act(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.act = GATES[name]

    def forward(self, x):
        return self.act(x)


def recurrent(s, x):
    x = s.b1(s.c1(x)).relu()
    for _ in range(3):
        x = s.b2(s.c2(x)).relu()
    return s.fc(x.mean((2, 3)))


def read_elsewhere(s, x):
    return s.fc(s.c2(s.b1(s.c1(x)).relu()).mean((2, 3))) + s.c2.weight.mean()


@pytest.mark.parametrize("forward", [recurrent, read_elsewhere])
def test_a_layer_that_is_read_more_than_once_stays_whole(forward):
    norms = {"b1": nn.BatchNorm2d(8), "b2": nn.BatchNorm2d(8)}
    layers = {"c1": nn.Conv2d(3, 8, 3), "c2": nn.Conv2d(8, 8, 3, padding=1), "fc": nn.Linear(8, 10)}
    network = Layers(forward, **layers, **norms)
    mask = with_dead_rows(network)
    assert widths(assert_same_function(network, mask)) == {"c1": 5, "c2": 8, "fc": 10}
    mask["c2.weight"][:] = False
    assert widths(cc.compact(network, mask))["c2"] == 8, "it may be empty: it is there"


@pytest.mark.parametrize("shared", ["n1.weight", "n1.bias", "c2.weight", "c2.bias"])
def test_layers_that_share_a_parameter_stay_whole_and_go_on_sharing(shared):
    def forward(s, x):
        return s.fc(s.n2(s.c3(s.n1(s.c2(s.c1(x)).relu()))).mean((2, 3)))

    convolutions = {"c1": nn.Conv2d(3, 8, 3), "c2": nn.Conv2d(8, 8, 3), "c3": nn.Conv2d(8, 8, 3)}
    network = Layers(forward, **convolutions, n1=nn.BatchNorm2d(8), n2=nn.BatchNorm2d(8), fc=nn.Linear(8, 10))
    kind, part = shared.split(".")
    other = {"n1": "n2", "c2": "c3"}[kind]
    setattr(network.get_submodule(other), part, network.get_parameter(shared))
    network.prunable = ["c*.weight"]
    mask = with_dead_rows(network)
    small = cc.compact(network.eval(), mask)
    assert small.get_parameter(shared) is small.get_parameter(f"{other}.{part}")
    expected = silence(deepcopy(network), mask)
    assert cc.masks.silenced(mask, network).keys().isdisjoint([shared, f"{other}.{part}"])
    images = torch.randn(2, 3, 12, 12)
    assert torch.allclose(small(images), expected(images), atol=1e-5)
    assert widths(small) == {"c1": 5, "fc": 10} | ({"c2": 8, "c3": 8} if kind == "c2" else {"c2": 5, "c3": 5})


def test_a_tensor_concatenated_with_itself_has_its_channels_twice():
    def forward(s, x):
        x = s.c1(x).relu()
        return s.fc(s.c2(torch.cat([x, x], 1)).mean((2, 3)))

    layers = {"c1": nn.Conv2d(3, 8, 3), "c2": nn.Conv2d(16, 8, 3), "fc": nn.Linear(8, 10)}
    assert assert_same_function(Layers(forward, **layers)).c2.in_channels == 10


def tokens(s, x):
    x = s.c1(x).flatten(2).transpose(1, 2)
    return s.fc((x + s.f2(s.f1(s.norm(x)).relu())).mean(1))


def channels_last(s, x):
    x = s.c1(x)
    y = s.f2(s.f1(s.norm(x.permute(0, 2, 3, 1))).relu()).permute(0, 3, 1, 2)
    return s.fc((x + y).mean((2, 3)))


def over_places(s, x):
    x = s.c1(x).flatten(2)
    return s.fc((x + s.f2(s.f1(x))).mean(2))


@pytest.mark.parametrize("forward", [tokens, channels_last, over_places])
def test_a_linear_layer_of_anything_but_channels_stays_whole(forward):
    linear = {"f1": nn.Linear(16, 32), "f2": nn.Linear(32, 16), "fc": nn.Linear(16, 10)}
    small = assert_same_function(Layers(forward, c1=nn.Conv2d(3, 16, 8, 8), norm=nn.LayerNorm(16), **linear))
    assert widths(small) == {"c1": 10, "f1": 32, "f2": 16, "fc": 10}


def test_hidden_layers_of_a_view_are_cut_and_those_that_add_over_the_width_are_not_mixed_up():
    def viewed(s, x):
        return s.fc(s.f1(nn.functional.max_pool2d(s.c1(x).relu(), 8).view(len_of(x), -1)).relu())

    len_of = lambda x: x.size(0)
    layers = {"c1": nn.Conv2d(3, 8, 3, padding=1), "f1": nn.Linear(128, 20), "fc": nn.Linear(20, 10)}
    assert widths(assert_same_function(Layers(viewed, **layers))) == {"c1": 5, "f1": 12, "fc": 10}

    def broadcast(s, x):
        x = nn.functional.adaptive_avg_pool2d(s.c1(x), 8)
        return s.fc((x * s.f1(x.mean((2, 3)))[:1]).mean((2, 3)))

    assert_same_function(Layers(broadcast, c1=layers["c1"], f1=nn.Linear(8, 8), fc=nn.Linear(8, 10)))


NOT_FOLLOWED = {
    "timm:test_convnext": {}, "timm:test_mambaout": {}, "timm:test_nfnet": {},
    "timm:vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "timm:swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1)},
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_transformers_and_their_like_stay_whole_where_they_are_not_followed(name):
    pytest.importorskip("timm")
    assert_same_function(cc.build(name, 10, seed=0, **NOT_FOLLOWED[name]), images=torch.randn(2, 3, 64, 64))


def test_negative_padding_of_channels_and_padding_of_the_batch_are_not_followed():
    for widths in ((0, 0, 0, 0, -1, 1), (0, 0, 0, 0, 2, 0, 1, 0)):
        small = assert_same_function(
            Layers(
                lambda s, x, widths=widths: s.fc(nn.functional.pad(s.c1(x), widths).mean((2, 3))),
                c1=nn.Conv2d(3, 8, 3), fc=nn.Linear(8 + sum(widths[4:6]), 10),
            )
        )  # fmt: skip
        assert widths[4] > 0 or small.fc.in_features == 8


# --- training and evaluation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", ["dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout"])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_by_a_function_follows_the_mode(drop, training):
    def forward(s, x):
        return s.fc(s.c2(getattr(nn.functional, drop)(s.c1(x).relu(), 0.5, training=s.training)).mean((2, 3)))

    layers = {"c1": nn.Conv2d(3, 8, 3), "c2": nn.Conv2d(8, 8, 3), "fc": nn.Linear(8, 10)}
    network = Layers(forward, **layers)
    mask, images = with_dead_rows(network), torch.randn(2, 3, 32, 32)
    small = cc.compact(network.train(training), mask)
    assert small.training == network.training == training and all(m.training == training for m in network.modules())
    assert not torch.equal(small.train()(images), small(images))
    assert torch.equal(small.eval()(images), small(images))
    assert torch.allclose(small(images), silence(network.eval(), mask)(images), atol=1e-5)
    assert not torch.equal(small.train()(images), small(images)), "and back"


def test_a_compact_ticket_of_a_network_with_dropout_is_loaded_exported_and_copied(tmp_path):
    network = settled(cc.build("toys:Dropping", 10)).train()
    ticket = cc.Ticket.of(network, with_dead_rows(network))
    read = cc.Ticket.load(ticket.compact().save(tmp_path / "small.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    expected = silence(network.eval(), ticket.mask)(images)
    for small in (read.model(), deepcopy(read.model()), read.compact().model()):
        assert torch.allclose(small.eval()(images), expected, atol=1e-5)
        assert not torch.equal(small.train()(images), small(images))
    pytest.importorskip("onnxruntime")
    assert "outputs within" in cc.export(ticket, tmp_path / "small.onnx", timed=False)


class Optional(nn.Module):
    """A forward pass that may be given more than images."""

    def __init__(self, classes):
        super().__init__()
        self.c1, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)

    def forward(self, x, temperature=None, scale=2.0, sizes=(2, 3), *, gate: torch.Tensor | None = None):
        x = self.fc(self.c1(x).relu().mean(sizes)) * scale
        x = x if temperature is None else x / temperature
        return x if gate is None else x * gate


def test_optional_arguments_are_left_at_their_defaults():
    small = assert_same_function(Optional(10))
    images = torch.randn(3, 3, 8, 8)
    for other in (deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(other(images), small(images))


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


def test_a_module_that_computes_something_else_in_training_is_taken_as_it_stands():
    small = assert_same_function(two(middle=Noise()))
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(small.train()(images), small(images))

    def forward(s, x):
        x = s.fc(s.c1(x).mean((2, 3)))
        return x if s.training else x.softmax(1)

    network = Layers(forward, c1=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 10))
    with pytest.raises(ValueError, match="the channels of Layers cannot be followed .it computes something else in tr"):
        cc.compact(network, with_dead_rows(network))


def test_what_is_frozen_or_in_a_mode_of_its_own_stays_so_also_compacted_twice_pickled_and_copied():
    network = settled(cc.build("toys:Inverted", 10))
    network.norm1.train()
    for name in ("stem.weight", "depth.weight", "norm2.weight", "squeeze.bias"):
        network.get_parameter(name).requires_grad_(False)
    small = cc.compact(network, with_dead_rows(network))
    mask = cc.Ticket.of(small).mask
    mask["expand.weight"][:2] = False
    again = cc.compact(small, mask)
    assert len(again.expand.weight) < len(small.expand.weight) < len(network.expand.weight)
    for one in (small, again, deepcopy(pickle.loads(pickle.dumps(again)))):
        assert all(p.requires_grad == network.get_parameter(n).requires_grad for n, p in one.named_parameters())
        own = {name: module.training for name, module in network.named_modules()}
        assert all(module.training == own.get(name, False) for name, module in one.named_modules())
        assert cc.Ticket.of(one).architecture["name"] == "compact:toys:Inverted" and models.is_as_built(one)


def test_following_leaves_nothing_in_a_network():
    def forward(s, x):
        return s.fc(s.c1(x).mean((2, 3))) * torch.tensor(2.0)

    network = Layers(forward, c1=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 10))
    before = set(vars(network))
    assert_same_function(network)
    assert set(vars(network)) == before


def added(s, a, x):
    a.add_(s.c2(x))


def added_by_another_name(s, a, x):
    b = a
    b += s.c2(x)


def gated_in_place(s, a, x):
    s.act(a)
    nn.functional.hardsigmoid(s.c2(a), inplace=True)


def multiplied_in_a_row(s, a, x):
    a.mul_(s.c2(x)).add_(1)


def counted(s, a, x):
    count = a.size(0)
    twice = count
    twice += twice
    a.relu_()


@pytest.mark.parametrize("write", [added, added_by_another_name, gated_in_place, multiplied_in_a_row, counted])
def test_a_tensor_that_is_written_into_is_read_as_written(write):
    def forward(s, x):
        a = s.c1(x)
        count = a.shape[0]
        write(s, a, x)
        return s.fc(s.c3(a).mean((2, 3)).view(count, -1))

    layers = {name: nn.Conv2d(3, 3, 3, padding=1) for name in ("c1", "c2")} | {"c3": nn.Conv2d(3, 8, 3)}
    network = Layers(forward, **layers, fc=nn.Linear(8, 10), act=nn.Hardsigmoid(inplace=True))
    mask = cc.Ticket.of(network).mask
    mask["c1.weight"][:2] = mask["c3.weight"][2:] = False
    small = assert_same_function(network, mask)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(small))(images), small(images))


@pytest.mark.parametrize("view", [lambda s, a: a[:, 1:], lambda s, a: s.same(a), lambda s, a: a.flatten(2)])
def test_a_tensor_that_is_written_into_through_a_view_is_refused(view):
    def forward(s, x):
        a = s.c1(x)
        b = view(s, a)
        b += 1
        return s.fc(a.mean((2, 3)))

    network = Layers(forward, c1=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 10), same=nn.Identity())
    with pytest.raises(ValueError, match=r"\(add writes into a tensor of which a view is read later\)$"):
        cc.compact(network, with_dead_rows(network))


# --- refusals ----------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


def test_what_cannot_be_made_compact_is_refused_in_one_line():
    network = cc.build("conv3", 10, width=4)
    mask = cc.Ticket.of(network).mask
    empty = mask | {"conv2.weight": torch.zeros_like(mask["conv2.weight"])}
    with pytest.raises(ValueError, match="the mask leaves layer conv2 without a channel"):
        cc.compact(network, empty)
    with pytest.raises(ValueError, match="multiple must be a whole number from 1, not 0"):
        cc.compact(network, mask, multiple=0)
    with pytest.raises(ValueError, match="a network .torch.nn.Module. is made compact, not 'conv3'"):
        cc.compact("conv3", mask)
    for odd in (None, ["conv2.weight"], mask | {"conv2.weight": [True]}):
        with pytest.raises(ValueError, match="^a mask holds [^\n]*$"):
            cc.compact(network, odd)
    with pytest.raises(ValueError, match="the channels of Branching cannot be followed"):
        cc.compact(Branching(), cc.Ticket.of(Branching()).mask)
    network.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="the network has forward hooks, which its compact form would not call"):
        cc.compact(network, with_dead_rows(network))
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.Identity(), Branching()))
    where = r"the channels of Sequential cannot be followed in 1\.1, a Branching \(symbolically traced"
    with pytest.raises(ValueError, match=where):
        cc.compact(inner, cc.Ticket.of(inner).mask)
    with pytest.raises(ValueError, match="the rows of conv1 must be as a compact ticket says them"):
        cc.build("compact:conv3", 10, rows={"conv1": "4:ffff"}, width=4)
    with pytest.raises(ValueError, match="layer conv1 has 4 rows, not 8"):
        cc.build("compact:conv3", 10, rows={"conv1": "8:ff"}, width=4)


def test_a_head_that_is_pruned_keeps_its_classes():
    network = settled(cc.build("conv3", 10, width=4))
    names = cc.prunable(network, head=True)
    mask = cc.masks.dense(dict(network.named_parameters()), names)
    mask["head.weight"][3] = False
    small = cc.compact(network, mask).eval()
    images = torch.randn(2, 3, 32, 32)
    cc.masks.apply(mask, network)
    assert small.head.out_features == 10 and torch.allclose(small(images), network(images), atol=1e-6)


# --- speed -------------------------------------------------------------------------------------------------------


def test_speed_tells_every_form_beside_the_dense_one():
    network = cc.build("conv3", 10, width=16)
    ticket = cc.Ticket.of(network, with_dead_rows(network, 0.5))
    before = torch.get_num_threads()
    speed(ticket, batches=(1,), threads=(before + 1,), rounds=1, seconds=0.001, device="cpu")
    table = speed(ticket, batches=(2, 8), threads=(1,), rounds=2, seconds=0.01, device="cpu")
    assert list(table["form"]) == ["dense", "masked", "compact"] * 2
    dense, masked, small = (table[table["form"] == form].iloc[0] for form in ("dense", "masked", "compact"))
    assert dense["faster"] == 1 and dense["parameters"] == masked["parameters"] > small["parameters"]
    assert small["flops"] < 0.5 * dense["flops"] == 0.5 * masked["flops"]
    assert (table["low"] <= table["latency"]).all() and (table["latency"] <= table["high"]).all()
    assert (table["throughput"] * table["latency"] / 1e3).round(3).equals(table["batch"].astype(float))
    assert torch.get_num_threads() == before, "the caller's threads are left as they were"
    for wrong, told in (
        ({"batches": ()}, "batches must be whole numbers from 1"), ({"rounds": 0}, "rounds must be"),
        ({"seconds": 0}, "seconds must be a number above 0, not 0"), ({"seconds": "x"}, "seconds must be a number"),
        ({"threads": []}, "threads must be"), ({"batches": 256}, "batches must be whole numbers from 1, not 256"),
        ({"batches": [2.0]}, "batches must be"), ({"batches": [float("inf")]}, "batches must be"),
        ({"rounds": None}, "rounds must be"), ({"seconds": None}, "seconds must be a number above 0, not None"),
        ({"runtime": "tensorrt"}, "unknown runtime 'tensorrt'; allowed: pytorch, onnx"),
        ({"runtime": "onnx", "device": "cuda"}, "ONNX Runtime is measured on the CPU: device must be auto or cpu, not"),
        ({"shape": (32, 32)}, r"shape must be channels, height and width, for example \(3, 32, 32\), not \(32, 32\)"),
        ({"shape": (1, 32, 32)}, r"conv3 cannot take images of 32 x 32 pixels .*; the images' shape is \(1, 32, 32\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            speed(ticket, **wrong)


def test_it_is_said_in_words_that_scattered_zeros_make_nothing_faster():
    rows = [("dense", 1.0, 9), ("masked", 0.98, 9), ("compact", 1.02, 8)]
    rows += [("dense", 1.0, 9), ("masked", 1.03, 9), ("compact", 0.99, 8)]
    told = in_words(pd.DataFrame(rows, columns=["form", "faster", "flops"]))
    assert told == (
        "masked: 0.98 to 1.03 times dense's speed, as many multiplications: no faster; "
        "compact: 0.99 to 1.02 times dense's speed, hardly faster."
    )
    network = cc.build("conv3", 10, width=4)
    weights = dict(network.named_parameters())
    scattered = cc.Ticket.of(network, cc.masks.magnitude(weights, cc.Ticket.of(network).mask, 0.7))
    table = speed(scattered, batches=(1,), threads=(1,), rounds=1, seconds=0.001, device="cpu")
    table["faster"] = 1.5  # as a busy machine measures it now and then
    assert in_words(table).count("1.50 times dense's speed, as many multiplications: no faster") == 2
    fast = [("dense", 1.0, 9), ("masked", 1.0, 9), ("compact", 2.5, 3)]
    told = in_words(pd.DataFrame(fast, columns=["form", "faster", "flops"]))
    assert told == (
        "masked: 1.00 times dense's speed, as many multiplications: no faster; compact: 2.50 times dense's speed."
    )


def test_a_network_that_is_measured_or_written_stays_as_it_was(tmp_path):
    network = cc.build("conv3", 10, width=4).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    speed(network, batches=(1,), threads=(1,), rounds=1, seconds=0.001)
    if importlib.util.find_spec("onnxruntime"):
        cc.export(network, tmp_path / "a.onnx")
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.conv2.weight.is_contiguous() and next(network.parameters()).requires_grad


def test_onnx_runtime_answers_on_the_cpu_and_its_rows_say_so(monkeypatch):
    monkeypatch.setattr("colt_core.publish.speed.cores", lambda: 2)
    monkeypatch.setattr(
        "colt_core.publish.speed.choose_device", lambda d: torch.device("cpu" if d == "cpu" else "cuda")
    )
    monkeypatch.setattr("colt_core.publish.runtime.session_of", lambda *_: lambda: None)
    table = speed(cc.build("conv3", 10, width=4), runtime="onnx", batches=(1,), rounds=1, seconds=0.001)
    assert list(table["device"]) == ["cpu"] * 2 and list(table["threads"]) == [1, 2]


class Spectrum(nn.Module):
    """Singular values: ONNX has no operator for them."""

    def __init__(self, twice=False):
        super().__init__()
        self.conv, self.twice = nn.Conv2d(3, 4, 3), twice

    def forward(self, pixels):
        found = self.conv(pixels).mean((2, 3))
        return (found, found) if self.twice else torch.linalg.svdvals(found[:, :, None].expand(-1, -1, 4))


def test_what_cannot_be_written_or_measured_is_one_line_and_leaves_no_file(tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    plain, grey = cc.build("conv3", 10, width=4), cc.build("conv3", 10, width=4, channels=1)
    for network, told in (
        (Spectrum(), r"cannot be written as ONNX: ONNX has no operator aten\._linalg_svd"),
        (Spectrum(twice=True), "the network gives a tuple; a tensor is expected: wrap the network"),
        (plain.double(), "the network's weights are float64, and images are float32"),
        (cc.Ticket.of(plain.double()), "the network's weights are float64, and images are float32"),
        (grey, r"conv3 cannot take images of 32 x 32 pixels .*; the images' shape is \(3, 32, 32\)"),
    ):
        with pytest.raises(ValueError, match=told) as problem:
            cc.export(network, tmp_path / "a.onnx")
        assert str(problem.value).isprintable() and not list(tmp_path.iterdir())
    for network in (plain.double(), grey):
        with pytest.raises(ValueError, match="float32|cannot take images of 32 x 32"):
            speed(network, batches=(1,), threads=(1,), rounds=1, seconds=0.001)
    assert "on 64 random images" in cc.export(grey, tmp_path / "grey.onnx", shape=(1, 28, 28))
    assert capfd.readouterr() == ("", "")


class Strict(nn.Module):
    """A network that looks at what it is given: it cannot be followed, hence not be made compact."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, pixels):
        if pixels.shape[1] != 3:
            raise ValueError("three channels")
        return self.head(self.conv(pixels).relu().mean((2, 3)))


def test_what_cannot_be_made_compact_is_measured_and_written_under_its_mask(tmp_path):
    ticket = cc.Ticket.of(Strict())
    with pytest.warns(UserWarning, match="the compact form is left out: the channels of Strict cannot be followed"):
        table = speed(ticket, batches=(1,), threads=(1,), rounds=1, seconds=0.001, device="cpu")
    assert table["form"].tolist() == ["dense", "masked"]
    if importlib.util.find_spec("onnxruntime"):
        told = cc.export(ticket, tmp_path / "a.onnx", form="masked", timed=False)
        assert told.startswith("a.onnx: ")
        with pytest.raises(ValueError, match="the channels of Strict cannot be followed"):
            cc.export(ticket, tmp_path / "b.onnx", timed=False)


def test_an_onnx_file_answers_as_pytorch_does_and_it_is_said_what_is_no_faster(tmp_path, mini):
    pytest.importorskip("onnxruntime")
    network = settled(cc.build("conv3", 10, width=8))
    ticket = cc.Ticket.of(network, with_dead_rows(network))
    told = cc.export(ticket, tmp_path / "small.onnx", timed=False)
    assert "MB, outputs within" in told and (tmp_path / "small.onnx").stat().st_size > 1000
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    images = torch.randn(5, 3, 32, 32)
    [found] = session.run(None, {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), silence(network, ticket.mask)(images), atol=1e-4)
    for arguments, message in (
        ({"path": tmp_path / "small.pt"}, "the file must end with .onnx"),
        ({"path": None}, "the file must be a path that ends with .onnx, not None"),
        ({"path": tmp_path / "a.onnx", "images": mini}, "images must be a set of images, for example dataset.test, n"),
        ({"path": tmp_path / "a.onnx", "form": "tiny"}, "unknown form 'tiny'; allowed: compact, masked, dense"),
    ):
        with pytest.raises(ValueError, match=message):
            cc.export(ticket, **arguments)


def test_a_missing_library_of_onnx_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.publish.runtime.NEEDED", ("onnx", "onnx_of_nobody"))
    with pytest.raises(ValueError, match=r"ONNX files need onnx_of_nobody: pip install 'colt-workbook\[export\]'"):
        cc.export(cc.Ticket.of(cc.build("conv3", 10, width=4)), tmp_path / "a.onnx")
