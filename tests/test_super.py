"""Super tickets: importance by gates against gates that are really there, nested masks, silent scores."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import colt_core as cc
from colt_core import masks
from colt_core.compute.copies import train_side_by_side
from colt_core.data.augmentation import normalise
from colt_core.methods.super import count_to, super_tickets, without
from colt_core.training import Training, sharing
from colt_core.training.sharing import Sharing, gated, gates_of
from colt_core.training.units import order_of_units, unit_importance


@pytest.fixture
def recipe():
    return cc.Recipe.named("mini").changed(epochs=1)


def trained(few, recipe, name="conv3", **arguments):
    network = cc.build(name, 10, 0, **arguments)
    cc.train(network, few.train, recipe, device="cpu")
    return network.eval()


@pytest.mark.parametrize(
    ("name", "arguments", "layer", "norm"),
    [("conv3", {"width": 4}, "conv2", "norm2"), ("resnet20", {}, "stage2.1.conv2", "stage2.1.bn2"),
     ("torchvision:resnet18", {}, "layer1.0.conv2", "layer1.0.bn2")],
)  # fmt: skip
def test_the_importance_is_the_derivative_of_a_gate_that_is_really_there(few, recipe, name, arguments, layer, norm):
    """In a block with a shortcut, what the normalisation gives is added to in place."""
    network = trained(few, recipe, name, **arguments) if arguments else cc.build(name, 10, 0).eval()
    found = unit_importance(network, few.train, [layer], batch=50)[layer]
    gates = torch.ones(len(found), requires_grad=True)
    network.get_submodule(norm).register_forward_hook(lambda _, __, out: out * gates[:, None, None])
    total = torch.zeros(len(found), dtype=torch.float64)
    for i in range(len(few.train)):  # image by image, each with its own backward pass
        pixels = normalise(few.train.batch(torch.tensor([i])), few.mean, few.std)
        loss = nn.functional.cross_entropy(network(pixels), few.train.labels[i : i + 1])
        (gradient,) = torch.autograd.grad(loss, gates)
        total += gradient.double().abs()
    assert torch.allclose(found, total / total.square().mean().sqrt(), rtol=2e-3)


def test_units_without_a_normalisation_have_gates_at_their_own_output(few, recipe):
    network = trained(few, recipe, "lenet5")
    found = unit_importance(network, few.train, ["conv1", "fc1"])
    assert {name: len(values) for name, values in found.items()} == {"conv1": 6, "fc1": 120}
    assert all(values.square().mean().sqrt() == pytest.approx(1) for values in found.values())


def test_silenced_channels_have_no_importance_and_the_others_that_of_a_finite_difference(few):
    network = cc.build("conv3", 10, 0, width=2).double().eval()
    network.norm2.weight.data[1] = network.norm2.bias.data[1] = 0
    images = few.train.take(torch.arange(0, 120, 40))
    found = unit_importance(_Double(network), images, ["network.conv2"])["network.conv2"]
    assert found[1] == 0 and (found[[0, 2, 3]] > 0).all()
    gates, total = torch.ones(4, 1, 1).double(), torch.zeros(4).double()
    network.norm2.register_forward_hook(lambda _, __, out: out * gates)

    def loss(i):
        pixels = normalise(images.batch(torch.tensor([i])), images.mean, images.std).double()
        return nn.functional.cross_entropy(network(pixels), images.labels[i : i + 1])

    for i in range(len(images)):
        for unit in range(4):
            gates[unit] = 1 + 1e-5
            above = loss(i)
            gates[unit] = 1 - 1e-5
            total[unit] += ((above - loss(i)) / 2e-5).abs().detach()
            gates[unit] = 1
    assert torch.allclose(found, total / total.square().mean().sqrt(), atol=1e-6, rtol=1e-6)


class _Double(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.double())


def test_layers_inside_attention_cannot_be_gated():
    network = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(4, 1, 8), nn.Flatten(), nn.Linear(12, 10))
    for name in ("1.self_attn.in_proj_weight", "1.self_attn.out_proj.weight"):
        with pytest.raises(ValueError, match="is no layer that is called by itself: its channels cannot be gated"):
            gates_of(network, {name: torch.ones_like(network.get_parameter(name)).bool()})


def test_orders_leave_each_layer_a_unit_and_turn_each_other_round():
    importance = {"a": torch.tensor([0.3, 0.1]).double(), "b": torch.tensor([0.2, 0.5, 0.4]).double()}
    winning, losing = (order_of_units(importance, order) for order in ("winning", "losing"))
    assert winning == [("a", 1), ("b", 0), ("b", 2)], "a keeps its best, b too"
    assert losing == [("b", 1), ("b", 2), ("a", 0)]
    rng = lambda: torch.Generator().manual_seed(4)
    assert order_of_units(importance, "random", rng()) == order_of_units(importance, "random", rng())
    down_to = lambda mask, units, density: without(mask, units[: count_to(mask, units, density)])
    mask = {"a.weight": torch.ones(2, 3).bool(), "b.weight": torch.ones(3, 2).bool()}
    assert masks.count(down_to(mask, winning, 1.0)) == 12 and masks.count(down_to(mask, winning, 0.6)) == 7
    assert masks.count(down_to(mask, winning, 0.01)) == 5, "no further than the order goes"
    assert all(masks.density(down_to(mask, winning, d / 100)) <= d / 100 for d in range(42, 100)), (
        "tables find it there"
    )


def test_masks_are_nested_silent_and_the_compact_ticket_is_scored_alike(few, recipe):
    network = cc.build("conv3", 10, 0, width=8)
    how = {"device": "cpu", "workers": 1}
    found = list(super_tickets(network, few.train, recipe, [0.8, 0.5, 0.2], **how))
    assert [r.number for r in found] == [0, 1, 2, 3]
    for before, after in zip(found, found[1:], strict=False):
        assert not any((after.ticket.mask[n] & ~before.ticket.mask[n]).any() for n in after.ticket.mask)
    assert [r.density for r in found[1:]] == pytest.approx([0.8, 0.5, 0.2], abs=0.08)
    rows = [kept.flatten(1).float().mean(1) for r in found[1:] for kept in r.ticket.mask.values()]
    assert all(set(one.tolist()) <= {0.0, 1.0} for one in rows), "whole units"
    assert found[1].cost.images > len(few.train), "looking at the gates costs a pass"
    ticket = found[2].ticket
    plain, small = ticket.silent(False), ticket.compact()
    assert plain.hash != ticket.hash and plain.mask is ticket.mask
    dead = (~ticket.mask["conv2.weight"].flatten(1).any(1)).nonzero().flatten()
    model = ticket.model(10, 0)
    cc.train(model, few.train, recipe, mask=ticket.mask_for(model, True), device="cpu")
    assert len(dead) and (model.norm2.bias[dead] == 0).all() and (model.norm2.weight[dead] == 0).all()
    other = small.model(10, 0)
    other.head.weight.data = ticket.model(10, 0).head.weight[:, ticket.mask["conv3.weight"].flatten(1).any(1)].clone()
    other.head.bias.data = ticket.model(10, 0).head.bias.clone()
    cc.train(other, few.train, recipe, mask=small.mask_for(other, True), device="cpu")
    pixels = normalise(few.test.images[:20], few.mean, few.std)
    assert torch.allclose(model.eval()(pixels), other.eval()(pixels), atol=2e-3), (
        "they are one function in training too"
    )
    losing = list(super_tickets(network, few.train, recipe, [0.5], order="losing", **how))[-1]
    assert masks.jaccard(losing.ticket.mask, ticket.mask) < 0.9
    units = lambda one: sum(int(kept.flatten(1).any(1).sum()) for kept in one.ticket.mask.values())
    for order in ("winning", "losing", "random"):
        as_many = list(super_tickets(network, few.train, recipe, [0.8, 0.5], order=order, equal="units", **how))
        assert [units(one) for one in as_many] == [units(one) for one in found[:3]], "as many units, not weights"
        assert order != "winning" or as_many[2].ticket.hash == ticket.hash
    with pytest.raises(ValueError, match="unknown equal 'channels'; allowed: weights, units"):
        super_tickets(network, few.train, recipe, [0.5], equal="channels", **how)


class Tokens(nn.Module):
    """A block of a vision transformer without its attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Conv2d(3, 12, 8, 8), nn.Linear(12, 48), nn.Linear(48, 12)
        self.head, self.prunable = nn.Linear(12, 10), ["fc1.weight", "fc2.weight"]

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((x + self.fc2(torch.relu(self.fc1(x)))).mean(1))


