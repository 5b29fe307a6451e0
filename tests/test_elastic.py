"""Tickets of one depth at another: against dictionaries gathered by hand, their laws, and as experiments."""

from collections import Counter

import pytest
import torch
from torch import nn

import colt_core as cc
from colt_core import masks
from colt_core.methods.elastic import _control
from colt_core.tickets.elastic import _depths, repeats

# From the paper's rule, written out: which source block stands at each place of a stage.
BY_HAND = {
    ("resnet20", "resnet32", "append"): [0, 1, 2, 1, 2],
    ("resnet20", "resnet32", "interpolate"): [0, 1, 1, 2, 2],
    ("resnet32", "resnet44", "append"): [0, 1, 2, 3, 4, 1, 2],
    ("resnet32", "resnet44", "interpolate"): [0, 1, 1, 2, 2, 3, 4],
    ("resnet32", "resnet14", "append"): [0, 1],
}


def ticket(name, seed=0, density=0.3):
    network = cc.build(name, 10, seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight), nn.init.normal_(module.running_mean)
    weights = dict(network.named_parameters())
    return cc.Ticket.of(network, masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 1 - density))


@pytest.mark.parametrize(("source", "target", "order"), BY_HAND)
def test_every_tensor_is_its_origins(source, target, order):
    small = ticket(source)
    large = cc.elastic(small, target, order)
    blocks = BY_HAND[source, target, order]
    expected = {}
    for name in cc.build(target, 10, 0).state_dict():
        stage, _, rest = name.partition(".")
        if stage.startswith("stage"):
            number, _, rest = rest.partition(".")
            expected[name] = f"{stage}.{blocks[int(number)]}.{rest}"
        else:
            expected[name] = name
    assert large.theta0.keys() == expected.keys()
    assert all(torch.equal(large.theta0[name], small.theta0[origin]) for name, origin in expected.items())
    assert all(torch.equal(kept, small.mask[expected[name]]) for name, kept in large.mask.items())
    uses = Counter(expected[name] for name in large.mask)  # of each source's layer, how many copies
    kept = sum(count * int(small.mask[origin].sum()) for origin, count in uses.items())
    size = sum(count * small.mask[origin].numel() for origin, count in uses.items())
    assert large.density == pytest.approx(kept / size, abs=1e-12) and large.architecture["name"] == target
    assert large.model().eval()(torch.rand(2, 3, 32, 32)).isfinite().all()
    assert large.provenance["parent"] == small.hash


def test_the_same_depth_is_the_very_ticket_and_squeezing_takes_appending_back():
    small = ticket("resnet20")
    assert cc.elastic(small, "resnet20").hash == small.hash
    for far in ("resnet32", "resnet44", "resnet56"):
        assert cc.elastic(cc.elastic(small, far), "resnet20").hash == small.hash


def test_appending_twice_is_appending_once_where_the_middles_blocks_are_a_multiple():
    small = ticket("resnet20")
    direct = cc.elastic(small, "resnet56").hash
    for middle in ("resnet32", "resnet44"):
        assert cc.elastic(cc.elastic(small, middle), "resnet56").hash == direct
    source = ticket("resnet32")
    assert cc.elastic(cc.elastic(source, "resnet44"), "resnet56").hash != cc.elastic(source, "resnet56").hash


@pytest.mark.parametrize("order", ["append", "interpolate"])
def test_stretching_and_overlap_commute(order):
    one, other = ticket("resnet20", 0), ticket("resnet20", 1)
    together = one.derived(mask=masks.overlap(one.mask, other.mask))
    stretched = masks.overlap(cc.elastic(one, "resnet32", order).mask, cc.elastic(other, "resnet32", order).mask)
    found = cc.elastic(together, "resnet32", order).mask
    assert all(torch.equal(kept, stretched[name]) for name, kept in found.items())


def test_earlier_blocks_are_repeated_more_often():
    assert repeats(4, 9, "interpolate") == [0, 1, 1, 1, 2, 2, 2, 3, 3]
    for order in ("append", "interpolate"):
        assert [sorted(repeats(4, 9, order)).count(block) for block in range(4)] == [1, 3, 3, 2]


