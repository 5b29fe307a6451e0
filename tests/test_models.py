import pytest
import torch

import colt_core as cc
from colt_core import models
from colt_core.models import zoo


@pytest.mark.parametrize(("name", "weights"), [("conv3", 370_368), ("resnet18", 11_159_232)], ids=["conv3", "resnet18"])
def test_prunable_weights_are_the_papers_count(name, weights):
    network = cc.build(name, 10)
    names = cc.prunable(network)
    assert sum(network.get_parameter(n).numel() for n in names) == weights
    assert all(network.get_parameter(n).ndim == 4 for n in names)


def test_resnet20_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in cc.build("resnet20", 10).parameters()) == 269_722  # He et al.: 0.27 million
    assert [len(cc.prunable(cc.build(f"resnet{d}", 10))) for d in (20, 32, 44, 56)] == [19, 31, 43, 55]


CLASSIFIERS = [name for name in models.NETWORKS if models.declared_objective(name) is None]


@pytest.mark.parametrize("name", [name for name in models.NETWORKS if name != "dcgan"])  # has a size of its own
def test_every_network_takes_small_images_of_any_size(name):
    network = cc.build(name, 7).eval()
    with torch.no_grad():
        for size in (32, 64):
            given = (2, 7) if name in CLASSIFIERS else (2, 3, size, size)
            assert network(torch.rand(2, 3, size, size)).shape == given