def test_an_experiment_is_scored_silent_and_what_has_no_units_is_refused(few, recipe, tmp_path):
    fields = {"dataset": "cifar10-mini:0,1", "recipe": recipe, "densities": [0.6], "scores": (0.4,)}
    experiment = cc.Experiment(method="super", network_args={"width": 4}, options={"order": "random"}, **fields)
    frame = cc.run(experiment, tmp_path, device="cpu")
    assert frame["accuracy"].notna().sum() == 1
    assert list(cc.rounds(experiment, tmp_path))[-1].ticket.architecture["silent"] is True
    with pytest.raises(ValueError, match="weight has no units that could be cut whole"):
        super_tickets(cc.build("mobilenetv2", 10), few.train, recipe, [0.5])
    with pytest.raises(ValueError, match="fc1.weight has no units that could be cut whole"):
        super_tickets(Tokens(), few.train, recipe, [0.5])  # of tokens: dimension 1 is not the channels
    with pytest.raises(ValueError, match="units are ranked by cross-entropy"):
        super_tickets(cc.build("autoencoder", width=4), few.train, recipe, [0.5])
    with pytest.raises(ValueError, match="units are ranked by cross-entropy"):
        super_tickets(cc.build("conv3", 10, width=4), few.train, recipe, [0.5], objective=cc.KD(cc.build("conv3", 10)))
    with pytest.raises(ValueError, match="unknown order 'best'"):
        super_tickets(cc.build("conv3", 10, width=4), few.train, recipe, [0.5], order="best")
    with pytest.raises(ValueError, match="order"):
        cc.Experiment(method="super", options={"order": "best"})


