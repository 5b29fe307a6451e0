"""Networks of any kind: by a library's name, by a module of one's own, as an instance; their anatomy and their code."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import colt_core as cc
from colt_core import foreign, models
from colt_core.compute.checkpoints import train_kept
from colt_core.tickets import ticket as tickets
from colt_core.training import Training

TINY = '''"""A network of twenty lines."""

import torch
from torch import nn

from shapes import WIDTH


class Tiny(nn.Module):
    def __init__(self, num_classes, width=WIDTH):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.GroupNorm(2, width)
        self.body = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = self.body(self.norm(self.stem(x)).relu()).relu().mean((2, 3))
        return self.fc(self.drop(self.hidden(x).relu()))
'''


@pytest.fixture
def recipe():
    return cc.Recipe.named("mini").changed(epochs=1, learning_rate=1e-3)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of two files in a folder that this process imports from; the folder, to edit them in."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tinynets.py").write_text(TINY)
    (tmp_path / "code" / "shapes.py").write_text("WIDTH = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield tmp_path / "code"
    for name in ("tinynets", "shapes"):
        sys.modules.pop(name, None)
        foreign._loaded.pop(name, None)
    foreign._trusted.clear()


def found(network, few, recipe, workers=1, **how):
    """The last of two cycles."""
    parts = cc.partition(few.train, 2, "class")
    how |= {"rate": 0.3, "target": 0.5, "workers": workers, "device": "cpu"}
    return list(cc.colt(network, parts, recipe, **how))[-1]


# --- by name -----------------------------------------------------------------------------------------------------

TIMM = {
    "timm:resnet10t": ({}, "fc", ["conv1.0.weight", "layer4.0.conv2.weight"]),
    "timm:mobilenetv3_small_050": ({}, "classifier", ["conv_stem.weight", "blocks.1.0.conv_dw.weight"]),
    "timm:vit_tiny_patch16_224": (
        {"img_size": 32, "patch_size": 8, "depth": 2},
        "head",
        ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"],
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_are_pruned_where_they_should_be_and_workers_find_the_same_bytes(name, few, recipe):
    pytest.importorskip("timm")
    arguments, head, some = TIMM[name]
    network = cc.build(name, 10, seed=0, **arguments)
    names = cc.prunable(network)
    assert models.head_name(network) == head and set(some) < set(names) and f"{head}.weight" not in names
    kinds = (nn.Conv2d, nn.Linear)
    assert names == [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, kinds) and n != head]
    here = found(cc.build(name, 10, 0, **arguments), few, recipe)
    assert here.number == 2
    if "vit" in name:  # a worker takes long to import timm
        there = found(cc.build(name, 10, 0, **arguments), few, recipe, 2)
        assert here.ticket.hash == there.ticket.hash
    assert here.density == pytest.approx(0.7**2, abs=0.05), "the overlap takes more than one copy does"
    again = cc.Ticket.of(cc.build(name, 10, 0, **arguments)).theta0
    assert all(torch.equal(value, again[key]) for key, value in here.ticket.theta0.items())
    assert here.ticket.architecture["code"].startswith("timm ")


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "convnext_tiny"])
def test_networks_of_torchvision_are_dissected_and_pruned_as_pytorch_prunes(name):
    network = cc.build(f"torchvision:{name}", 7, seed=3)
    table = cc.anatomy(network)
    head = models.head_name(network)
    assert network.get_submodule(head).out_features == 7 and table.loc[f"{head}.weight", "why"] == "the head"
    names = cc.prunable(network)
    assert list(table.index[table["prunable"]]) == names and table["share"].sum() == pytest.approx(1)
    assert table["weights"].sum() == sum(p.numel() for p in network.parameters())
    dense = cc.Ticket.of(network).mask
    dense_weights = {n: network.get_parameter(n).detach().clone() for n in names}
    ours = cc.masks.magnitude(dense_weights, dense, 0.3)
    pairs = [(network.get_submodule(n.rpartition(".")[0]), "weight") for n in names]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.3)
    cut = torch.cat([weight[~ours[n]].abs() for n, weight in dense_weights.items()]).max()
    for (module, _), n in zip(pairs, names, strict=True):
        other = module.weight_mask.bool() != ours[n]
        assert bool((dense_weights[n][other].abs() == cut).all()), "only among equal magnitudes may they choose apart"
    assert sum(int(module.weight_mask.sum()) for module, _ in pairs) == cc.masks.count(ours)


def test_a_network_that_refuses_weights_of_no_version_comes_back_from_files(few, recipe, tmp_path):
    network = cc.build("torchvision:mnasnet0_5", 10, seed=0)
    with pytest.raises(ValueError, match="version should be set"):
        network.load_state_dict(dict(network.state_dict()))
    again = cc.Ticket.load(cc.Ticket.of(network).save(tmp_path / "ticket.safetensors")).model()
    training = Training(few.train, recipe)
    for one in (network, again):
        assert train_kept(one, training, cc.open_store(tmp_path), torch.device("cpu")).steps == training.end
    states = network.state_dict(), again.state_dict()  # the second was looked up
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert len(list((tmp_path / "trainings").glob("*.safetensors"))) == 1


def test_a_network_of_ones_own_goes_the_whole_way_and_is_another_one_once_it_is_edited(own, few, recipe, tmp_path):
    import pandas as pd

    fields = {"dataset": "cifar10-mini:0,1", "network": "tinynets:Tiny", "recipe": recipe, "rate": 0.4, "target": 0.5}
    experiment = cc.Experiment(**fields, network_args={"width": 6}, scores=(0.5,))
    first = cc.run(experiment, tmp_path / "store", device="cpu")
    assert first["accuracy"].notna().sum() == 1 and experiment.code["network"].startswith("sha256:")
    assert json.loads(first["code"].iloc[0]) == experiment.code
    old = cc.Ticket.load(next((tmp_path / "store" / experiment.hash).glob("round-01*")))
    assert old.architecture["code"] == experiment.code["network"]
    assert cc.Experiment(**fields, network_args={"width": 6}).hash == experiment.hash, "found again"
    (own / "shapes.py").write_text("WIDTH = 8\n")  # not the module itself, but what it imports
    edited = cc.Experiment(**fields, network_args={"width": 6})
    assert edited.hash != experiment.hash and cc.build("tinynets:Tiny", 2).stem.out_channels == 8, "imported anew"
    with pytest.raises(ValueError, match=f"the code of its network is .*; the run {experiment.hash} was begun with"):
        cc.run(experiment, tmp_path / "store2", device="cpu")
    tickets._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="the code of tinynets:Tiny is sha256:.*; the ticket was found with sha256:"):
        old.model()
    (own / "shapes.py").write_text("WIDTH = 4\n")
    again = cc.run(cc.Experiment(**fields, network_args={"width": 6}, scores=(0.5,)), tmp_path / "store", device="cpu")
    pd.testing.assert_frame_equal(first, again)


def test_the_number_of_classes_goes_where_a_factory_takes_it(own):
    (own / "shapes.py").write_text(
        "from torch import nn\nWIDTH = 4\n"
        "def outs(*, outs=3): return nn.Linear(4, outs)\n"
        "def first(many, size=4): return nn.Linear(size, many)\n"
        "def open_ended(**given): return nn.Linear(4, given['num_classes'])\n"
        "def none(): return nn.Linear(4, 1000)\n"
        "def fixed(num_classes): return nn.Linear(4, 1000)\n"
        "def number(num_classes): return num_classes\n"
        "def wrong(num_classes): return nn.Linear('four', num_classes)\n"
    )
    assert cc.build("shapes:outs", 6, classes_as="outs").out_features == 6
    assert cc.build("shapes:outs", 6, classes_as="outs").architecture["arguments"] == {"classes_as": "outs"}
    assert cc.build("shapes:first", 6, size=2).weight.shape == (6, 2)
    assert cc.build("shapes:open_ended", 5).out_features == 5
    for name, arguments, told in (
        ("shapes:none", {}, "shapes:none takes no number of classes; name the keyword for it"),
        ("shapes:outs", {"classes_as": "n"}, "shapes:outs has no keyword 'n' for the number of classes"),
        ("shapes:first", {"depth": 2}, r"shapes:first does not take the arguments \['depth'\]"),
        ("shapes:fixed", {}, "has a head '' of 1000 outputs, not 5: name the keyword"),
        ("shapes:number", {}, "must give a torch.nn.Module, not a int"),
        ("shapes:wrong", {}, "cannot be built with {}: .*"),
        ("shapes:missing", {}, "cannot be imported: shapes has no missing"),
        ("nowhere:f", {}, "cannot be imported: No module named 'nowhere'"),
        ("shapes:WIDTH", {}, "must be callable, not a int"),
        ("__main__:f", {}, "lies in no module"),
        ("torchvision:resnet51", {}, "torchvision has no classifier 'resnet51'; did you mean .*resnet50"),
        ("torchvision:os.system", {}, "torchvision has no classifier"),
        ("resnet50", {}, "unknown network 'resnet50'; allowed: conv3, .*torchvision:name"),
    ):
        with pytest.raises(ValueError, match=told) as problem:
            cc.build(name, 5, **arguments)
        assert "\n" not in str(problem.value)


def test_names_of_timm_are_looked_up_and_nothing_is_fetched():
    pytest.importorskip("timm")
    for name in ("resnet27", "hf-hub:someone/net", "hf_hub:someone/net"):
        with pytest.raises(ValueError, match="timm has no network"):
            cc.build(f"timm:{name}", 5)


# --- a module that is there --------------------------------------------------------------------------------------


def module(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )  # fmt: skip


def test_a_module_that_is_there_goes_through_the_same_verbs(few, recipe, tmp_path):
    torch.manual_seed(0)
    mine = module()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    last = found(mine, few, recipe)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items()), "it is not changed"
    assert found(mine, few, recipe).ticket.hash == last.ticket.hash
    one = list(cc.imp(mine, few.train, recipe, rate=0.5, target=0.5, device="cpu"))[-1]
    assert one.density == pytest.approx(0.5, abs=0.01)
    score = cc.evaluate(last.ticket, few, recipe, device="cpu")
    assert 0 <= score.accuracy <= 1 and cc.evaluate(mine, few, recipe, device="cpu").train_images == len(few.train)
    moved = last.ticket.model(classes=4, seed=1)
    under_mask = before["0.weight"] * last.ticket.mask["0.weight"]
    assert moved[5].out_features == 4 and torch.equal(moved[0].weight, under_mask)
    path = last.ticket.save(tmp_path / "mine.safetensors")
    read = cc.Ticket.load(path)
    assert read.hash == last.ticket.hash
    with pytest.raises(ValueError, match="this ticket is of a Sequential, which has no name to build it by"):
        read.model()
    back = read.model(network=module())
    assert torch.equal(back[0].weight, under_mask)
    other = module()
    other[0] = nn.Conv2d(3, 9, 3)
    with pytest.raises(ValueError, match=r"another network: 0.weight is \(8, 3, 3, 3\) in the ticket, \(9, 3"):
        read.model(network=other)
    with pytest.raises(ValueError, match=r"another network: 5.bias is \(10,\) in the ticket, nothing in the net"):
        read.model(network=module()[:5].append(nn.Linear(8, 10, bias=False)))
    copies = cc.train_copies([module(5), module(5)], cc.partition(few.train, 2), recipe, workers=1, device="cpu")
    assert not torch.equal(copies[0][0].weight, copies[1][0].weight)


def test_a_network_that_was_changed_after_it_was_built_is_not_built_without_the_change(few, recipe):
    network = cc.build("conv3", 10, 0, width=4)
    network.norm1 = nn.Identity()
    last = found(network, few, recipe)
    assert isinstance(last.ticket.model().norm1, nn.Identity) and last.ticket.architecture["name"] == "conv3 (changed)"


class Tied(nn.Module):
    """Two convolutions with one weight, a buffer that is not stored, attention, and a class token."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.b.weight = self.a.weight
        self.patch = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patch(self.b(self.a(x).relu()) * self.scale).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.fc(self.norm(x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


def test_tied_weights_attention_and_buffers_keep_their_nature_under_a_mask(few, recipe):
    last = found(Tied(), few, recipe)
    names = ["a.weight", "patch.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert sorted(last.ticket.mask) == sorted(names), "tied weights have one mask; the token is no layer"
    network = last.ticket.model(5, 0)
    assert network.a.weight is network.b.weight and network.scale == 0.5
    assert torch.equal(network.attention.in_proj_weight != 0, last.ticket.mask["attention.in_proj_weight"])
    assert cc.masks.collapse(last.ticket.mask, network).connected, "layer normalisation of equal values is no cut"
    assert models.forward_flops(Tied()) > models.forward_flops(Tied().patch)


# --- anatomy -----------------------------------------------------------------------------------------------------


def test_what_is_prunable_may_be_declared_by_names_patterns_or_a_function():
    tied = Tied()
    assert cc.prunable(tied) == ["a.weight", "patch.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    table = cc.anatomy(tied, prunable=["attention.*"])
    assert cc.prunable(tied) == ["attention.in_proj_weight", "attention.out_proj.weight"]
    assert table.loc["a.weight", "why"] == "left out by what is declared"
    cc.anatomy(tied, prunable=lambda name, weight: weight.ndim == 4)
    assert cc.prunable(tied) == ["a.weight", "patch.weight"]
    network = cc.build("lenet5", 10, prunable=lambda name, weight: name.startswith("fc"))
    assert cc.prunable(network) == ["fc1.weight", "fc2.weight"]
    assert network.architecture["arguments"] == {"prunable": ["fc1.weight", "fc2.weight"]}
    cc.anatomy(network, prunable=["conv*"])
    assert network.architecture["arguments"] == {"prunable": ["conv*"]}, "copies and tickets keep to what was declared"
    assert cc.prunable(cc.Ticket.of(network).model()) == ["conv1.weight", "conv2.weight"] == cc.prunable(network)
    for wrong, told in (
        ({"prunable": ["attn.*"]}, "prunable 'attn.\\*' fits no weight"),
        ({"prunable": lambda *_: False}, "has chosen no weight"),
        ({"prunable": 3}, "must be names or patterns"),
        ({"head": "norm"}, "the head 'norm' is no linear layer or convolution of the network; there are: .*fc"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.anatomy(tied, **wrong)
        assert cc.prunable(tied) == ["a.weight", "patch.weight"], "nothing is changed"


def test_a_convolution_may_be_the_head():
    network = cc.build("torchvision:squeezenet1_1", 10)
    assert models.head_name(network) == "classifier.1" and "classifier.1.weight" not in cc.prunable(network)
    other = cc.with_head(network, 3, seed=2)
    assert other.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    same = models.replace_head(cc.build("torchvision:squeezenet1_1", 5, seed=9), 3, seed=2)
    assert torch.equal(other.classifier[1].weight, same.classifier[1].weight), "of the seed and the classes alone"


class Heads(nn.Module):
    def __init__(self, form=lambda scores: scores):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.heads = nn.ModuleList([nn.Linear(4, 10), nn.Linear(4, 10)])
        self.form = form

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.form(sum(head(x) for head in self.heads))


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def with_weight_norm(kind):
    network = module()
    kind(network[0])
    return network


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Heads(), r"several heads, heads.0, heads.1: say which classifies, head=..."),
        (lazy(), "layer 0 has no weights yet"),
        (with_weight_norm(nn.utils.parametrizations.weight_norm), r"the weight of layer 0 is computed from others"),
        (with_weight_norm(lambda m: prune.identity(m, "weight")), "the weight of layer 0 is no parameter .*prune"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "Sequential has no prunable weights"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), *module()[1:]), "cannot take images of 32 x 32 pixels .*channels"),
        (nn.Sequential(nn.Conv2d(3, 8, 40), *module()[1:]), "cannot take images of 32 x 32 pixels .*Kernel size"),
        (nn.Sequential(*module()[:3], nn.Flatten(2)), "gives .* for 2 images"),
        (nn.Sequential(module(), nn.Unflatten(1, (2, 5))), r"gives \[2, 2, 5\] for 2 images; \[2, 10\] is expected"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_line_before_any_training(network, told, few, recipe):
    with pytest.raises(ValueError, match=told) as problem:
        cc.colt(network, cc.partition(few.train, 2, "random"), recipe)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (lambda scores: {"logits": scores}, "Heads gives a dict; a tensor \\[N, classes\\] of scores is expected"),
        (lambda scores: (scores, scores), "Heads gives a tuple; a tensor"),
        (lambda scores: scores[:1], r"Heads gives \[1, 10\] for 2 images; \[2, 10\] is expected"),
        (lambda scores: scores[:, :7], r"Heads gives \[2, 7\] for 2 images; \[2, 10\] is expected"),
    ],
)
def test_outputs_of_another_form_are_refused(form, told, few, recipe):
    network = Heads(form)
    models.declare(network, head="heads.1")
    with pytest.raises(ValueError, match=told):
        cc.colt(network, cc.partition(few.train, 2, "random"), recipe)


def test_a_users_own_error_keeps_its_words_and_its_kind(few, recipe):
    def broken(scores):
        raise TypeError("scores must be salted")

    network = Heads(broken)
    models.declare(network, head="heads.1")
    with pytest.raises(TypeError, match="scores must be salted"):
        cc.colt(network, cc.partition(few.train, 2, "random"), recipe)


def test_a_data_set_of_other_channels_is_refused_before_any_training(few, recipe, tmp_path):
    grey = cc.Dataset.of(*((part.images[:, :1], part.labels) for part in (few.train, few.test)), name="grey")
    fields = {"dataset": "cifar10-mini", "recipe": recipe, "rate": 0.4, "target": 0.5, "network_args": {"width": 4}}
    told = r"conv3 cannot take images of 32 x 32 pixels with 1 channel; say so: channels=1 \(.*channels"
    with pytest.raises(ValueError, match=told):
        cc.study([cc.Experiment(**fields, score_on=grey.named())], tmp_path, device="cpu")
    assert not list(tmp_path.glob("*/records.jsonl"))
    with pytest.raises(ValueError, match=told):
        cc.evaluate(cc.Ticket.of(cc.build("conv3", 10, width=4)), grey, recipe, device="cpu")
    network = cc.build("conv3", 10, 0, width=4, channels=1)
    assert 0 <= cc.evaluate(found(network, grey, recipe).ticket, grey, recipe, device="cpu").accuracy <= 1


# --- pretrained weights ------------------------------------------------------------------------------------------


def test_pretrained_weights_are_theta0_and_the_head_is_fresh_where_it_must_be(few, recipe, tmp_path):
    teacher = cc.build("conv3", 10, seed=7, width=4)
    state = teacher.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    for weights in (state, str(tmp_path / "w.safetensors"), tmp_path / "w.pt"):
        network = cc.build("conv3", 10, seed=0, width=4, weights=weights)
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert network.architecture["arguments"] == {"width": 4}, "a ticket holds the weights themselves"
    five = cc.build("conv3", 5, seed=0, width=4, weights=state)
    plain = cc.build("conv3", 5, seed=0, width=4)
    assert torch.equal(five.conv1.weight, state["conv1.weight"]) and torch.equal(five.head.weight, plain.head.weight)
    arguments = {"width": 4, "weights": str(tmp_path / "w.safetensors")}
    fields = {"network_args": arguments, "dataset": "cifar10-mini", "recipe": recipe, "rate": 0.4, "target": 0.5}
    experiment = cc.Experiment(**fields, scores=None)
    cc.run(experiment, tmp_path / "store", device="cpu")
    ticket = list(cc.rounds(experiment, tmp_path / "store"))[-1].ticket
    assert torch.equal(ticket.theta0["conv2.weight"], state["conv2.weight"]), "the rewind is to the pretrained weights"
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "w.safetensors")
    assert cc.Experiment(**fields).hash != experiment.hash
    bad = dict(state)
    bad["conv1.weight"] = torch.zeros(1)
    (tmp_path / "text.pt").write_text("no weights")
    for weights, told in (
        (bad, r"conv1.weight is \(1,\) in the weights, \(4, 3, 3, 3\) in the network"),
        ({**state, "more": torch.zeros(1)}, "the network has no more"),
        ({n: v for n, v in state.items() if n != "norm2.bias"}, "they have no norm2.bias"),
        (str(tmp_path / "nothing.safetensors"), "there is no file of weights at"),
        (str(tmp_path / "text.pt"), "holds no weights that can be read"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.build("conv3", 10, width=4, weights=weights)


def test_published_weights_are_fetched_by_their_name_alone(monkeypatch):
    pretrained = cc.build("torchvision:mobilenet_v3_small", 1000, seed=5).state_dict()
    asked = []
    fetch = lambda url, **_: asked.append(url) or pretrained
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    network = cc.build("torchvision:mobilenet_v3_small", 10, weights="DEFAULT")
    assert len(asked) == 1 and torch.equal(network.features[0][0].weight, pretrained["features.0.0.weight"])
    assert network.classifier[3].out_features == 10
    with pytest.raises(ValueError, match="nor has torchvision's .* any of that name; it has IMAGENET1K"):
        cc.build("torchvision:mobilenet_v3_small", 10, weights="BEST")


# --- trust -------------------------------------------------------------------------------------------------------


def stranger(own, recipe, tmp_path):
    """A ticket and a store of a network in a module that nobody here has named, and which says when it is imported."""
    experiment = cc.Experiment(
        dataset="cifar10-mini:0,1", network="tinynets:Tiny", recipe=recipe, rate=0.4, target=0.4, scores=None
    )
    cc.run(experiment, tmp_path / "store", device="cpu")
    path = next((tmp_path / "store" / experiment.hash).glob("round-01*"))
    for name in ("tinynets", "shapes"):
        del sys.modules[name]
        foreign._loaded.pop(name, None)
    foreign._trusted.clear()
    (own / "tinynets.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n{TINY}")
    importlib.invalidate_caches()
    return path


def test_a_strangers_ticket_imports_nothing_unless_it_is_allowed(own, recipe, tmp_path, monkeypatch):
    path = stranger(own, recipe, tmp_path)
    ticket = cc.Ticket.load(path)
    for use in (ticket.model, lambda: ticket.has_head, lambda: ticket.redraw(1), ticket.to_torch_prune):
        with pytest.raises(ValueError, match="'tinynets:Tiny' is named by a file and is not imported unless") as told:
            use()
        assert "\n" not in str(told.value)
    for hidden in ("compact:tinynets:Tiny", "compact:compact:tinynets:Tiny"):
        other = cc.Ticket({**ticket.architecture, "name": hidden}, ticket.theta0, ticket.mask)
        with pytest.raises(ValueError, match="named by a file and is not imported unless"):
            other.model()
    about = json.loads((path.parent / "experiment.json").read_text())
    with pytest.raises(ValueError, match="by a file and is not imported unless you allow it.*COLT_TRUST=tinynets"):
        cc.Experiment.from_description(about)
    [run], problems = cc.saved.runs_in(tmp_path / "store")
    assert "tinynets:Tiny" in run.label and not problems
    assert run.records() and run.mask(1) and not (tmp_path / "imported").exists()
    assert "sys" in sys.modules and "tinynets" not in sys.modules
    monkeypatch.setenv("COLT_TRUST", "other, tinynets")
    with pytest.warns(UserWarning, match="the ticket was found with"):
        assert ticket.model().fc.out_features == 2
    assert (tmp_path / "imported").exists()


def test_trust_may_be_given_with_the_file_for_a_module_or_for_a_package(own, recipe, tmp_path):
    path = stranger(own, recipe, tmp_path)
    tickets._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="the ticket was found with"):
        assert cc.Ticket.load(path, trust=True).model().fc.out_features == 2
    foreign._trusted.clear()
    for allowed, name, known in (
        ("a.b", "a.b.c:f", True), ("a.b.c:f", "a.b.c:f", True), ("a.b.c:g", "a.b.c:f", False), ("a", "ab:f", False),
    ):  # fmt: skip
        cc.trust(allowed)
        assert foreign.is_trusted(name) == known
        foreign._trusted.clear()
    with pytest.raises(ValueError, match="trust takes names of modules"):
        cc.trust(cc)


# --- fingerprints ------------------------------------------------------------------------------------------------


def test_a_fingerprint_follows_what_a_module_imports_and_no_path(tmp_path, monkeypatch):
    for place in ("one", "two"):
        folder = tmp_path / place / "pack_of_mine"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "deep.py").write_text("DEPTH = 1\n")
        (folder / "beside.py").write_text("from . import deep\n")
        (folder / "nets.py").write_text("import json\nimport torch\nfrom .beside import deep\ndef f(n): ...\n")
    prints = {}
    for place in ("one", "two"):
        monkeypatch.syspath_prepend(str(tmp_path / place))
        for name in [n for n in sys.modules if n.startswith("pack_of_mine")]:
            del sys.modules[name]
        prints[place] = foreign.fingerprint("pack_of_mine.nets:f")
    assert prints["one"] == prints["two"], "a copy elsewhere is the same code"
    (tmp_path / "two" / "pack_of_mine" / "deep.py").write_text("DEPTH = 2\n")
    assert foreign.fingerprint("pack_of_mine.nets:f") != prints["two"]
    assert foreign.fingerprint("torch.nn:Linear").startswith("torch ")
    assert foreign.fingerprint("json:loads").startswith("python 3")
    for name in [n for n in sys.modules if n.startswith("pack_of_mine")]:
        del sys.modules[name]
    assert not Path("pack_of_mine").exists()


def test_packages_of_another_environment_are_installed_ones_wherever_they_lie(tmp_path, monkeypatch):
    """Else all of PyTorch would be read for each fingerprint in an environment that borrows it from another."""
    for folder in ("theirs", "theirs/a_lent_package-2.5.dist-info", "mine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "theirs" / "a_lent_package.py").write_text("DEPTH = 1\n")
    (tmp_path / "theirs" / "a_lent_package-2.5.dist-info" / "METADATA").write_text(
        "Name: a-lent-package\nVersion: 2.5\n"
    )
    (tmp_path / "mine" / "nets_on_lent.py").write_text("import a_lent_package\ndef f(classes): ...\n")
    for folder in ("theirs", "mine"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    before = foreign.fingerprint("nets_on_lent:f")
    assert foreign._sources("nets_on_lent") == {tmp_path / "mine" / "nets_on_lent.py"}
    assert foreign.fingerprint("a_lent_package:DEPTH") == "a_lent_package 2.5"
    (tmp_path / "theirs" / "a_lent_package.py").write_text("DEPTH = 2\n")
    assert foreign.fingerprint("nets_on_lent:f") == before
    for name in ("nets_on_lent", "a_lent_package"):
        del sys.modules[name]