def test_what_cannot_be_stretched_is_refused_in_one_line():
    small, network, misnamed = ticket("resnet20"), cc.build("resnet20", 10, 0), nn.Sequential()
    network.relu, misnamed.stages = nn.GELU(), "bodyy"
    changed = cc.Ticket.of(network)
    for act, told in (
        (lambda: cc.elastic(small, "resnet32", "mirror"), "unknown order 'mirror'; allowed: append, interpolate"),
        (lambda: cc.elastic(small, "resnet18"), "a resnet18 declares no stages"),
        (
            lambda: cc.elastic(cc.Ticket.of(cc.build("conv3", 10, 0, width=4)), "resnet20"),
            "a conv3 declares no stages",
        ),
        (lambda: cc.elastic(small, "resnet33"), "unknown network 'resnet33'"),
        (lambda: repeats(1, 3, "append"), "a stage of one block cannot be stretched"),
        (lambda: cc.elastic(small, 32), r"a Ticket and the name of a network are expected, not .* and 32"),
        (lambda: cc.elastic(cc.build("resnet20", 10, 0), "resnet32"), "a Ticket and the name of a network are"),
        (lambda: cc.Experiment(method="elastic", options={"source": "resnet19"}), "source: unknown network 'resnet19'"),
        (lambda: cc.elastic(changed, "resnet32"), r"of resnet20 \(changed\) cannot be stretched"),
        (lambda: cc.elastic(changed, "resnet20"), r"of resnet20 \(changed\) cannot be stretched"),
        (lambda: _depths(misnamed, "mine"), "a mine declares the stage 'bodyy', and has no module of that name"),
    ):
        with pytest.raises(ValueError, match=told):
            act()