def test_the_controls_of_whole_channels_go_by_super_tickets_as_well(recipe, tmp_path):
    fields = {"dataset": "cifar10-mini@8:0,1", "recipe": recipe, "network_args": {"width": 4}, "densities": [0.6]}
    last = lambda **own: list(cc.rounds(cc.Experiment(**fields, scores=None, **own), tmp_path, device="cpu"))[-1].ticket
    found, drawn = last(method="super"), last(method="reinit", of="super")
    assert all(torch.equal(drawn.mask[name], kept) for name, kept in found.mask.items()) and drawn.hash != found.hash
    rows = lambda ticket: [int(kept.flatten(1).any(1).sum()) for kept in ticket.mask.values()]
    assert rows(last(method="channels", of="super")) == rows(found) == rows(last(method="narrow", of="super"))
    assert masks.count(last(method="narrow", of="super").mask) == masks.count(found.effective())
    assert masks.count(last(method="effective", of="super").mask) == masks.count(found.effective())
    with pytest.raises(ValueError, match="extra is no option of super; allowed: order, equal"):
        last(method="narrow", of="super", extra=0.5)


# --- ticket sharing ----------------------------------------------------------------------------------------------


def shared(network, closed=()):
    """Two tasks of five classes; channels `closed` of conv2 are closed to the first."""
    gates = [gates_of(network, masks.dense(dict(network.named_parameters()), cc.prunable(network))) for _ in "12"]
    gates[0]["norm2"] = gates[0]["norm2"].clone().index_fill(0, torch.tensor(closed, dtype=torch.int64), False)
    return Sharing([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]], gates)


def test_only_the_channels_of_a_task_learn_from_its_images(few):
    network = cc.build("conv3", 10, 0, width=4).train()
    objective = shared(network, closed=[1, 5])
    first = few.train.labels < 5
    pixels = normalise(few.train.batch(torch.arange(len(few.train))), few.mean, few.std)
    loss, right = objective.loss(network, pixels[first], few.train.labels[first])
    loss.backward()
    reached = network.conv2.weight.grad.flatten(1).any(1)
    assert not reached[[1, 5]].any() and reached[[0, 2, 3, 4, 6, 7]].all() and 0 <= int(right) <= int(first.sum())
    network.zero_grad()
    loss, _ = objective.loss(network, pixels[~first], few.train.labels[~first])
    loss.backward()
    assert network.conv2.weight.grad.flatten(1).any(1).all(), "to the other task all are open"
    assert not any(module._forward_hooks for module in network.modules())