@pytest.mark.parametrize("name", models.NETWORKS)
def test_the_seed_alone_fixes_the_initialisation(name):
    torch.manual_seed(1)
    first = cc.build(name, 10, seed=5).state_dict()
    torch.manual_seed(2)
    second = cc.build(name, 10, seed=5).state_dict()
    other = cc.build(name, 10, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    cc.with_head(cc.build("conv3", 10), 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_first_depthwise_and_shortcut_convolutions_are_prunable():
    assert "conv1.weight" in cc.prunable(cc.build("resnet18", 10))
    assert "layer2.0.downsample.0.weight" in cc.prunable(cc.build("resnet18", 10))
    mobile = cc.build("mobilenetv2", 10)
    convolutions = [n for n, m in mobile.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert cc.prunable(mobile) == [f"{n}.weight" for n in convolutions]


def test_fc1_and_lenet5_prune_their_hidden_linear_layers():
    assert [cc.build("fc1", 10).get_parameter(n).shape[0] for n in cc.prunable(cc.build("fc1", 10))] == [300, 100]
    assert [cc.build("lenet5", 10).get_parameter(n).ndim for n in cc.prunable(cc.build("lenet5", 10))] == [4, 4, 2, 2]


def test_stem_and_head_can_be_left_out_or_taken_in():
    network = cc.build("conv3", 10)
    assert cc.prunable(network, stem=False) == cc.prunable(network)[1:]
    assert cc.prunable(network, head=True) == [*cc.prunable(network), "head.weight"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_head_surgery_changes_nothing_but_the_head(name):
    network = cc.build(name, 10)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    after = cc.with_head(network, 5, seed=1)
    head = models.head_name(network)
    for key, value in after.state_dict().items():
        assert value.shape[0] == 5 if key.startswith(head + ".") else torch.equal(value, before[key])
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()), "the original was changed"
    assert models.architecture(after)["classes"] == 5 and models.architecture(network)["classes"] == 10


def test_a_fresh_head_depends_on_its_seed_alone(network):
    other = cc.build("conv3", 10, seed=9, width=4)
    one, two, three = cc.with_head(network, 6, 1), cc.with_head(other, 6, 1), cc.with_head(network, 6, 2)
    weight = lambda n: n.get_submodule(models.head_name(n)).weight
    assert torch.equal(weight(one), weight(two)) and not torch.equal(weight(one), weight(three))


def test_forward_flops_of_conv3_by_hand():
    # A multiply-add is two operations; maps of 32, 16 and 8 pixels; then the linear layer.
    by_hand = 2 * (3 * 64 * 9 * 32**2 + 64 * 128 * 9 * 16**2 + 128 * 256 * 9 * 8**2 + 256 * 10)
    assert models.forward_flops(cc.build("conv3", 10)) == by_hand


@pytest.mark.parametrize("name", models.NETWORKS)
def test_forward_flops_are_pytorchs_count(name):
    from torch.utils.flop_counter import FlopCounterMode

    network = cc.build(name, 100).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32))
    assert models.forward_flops(network) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vgg", {}, "allowed: conv3, resnet18"),
        ("conv3", {"depth": 4}, r"conv3 does not take the arguments \['depth'\]; allowed: width, channels$"),
        ("conv3", {"width": "16"}, r"conv3 cannot be built with \{'width': '16'\}: "),
        ("conv3", {"width": 2.5}, r"conv3 cannot be built with \{'width': 2.5\}: "),
        ("torch.nn:Linear", {"out_features": -1}, "torch.nn:Linear cannot be built"),
        ("conv3", {"width": 0}, "at least 1"),
        ("conv3", {"classes": 0}, "classes must be a whole number from 1, not 0"),
    ],
)
def test_bad_networks_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        cc.build(name, **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_name_and_no_number_of_classes_is_refused():
    for name, classes, told in (
        (torch.nn.Linear, 10, "name must be a network's name, .*, not <class"),
        ("conv3", "10", "classes must be a whole number from 1, not '10'"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.build(name, classes)


@pytest.mark.parametrize("wrong", [5, [5], {"conv1": 1}])
def test_prunable_that_is_no_list_of_names_is_refused_in_one_line(wrong):
    with pytest.raises(ValueError, match="prunable must be names or patterns of parameters, not"):
        cc.prunable(cc.build("conv3", width=4, prunable=wrong))


@pytest.mark.parametrize("negative", [False, True], ids=["every scale positive", "one scale negative"])
def test_pooling_before_normalising_is_pytorchs_norm_pool_and_relu(negative):
    """Values, all three gradients, and the running statistics."""
    torch.manual_seed(0)
    ours = zoo._NormPoolReLU(5)
    reference = torch.nn.Sequential(torch.nn.BatchNorm2d(5), torch.nn.MaxPool2d(2), torch.nn.ReLU())
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2.0)
        ours.bias.uniform_(-1, 1)
        ours.weight[2] *= -1 if negative else 1
    reference[0].load_state_dict(ours.state_dict())
    inputs = [torch.randn(6, 5, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    outputs = [module(x) for module, x in zip((ours, reference), inputs, strict=True)]
    wanted = torch.randn_like(outputs[0])
    for output in outputs:
        (output * wanted).sum().backward()
    assert torch.allclose(*outputs, atol=1e-5) and torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    assert torch.allclose(ours.weight.grad, reference[0].weight.grad, atol=1e-4)
    assert torch.allclose(ours.bias.grad, reference[0].bias.grad, atol=1e-4)
    for name, value in reference[0].state_dict().items():
        assert torch.allclose(ours.state_dict()[name].float(), value.float(), atol=1e-6), name
    assert torch.allclose(ours.eval()(inputs[0]), reference.eval()(inputs[0]), atol=1e-5)


def test_numbers_of_numpy_are_plain_ones_and_what_no_ticket_can_name_is_refused():
    import numpy as np

    network = cc.build("conv3", np.int64(10), width=np.int64(4))
    assert cc.Ticket.of(network).architecture["arguments"] == {"width": 4}
    with pytest.raises(ValueError, match="cannot be built with norm_layer like this: a ticket can name numbers"):
        cc.build("torchvision:resnet18", norm_layer=torch.nn.BatchNorm2d)


def test_networks_that_print_alike_are_counted_and_tried_each():
    class Pooled(torch.nn.Module):
        def __init__(self, by):
            super().__init__()
            self.a, self.b, self.head = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1), torch.nn.Linear(4, 10)
            self.by = by  # is not printed

        def forward(self, x):
            return self.head(self.b(torch.nn.functional.avg_pool2d(self.a(x), self.by)).mean((2, 3)))

    assert models.forward_flops(Pooled(1)) > models.forward_flops(Pooled(4))
    models.check_output(Pooled(4), (3, 32, 32))
    with pytest.raises(ValueError, match="Pooled cannot take images of 32 x 32 pixels"):
        models.check_output(Pooled(99), (3, 32, 32))