def test_another_family_is_refused_before_its_tickets_are_looked_for(tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1)
    job = cc.Experiment(
        dataset="cifar10-mini@16:0-3", network="resnet20", method="elastic", options={"source": "conv3"}, recipe=recipe
    )
    for act in (cc.run, lambda one, *how, **more: cc.study([one], *how, workers=1, **more)):
        with pytest.raises(ValueError, match="a conv3 declares no stages"):
            act(job, tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_what_is_followed_is_the_sources_own_run_of_that_method():
    job = cc.Experiment(network="resnet20", method="elastic", options={"source": "resnet14", "of": "imp"})
    assert job.reference().hash == cc.Experiment(network="resnet14", method="imp").hash
    assert job.changed(rate=0.3).reference().rate == 0.3


def test_a_family_of_your_own_declares_its_stages(tmp_path, monkeypatch):
    (tmp_path / "deep.py").write_text(
        "from torch import nn\n"
        "class Deep(nn.Sequential):\n"
        "    stages = ('body',)\n"
        "    def __init__(self, num_classes, depth=2, width=8):\n"
        "        blocks = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(depth)]\n"
        "        super().__init__()\n"
        "        self.stem, self.body = nn.Conv2d(3, width, 3), nn.Sequential(*blocks)\n"
        "        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "        self.fc = nn.Linear(width, num_classes)\n"
        "def two(num_classes, width=8): return Deep(num_classes, 2, width)\n"
        "def four(num_classes, width=8): return Deep(num_classes, 4, width)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    small = cc.Ticket.of(cc.build("deep:two", 10, 0))
    large = cc.elastic(small, "deep:four")
    assert torch.equal(large.theta0["body.3.0.weight"], small.theta0["body.1.0.weight"])
    assert large.model()(torch.rand(1, 3, 8, 8)).shape == (1, 10)
    assert large.architecture["code"] == cc.Ticket.of(cc.build("deep:four", 10, 0)).architecture["code"]
    wide = cc.Ticket.of(cc.build("deep:two", 10, 0, width=4))
    assert cc.elastic(wide, "deep:four").architecture["arguments"] == {"width": 4}, "arguments go along"
    with pytest.raises(ValueError, match="of another family"):
        cc.elastic(small, "resnet20")
    (tmp_path / "inner.py").write_text(
        "from torch import nn\n"
        "class Inner(nn.Module):\n"
        "    stages = ('features.body',)\n"
        "    def __init__(self, num_classes, depth=2):\n"
        "        super().__init__()\n"
        "        blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(depth)]\n"
        "        self.features = nn.ModuleDict({'stem': nn.Conv2d(3, 8, 3), 'body': nn.Sequential(*blocks)})\n"
        "        self.fc = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.features['body'](self.features['stem'](x)).mean((2, 3)))\n"
        "def four(num_classes): return Inner(num_classes, 4)\n"
        "class Named(Inner):\n"
        "    stages = ('features',)\n"
    )
    deep = cc.elastic(cc.Ticket.of(cc.build("inner:Inner", 10, 0)), "inner:four")
    half = masks.random_like({name: torch.arange(kept.numel()).view(kept.shape) % 2 == 0 for name, kept in
                              deep.mask.items()}, torch.Generator().manual_seed(0))  # fmt: skip
    permuted = _control(deep.derived(mask=half), "permuted", 0, 1)
    kept = {name for name, there in permuted.items() if torch.equal(there, half[name])}
    assert kept == {"features.stem.weight", "features.body.0.0.weight"}, "stem and first block stay"
    (tmp_path / "told.py").write_text("from deep import Deep\nclass Told(Deep):\n    stages = 'body'\n")
    text = cc.Ticket.of(cc.build("told:Told", 10, 0, depth=3))
    some = {n: torch.arange(kept.numel()).view(kept.shape) % 2 == 0 for n, kept in text.mask.items()}
    permuted = _control(text.derived(mask=some), "permuted", 0, 1)
    moved = {name for name, there in permuted.items() if not torch.equal(there, some[name])}
    assert moved == {"body.1.0.weight", "body.2.0.weight"}, "one stage may be named as text"
    with pytest.raises(ValueError, match="the blocks of features are named stem, body, and must be 0, 1, 2"):
        cc.elastic(cc.Ticket.of(cc.build("inner:Named", 10, 0)), "inner:four")


def test_as_a_method_it_follows_another_networks_run_and_its_controls_change_one_thing(tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=64)
    base = {"dataset": "cifar10-mini@8:0-1", "recipe": recipe, "rate": 0.5, "target": 0.5, "scores": None}
    jobs = {}
    for control in (None, "random", "permuted", "redrawn", "dense"):
        own = {"source": "resnet14"} | ({"control": control} if control else {})
        jobs[control] = cc.Experiment(**base, network="resnet20", method="elastic", options=own)
    assert len({job.hash for job in jobs.values()}) == 5
    followed = jobs[None].reference()
    assert (followed.network, followed.method) == ("resnet14", "colt")
    found = {c: list(cc.rounds(job, tmp_path, device="cpu"))[-1] for c, job in jobs.items()}
    source = list(cc.rounds(followed, tmp_path, device="cpu"))[-1]
    plain = found[None].ticket
    assert plain.hash == cc.elastic(source.ticket, "resnet20").hash and found[None].cost == source.cost
    assert {one.ticket.provenance["parent"] for one in found.values()} == {source.ticket.hash}
    same = lambda a, b, what: all(torch.equal(v, getattr(b, what)[k]) for k, v in getattr(a, what).items())
    for control in ("random", "permuted", "dense"):
        assert same(plain, found[control].ticket, "theta0") and not same(plain, found[control].ticket, "mask")
    assert same(plain, found["redrawn"].ticket, "mask") and not same(plain, found["redrawn"].ticket, "theta0")
    assert found["dense"].density == 1 and found["random"].density == found["permuted"].density == plain.density
    first = "stage2.0.conv1.weight"
    assert torch.equal(found["permuted"].ticket.mask[first], plain.mask[first])
    wrong = cc.Experiment(**base, network="resnet20", method="elastic", options={"source": "conv3"})
    with pytest.raises(ValueError, match="a conv3 declares no stages"):
        cc.run(wrong, tmp_path / "other", device="cpu")
    assert not (tmp_path / "other" / "trainings").exists(), "before the search"