def test_with_open_gates_it_is_cross_entropy_within_the_task(few):
    network = cc.build("conv3", 10, 0, width=4).eval()
    objective, labels = shared(network), few.test.labels
    pixels = normalise(few.test.batch(torch.arange(len(few.test))), few.mean, few.std)
    scores = network(pixels)
    low = labels < 5
    by_hand = nn.functional.cross_entropy(scores[low, :5], labels[low], reduction="sum")
    by_hand = by_hand + nn.functional.cross_entropy(scores[~low][:, [9, 8, 7, 6, 5]], 9 - labels[~low], reduction="sum")
    loss, right = objective.loss(network, pixels, labels)
    assert loss.item() == pytest.approx(by_hand.item() / len(labels), rel=1e-5)
    of_five = lambda i, own: own[int(scores[i, own].argmax())]
    told = [of_five(i, [0, 1, 2, 3, 4] if labels[i] < 5 else [9, 8, 7, 6, 5]) == labels[i] for i in range(len(labels))]
    assert objective.score(network, few.test) == pytest.approx(sum(told) / len(told)) == int(right) / len(labels)
    assert objective.chance(few.test) == pytest.approx(0.2)


def test_a_batch_without_two_images_of_a_task_teaches_nothing_and_ends_no_training(few):
    network = cc.build("conv3", 10, seed=0, width=4)
    pixels = torch.randn(2, 3, 32, 32)
    loss, right = shared(network).loss(network, pixels, torch.tensor([0, 7]))
    loss.backward()
    assert loss.item() == 0 and int(right) == 0
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


def test_each_task_is_scored_by_its_own_statistics(few):
    network = cc.build("conv3", 10, 0, width=4)
    objective, running = shared(network, closed=[2]), cc.build("conv3", 10, 0, width=4)
    running.norm1.running_mean += 100.0  # what several tasks left behind
    running.norm1.momentum = 0.3
    before = {name: value.clone() for name, value in running.state_dict().items()}
    found = objective.fitted(few.train).score(running, few.test)
    assert all(torch.equal(value, before[name]) for name, value in running.state_dict().items())
    assert running.norm1.momentum == 0.3 and not any(module.training for module in running.modules())
    right = 0
    for task, classes in enumerate(objective.tasks):
        by_hand = cc.build("conv3", 10, 0, width=4).train()
        for module in (by_hand.norm1, by_hand.norm2, by_hand.norm3):
            module.momentum = 1.0
        train, test = (images.take(torch.isin(images.labels, torch.tensor(classes)).nonzero().flatten())
                       for images in (few.train, few.test))  # fmt: skip
        with gated(by_hand, objective.gates[task]):
            by_hand(normalise(train.batch(torch.arange(len(train))), few.mean, few.std))
            told = by_hand.eval()(normalise(test.batch(torch.arange(len(test))), few.mean, few.std))[:, classes]
        right += int((torch.tensor(classes)[told.argmax(1)] == test.labels).sum())
    assert found == pytest.approx(right / len(few.test))


def test_statistics_are_of_all_classes_of_a_task_where_images_lie_class_by_class(few, monkeypatch):
    train = few.train.take(few.train.labels.argsort())
    looked, real = [], sharing._pixels
    monkeypatch.setattr(sharing, "MOST", 12)
    monkeypatch.setattr(sharing, "_pixels", lambda images, index, device: looked.append((images, index))
                        or real(images, index, device))  # fmt: skip
    shared(cc.build("conv3", 10, 0, width=4)).fitted(train).score(cc.build("conv3", 10, 0, width=4), few.test)
    told = [images.labels[index].unique() for images, index in looked if images is train]
    assert len(told) == 2 and all(len(classes) > 2 for classes in told)


def test_sharing_trains_and_travels_to_workers(few, recipe):
    network = cc.build("conv3", 10, 0, width=4)
    objective, ticket = shared(network, closed=[0]), cc.Ticket.of(network)
    score = cc.evaluate(ticket, few, recipe, device="cpu", objective=objective)
    assert 0 <= score.value <= 1 and score.chance == pytest.approx(0.2)
    again = Sharing.rebuilt(objective.settings(), objective.tensors())
    assert all(torch.equal(a["norm2"], b["norm2"]) for a, b in zip(objective.gates, again.gates, strict=True))
    trainings = [Training(few.train, recipe, objective=objective, seed=s) for s in (0, 1)]
    here, there = ([cc.build("conv3", 10, 0, width=4) for _ in trainings] for _ in "12")
    train_side_by_side(here, trainings, device="cpu", workers=1)
    train_side_by_side(there, trainings, device="cpu", workers=2)
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_mistakes_of_sharing_are_one_line(few):
    network = cc.build("conv3", 10, 0, width=4)
    for make, told in (
        (lambda: Sharing([[0, 1]], [{}]), "tasks must be two or more, of different classes"),
        (lambda: Sharing([[0, 1], [1, 2]], [{}, {}]), "of different classes"),
        (lambda: Sharing([[0], [1]], [{}]), "2 tasks need 2 sets of gates, not 1"),
        (lambda: Sharing([[0], [1]], [{}, {}]).check(network, few.train), "are not the images' 10 classes"),
        (
            lambda: Sharing([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [{"conv1": torch.ones(3)}, {}]).check(
                network, few.train
            ),
            r"the module 'conv1' gives \d+ channels, and its gates have \[3\]",
        ),
        (
            lambda: Sharing([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [{"x": torch.ones(3)}, {}]).check(network, few.train),
            "'x'",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            make()


# --- choosing on validation --------------------------------------------------------------------------------------


def test_the_best_of_several_is_chosen_by_validation_and_told_by_test():
    rows = [("dense", 0, 0, 1.0, 0.5, 0.5), ("dense", 1, 0, 1.0, 0.5, 0.6)]
    rows += [("super", 0, 1, 0.9, 0.7, 0.4), ("super", 0, 2, 0.8, 0.6, 0.9), ("super", 0, 0, 1.0, 0.99, 0.5)]
    rows += [("super", 1, 1, 0.9, 0.3, 0.1), ("super", 1, 2, 0.8, 0.3, 0.9)]  # equal: the denser one
    names = ("method", "seed", "round", "density", "validation_accuracy", "accuracy")
    table = pd.DataFrame(rows, columns=list(names)).assign(kind="score", dataset="d", network="n", scored_on="d")
    table["experiment"] = table["method"] + table["seed"].astype(str)
    table["sparsity"] = 1 - table["density"]
    found = cc.report.best_of(table, "super")
    assert found["round"].tolist() == [1, 1] and found["gain"].tolist() == pytest.approx([-0.1, -0.5])
    with pytest.raises(ValueError, match="no scores of random"):
        cc.report.best_of(table, "random")
    other = table.assign(experiment=table["experiment"] + "e", scored_on="e", dataset="e")
    with pytest.raises(ValueError, match=r"scores on several data sets \(d, e\): take one"):
        cc.report.best_of(pd.concat([table, other]), "super")
    with pytest.raises(ValueError, match="several dense networks of one seed"):
        cc.report.best_of(pd.concat([table, table[:2].assign(experiment=["one", "two"])]), "super")
    taught = table[:2].assign(experiment=["one", "two"], scored_by="kd", accuracy=0.1)
    found = cc.report.best_of(pd.concat([taught, table]), "super")
    assert found["dense"].tolist() == [0.5, 0.6], "the dense network counts as it was scored when the arm was"


def test_arms_of_one_method_are_told_apart_where_runs_are_chosen():
    runs, problems = cc.saved.runs_in(Path(__file__).parent.parent / "results/super/store")
    labels = [run.label for run in runs if run.about["seed"] == 110]
    assert len(labels) == len(set(labels)) == 6 and not problems
    assert any(label.startswith("super (order losing), 2 by class") for label in labels)
