import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import colt_core as cc
from colt_core import masks, methods
from colt_core.data.augmentation import normalise
from colt_core.methods import at_init
from colt_core.methods import cycles as loop
from colt_core.methods.consensus import pooled
from colt_core.training import saliency


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


@pytest.fixture
def colt_rounds(network, parts, recipe):
    return list(cc.colt(network, parts, recipe, rate=0.3, target=0.8, device="cpu"))


# --- laws of every finder ---


def test_imp_has_the_densities_of_its_rate_and_stops_at_the_first_at_the_target(network, few, recipe):
    rounds = list(cc.imp(network, few.train, recipe, rate=0.2, target=0.7, device="cpu"))
    kept = masks.size(rounds[0].ticket.mask)
    for found in rounds:
        assert masks.count(found.ticket.mask) == kept
        assert found.density == pytest.approx(0.8**found.number, abs=1e-3)
        kept -= round(0.2 * kept)
    assert rounds[-1].sparsity >= 0.7 > rounds[-2].sparsity
    assert len(rounds) - 1 == math.ceil(math.log(0.3) / math.log(0.8))


def test_masks_nest_and_every_ticket_holds_theta0_untouched(network, colt_rounds):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for earlier, later in zip(colt_rounds, colt_rounds[1:], strict=False):
        assert masks.count(masks.difference(later.ticket.mask, earlier.ticket.mask)) == 0
        assert later.density < earlier.density
    for found in colt_rounds:  # BatchNorm's running statistics and counters among them
        assert found.ticket.theta0.keys() == before.keys()
        assert all(torch.equal(found.ticket.theta0[k], v) for k, v in before.items())
    assert any("running_mean" in key for key in before) and all(
        torch.equal(v, before[k]) for k, v in network.state_dict().items()
    )


def test_a_cycle_is_the_overlap_of_the_copies_own_masks(colt_rounds):
    for earlier, found in zip(colt_rounds, colt_rounds[1:], strict=False):
        assert equal(found.ticket.mask, masks.overlap(*found.partition_masks))
        assert equal(found.ticket.mask, masks.overlap(*found.partition_masks[::-1]))
        alive = masks.count(earlier.ticket.mask)
        for own in found.partition_masks:
            assert masks.count(own) == alive - round(0.3 * alive)
        assert 1 - 2 * 0.3 - 1e-3 <= found.density / earlier.density <= 0.7 + 1e-3
        assert found.overlap.keep == pytest.approx(found.density / earlier.density)
        assert found.overlap.jaccard == masks.jaccard(*found.partition_masks)


def test_one_cycle_by_hand(network, parts, recipe, colt_rounds):
    """The loop does what the paper says, step by step, with the public verbs alone."""
    copies = [cc.with_head(network, 5, seed=0) for _ in parts]
    dense = masks.dense(dict(network.named_parameters()), cc.prunable(network))
    seeds = [loop.derive(0, "train", 1, i) for i in range(2)]
    cc.train_copies(copies, parts, recipe, masks=[dense] * 2, seeds=seeds, device="cpu")
    own = [masks.magnitude(dict(copy.named_parameters()), dense, 0.3) for copy in copies]
    assert equal(colt_rounds[1].ticket.mask, masks.overlap(*own))


def test_the_copies_start_equal_but_for_their_heads(network):
    ticket = cc.Ticket.of(network)
    first, second = ticket.model(5, seed=0), ticket.model(5, seed=0)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_round_zero_is_dense_and_free_and_a_round_of_colt_costs_what_one_of_imp_costs(network, few, parts, recipe):
    by_colt = list(cc.colt(network, parts, recipe, rate=0.3, target=0.5, device="cpu"))
    by_imp = list(cc.imp(network, few.train, recipe, rate=0.3, target=0.5, device="cpu"))
    assert by_colt[0].density == by_imp[0].density == 1 and by_colt[0].image_epochs == by_imp[0].image_epochs == 0
    assert by_colt[1].image_epochs == by_imp[1].image_epochs == 120
    assert by_imp[2].image_epochs == 240
    # The heads differ (5 and 10 outputs), the convolutions do not.
    assert by_colt[1].flops == pytest.approx(by_imp[1].flops, rel=1e-3)


def test_the_same_seed_gives_the_same_ticket_file_byte_for_byte(network, parts, recipe, colt_rounds, tmp_path):
    again = list(cc.colt(network, parts, recipe, rate=0.3, target=0.8, device="cpu"))
    other = list(cc.colt(network, parts, recipe, rate=0.3, target=0.8, seed=1, device="cpu"))
    for number, (one, two) in enumerate(zip(colt_rounds, again, strict=True)):
        first, second = one.save(tmp_path / f"a{number}"), two.save(tmp_path / f"b{number}")
        assert first.read_bytes() == second.read_bytes()
    assert not equal(colt_rounds[1].ticket.mask, other[1].ticket.mask)


def test_a_finder_goes_on_from_a_round_as_if_it_had_never_stopped(network, parts, recipe, colt_rounds, tmp_path):
    path = colt_rounds[1].save(tmp_path / "round.safetensors")
    stored = cc.Round.load(path, colt_rounds[1].record())
    rest = list(cc.colt(network, parts, recipe, rate=0.3, target=0.8, device="cpu", resume=stored))
    assert [found.number for found in rest] == [found.number for found in colt_rounds[2:]]
    assert all(a.ticket.hash == b.ticket.hash for a, b in zip(rest, colt_rounds[2:], strict=True))
    assert rest[-1].image_epochs == colt_rounds[-1].image_epochs


def test_a_caller_may_stop_a_finder_at_any_round(network, parts, recipe):
    finder = cc.colt(network, parts, recipe, rate=0.3, target=0.99, device="cpu")
    assert next(finder).number == 0 and next(finder).number == 1
    finder.close()


def test_validation_never_touches_a_ticket(network, few, parts, recipe, colt_rounds):
    held_out = cc.partition(few.validation, 2)
    wrong = [replace(images, labels=images.labels.flip(0)) for images in held_out]
    for validation in (held_out, wrong):
        rounds = list(cc.colt(network, parts, recipe, rate=0.3, target=0.8, device="cpu", validation=validation))
        assert [r.ticket.mask.keys() for r in rounds] and rounds[-1].ticket.hash == colt_rounds[-1].ticket.hash
        assert len(rounds[-1].accuracies) == 2


# --- variants ---


@pytest.mark.parametrize(("combine", "least"), [("or", 1), ("and", 3), (2, 2)])
def test_masks_combine_by_and_or_and_k_of_n(network, few, recipe, combine, least):
    three = cc.partition(few.train, 3)
    found = list(cc.colt(network, three, recipe, rate=0.3, target=0.05, combine=combine, device="cpu"))[1]
    assert equal(found.ticket.mask, masks.vote(*found.partition_masks, least=least))
    assert len(found.partition_masks) == 3 and [len(p.classes) for p in three] == [4, 3, 3]


@pytest.mark.parametrize("combine", ["or", 2, "and"])
def test_union_and_vote_follow_a_density_trajectory(network, few, recipe, combine):
    densities = [0.6, 0.33, 0.15]
    rounds = list(
        cc.colt(network, cc.partition(few.train, 3), recipe, combine=combine, densities=densities, device="cpu")
    )
    total = masks.size(rounds[0].ticket.mask)
    for found, wanted in zip(rounds[1:], densities, strict=True):
        assert abs(masks.count(found.ticket.mask) - wanted * total) <= 4
    assert masks.count(masks.difference(rounds[2].ticket.mask, rounds[1].ticket.mask)) == 0


def test_matched_imp_has_colts_very_densities(network, few, recipe, colt_rounds):
    densities = [found.density for found in colt_rounds[1:]]
    matched = list(cc.imp(network, few.train, recipe, densities=densities, device="cpu"))
    assert [m.density for m in matched] == [c.density for c in colt_rounds]
    assert not equal(matched[-1].ticket.mask, colt_rounds[-1].ticket.mask)


def test_oneshot_cuts_every_density_from_one_training(network, few, recipe):
    rounds = list(cc.oneshot(network, few.train, recipe, [0.5, 0.2], device="cpu"))
    by_imp = list(cc.imp(network, few.train, recipe, densities=[0.5], device="cpu"))
    assert equal(rounds[1].ticket.mask, by_imp[1].ticket.mask)
    assert [r.image_epochs for r in rounds] == [0, 120, 120]
    assert [round(r.density, 2) for r in rounds] == [1.0, 0.5, 0.2]


def test_random_keeps_the_layer_counts_and_changes_the_mask(colt_rounds):
    for found, control in zip(colt_rounds, cc.random(colt_rounds, seed=3), strict=True):
        counts = [[int(k.sum()) for k in r.ticket.mask.values()] for r in (found, control)]
        assert counts[0] == counts[1] and control.image_epochs == found.image_epochs
        assert equal(found.ticket.mask, control.ticket.mask) == (found.number == 0)
        assert all(torch.equal(control.ticket.theta0[k], v) for k, v in found.ticket.theta0.items())


def test_reinit_keeps_the_mask_and_changes_theta0(colt_rounds):
    for found, control in zip(colt_rounds, cc.reinit(colt_rounds, seed=3), strict=True):
        assert equal(found.ticket.mask, control.ticket.mask)
        assert not any(torch.equal(control.ticket.theta0[n], found.ticket.theta0[n]) for n in found.ticket.mask)


def test_other_splits_find_other_tickets(network, few, recipe, colt_rounds):
    found = {by: list(cc.colt(network, cc.partition(few.train, 2, by), recipe, 0.3, 0.4, device="cpu"))[1]
             for by in ("class", "random", "stratified", "order")}  # fmt: skip
    hashes = {r.ticket.hash for r in found.values()}
    assert len(hashes) == 4 and found["class"].ticket.hash == colt_rounds[1].ticket.hash


def test_pruning_by_layer_takes_the_rate_from_each(network, few, recipe):
    found = list(cc.imp(network, few.train, recipe, rate=0.3, target=0.2, scope="layer", device="cpu"))[1]
    for kept in found.ticket.mask.values():
        assert int(kept.sum()) == kept.numel() - round(0.3 * kept.numel())


def test_late_rewinding_takes_the_weights_of_step_k(network, few, recipe):
    rounds = list(cc.imp(network, few.train, recipe, rate=0.3, target=0.4, rewind=2, device="cpu"))
    moved = cc.build("conv3", 10, seed=0, width=4)
    cc.train(moved, few.train, recipe, seed=loop.derive(0, "rewind"), steps=2, device="cpu")
    assert all(torch.equal(rounds[-1].ticket.theta0[k], v) for k, v in moved.state_dict().items())
    assert not torch.equal(rounds[0].ticket.theta0["conv1.weight"], network.state_dict()["conv1.weight"])
    assert rounds[0].image_epochs == 48  # two batches of 24
    assert rounds[1].image_epochs == 48 + 72  # the other three of the epoch


def test_a_shared_warm_up_comes_before_the_split(network, few, parts, recipe):
    rounds = list(cc.colt(network, parts, recipe, 0.3, 0.4, rewind=1, whole=few.train, device="cpu"))
    by_imp = list(cc.imp(network, few.train, recipe, 0.3, 0.2, rewind=1, device="cpu"))
    assert rounds[0].ticket.hash == by_imp[0].ticket.hash


def test_the_stem_can_be_left_dense(network, parts, recipe):
    found = list(cc.colt(network, parts, recipe, 0.3, 0.4, stem=False, device="cpu"))[-1]
    assert "conv1.weight" not in found.ticket.mask and found.density_all > found.density


# --- overlap statistics ---


def test_equal_data_in_the_same_order_gives_equal_masks_and_other_data_does_not(network, few, recipe, monkeypatch):
    same = [few.train, few.train]
    monkeypatch.setattr(loop, "derive", lambda *_: 1)
    found = list(cc.colt(network, same, recipe, 0.3, 0.2, device="cpu"))[1]
    assert found.overlap.jaccard == found.overlap.kappa == 1 and found.overlap.keep == pytest.approx(0.7, abs=1e-3)


def test_overlap_statistics_come_with_chance_and_per_layer(colt_rounds):
    overlap = colt_rounds[1].overlap
    assert 0 < overlap.chance < 1 and overlap.chance_global == pytest.approx(0.7 / 1.3, abs=1e-3)
    assert [row["layer"] for row in overlap.layers] == ["conv1", "conv2", "conv3"]
    assert colt_rounds[0].overlap is None
    start = masks.magnitude(colt_rounds[0].ticket.theta0, colt_rounds[0].ticket.mask, 0.3)
    by_hand = sum(masks.jaccard(own, start) for own in colt_rounds[1].partition_masks) / 2
    assert overlap.inherited == pytest.approx(by_hand, abs=2e-3)


# --- bad input, at the call ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate must lie strictly between 0 and 1, not 0"),
        ({"rate": 1.0}, "rate must lie"),
        ({"target": 1.2}, "target must lie"),
        ({"rate": 0.2, "target": 0.9999}, r"target sparsity 0\.9999 cannot be reached: .* ends at 0\.99"),
        ({"combine": "xor"}, "allowed: and, or, or a number up to 2"),
        ({"combine": 3}, "allowed: and, or, or a number up to 2"),
        ({"combine": 0}, "allowed: and, or, or a number up to 2"),
        ({"head": True}, "head=True needs copies with one head"),
        ({"rewind": 5}, "whole=data.train"),
        ({"recipe": "mini"}, "recipe must be a Recipe"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"device": "abacus"}, "allowed: auto, cpu"),
        ({"network": torch.nn.Sequential(torch.nn.Linear(3, 2))}, "Sequential cannot take images of 32 x 32 pixels"),
        ({"densities": [0.5, 0.6]}, "densities must fall"),
        ({"scope": "filter"}, "allowed: global, layer"),
        ({"devcie": "cpu"}, "unknown option 'devcie'; allowed: scope, .*; did you mean 'device'\\?$"),
        ({"rate": "0.3"}, "rate must be a number, not '0.3'"),
        ({"densities": 0.5}, "densities must be a list of what is left after each round, not 0.5"),
        ({"densities": ["0.5"]}, "densities must be a number, not '0.5'"),
        ({"rewind": -1}, "rewind must be a whole number from 0, not -1"),
        ({"resume": 2}, "resume must be the Round to go on from, not 2"),
        ({"network": torch.nn.Linear}, "network must be a torch.nn.Module, .* not <class"),
        ({"objective": torch.nn.CrossEntropyLoss()}, "objective must be an Objective, .* not CrossEntropyLoss"),
        ({"network": cc.build("conv3", 10, width=4).requires_grad_(False)}, "every prunable weight is frozen"),
        (
            {"resume": cc.Round(1, cc.Ticket.of(cc.build("conv3", 10, width=2)))},
            "the ticket is for another network: conv1.weight is ",
        ),
    ],
)
def test_colt_refuses_bad_input_before_any_training(network, parts, recipe, monkeypatch, arguments, message):
    monkeypatch.setattr(loop, "train_side_by_side", lambda *_, **__: pytest.fail("a training was begun"))
    with pytest.raises(ValueError, match=message) as caught:
        cc.colt(**({"network": network, "parts": parts, "recipe": recipe} | arguments))  # not even asked for a round
    assert "\n" not in str(caught.value)


def test_frozen_weights_stay_whole(few, recipe, options):
    network = cc.build("conv3", 10, seed=0, width=4)
    network.conv2.weight.requires_grad_(False)
    assert cc.anatomy(network).loc["conv2.weight", "why"] == "frozen"
    last = list(cc.imp(network, few.train, recipe, rate=0.5, target=0.4, **options))[-1].ticket
    assert "conv2.weight" not in last.mask and len(last.mask) == 2
    assert torch.equal(last.theta0["conv2.weight"], network.conv2.weight)


def test_an_empty_partition_and_images_too_small_are_refused_at_the_call(network, parts, recipe):
    with pytest.raises(ValueError, match="partition 1 of 2 is empty"):
        cc.colt(network, [parts[0], parts[1].take(torch.arange(0))], recipe)
    small = [replace(part, pixels=part.pixels[:, :, :4, :4]) for part in parts]
    with pytest.raises(ValueError, match="conv3 cannot take images of 4 x 4 pixels"):
        cc.colt(network, small, recipe)


def test_a_rewind_point_at_the_end_of_a_partitions_training_is_refused_at_the_call(network, few, recipe, monkeypatch):
    """5 steps on everything are 2 on each third: from step 4 on, nothing would be left of them."""
    monkeypatch.setattr(loop, "train_side_by_side", lambda *_, **__: pytest.fail("a training was begun"))
    monkeypatch.setattr(loop, "train_kept", lambda *_, **__: pytest.fail("a training was begun"))
    thirds = cc.partition(few.train, 3)
    how = {"whole": few.train, "device": "cpu", "target": 0.3}
    message = r"rewind must lie in 0\.\.3, so that a step is left of each partition's training, not 4"
    with pytest.raises(ValueError, match=message) as caught:
        cc.colt(network, thirds, recipe, rewind=4, **how)
    assert "\n" not in str(caught.value)
    cc.colt(network, thirds, recipe, rewind=3, **how)
    cc.imp(network, few.train, recipe, rewind=4, device="cpu", target=0.3)


def test_a_batch_of_one_image_is_refused_where_it_cannot_be_normalised(few, recipe, monkeypatch):
    monkeypatch.setattr(loop, "train_side_by_side", lambda *_, **__: pytest.fail("a training was begun"))
    two, odd = recipe.changed(batch_size=2), few.train.take(torch.arange(61))
    network = cc.build("toys:pooled", 10)
    with pytest.raises(ValueError, match="61 images at batch_size 2 leave a batch of one image") as caught:
        cc.imp(network, odd, two, device="cpu", target=0.5)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="61 images at batch_size 2 leave a batch of one image"):
        cc.train(network, odd, two, device="cpu")
    with pytest.raises(ValueError, match="61 images at batch_size 2 leave a batch of one image"):
        cc.colt(network, [few.train, odd], two, device="cpu", target=0.5)
    for fits in (few.train, few.train.take(torch.arange(60))):
        cc.imp(network, fits, two, device="cpu", target=0.5)
    cc.imp(network, odd, recipe, device="cpu", target=0.5)
    cc.imp(cc.build("conv3", 10, width=4), odd, two, device="cpu", target=0.5)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in cc.build("toys:pooled", 10).state_dict().items())


def test_a_run_that_kept_nothing_is_named_when_it_is_followed(network, few, recipe):
    dense = cc.Ticket.of(network)
    nothing = {name: torch.zeros_like(kept) for name, kept in dense.mask.items()}
    rounds = [cc.Round(0, dense), cc.Round(1, dense.derived(mask=nothing, method="colt"))]
    data = {"network": network, "data": few, "recipe": recipe, "rate": 0.9, "target": 0.9, "parts": 2, "by": "class"}
    setting = methods.Setting(**data, seed=0, reference=lambda: rounds)
    with pytest.raises(ValueError, match=r"round 1 of colt kept no weight at all") as caught:
        setting.trajectory()
    assert "\n" not in str(caught.value)


def test_late_rewinding_leaves_colt_and_imp_the_same_training(network, few, parts, recipe):
    longer = recipe.changed(epochs=2, batch_size=12)  # 10 steps an epoch on everything, 5 on a half
    options = {"rewind": 4, "whole": few.train, "device": "cpu"}
    by_colt = list(cc.colt(network, parts, longer, 0.3, 0.3, **options))
    by_imp = list(cc.imp(network, few.train, longer, 0.3, 0.3, **options))
    assert by_colt[0].image_epochs == by_imp[0].image_epochs == 48
    assert by_colt[1].image_epochs == by_imp[1].image_epochs == 240


def test_one_partition_is_no_colt(network, few, recipe):
    with pytest.raises(ValueError, match="at least two partitions"):
        cc.colt(network, [few.train], recipe)


# --- consensus ---


def test_consensus_pools_shares_of_magnitude_and_cuts_exactly(network):
    copies = [cc.build("conv3", 10, seed=s, width=4) for s in (1, 2)]
    mask = cc.masks.random_like(cc.Ticket.of(network).mask, torch.Generator().manual_seed(0))
    mask["conv2.weight"][:, :2] = False
    shares = []
    for copy in copies:
        flat = torch.cat([(copy.get_parameter(n) * mask[n]).detach().double().flatten() for n in mask])
        shares.append(flat.abs() / torch.linalg.vector_norm(flat))
    expected = {
        "smallest": torch.minimum(*shares),
        "geometric": (shares[0] * shares[1]).sqrt(),
        "mean": (shares[0] + shares[1]) / 2,
    }  # fmt: skip
    for pooling, values in expected.items():
        found = torch.cat([score.flatten() for score in pooled(copies, mask, pooling).values()])
        assert torch.allclose(found, values, rtol=1e-12, atol=0), pooling
    doubled = [deepcopy(copies[0]), copies[1]]
    with torch.no_grad():
        for parameter in doubled[0].parameters():
            parameter.mul_(2)
    for a, b in zip(pooled(copies, mask).values(), pooled(doubled, mask).values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6), "a copy's scale must not matter"


def test_consensus_has_the_rate_that_is_chosen(network, parts, recipe, options):
    size = cc.masks.size(cc.Ticket.of(network).mask)
    found = list(cc.consensus(network, parts, recipe, rate=0.3, target=0.7, pooling="smallest", **options))
    kept, expected = size, []
    for _ in found:
        expected.append(kept)
        kept -= round(0.3 * kept)
    assert [cc.masks.count(r.ticket.mask) for r in found] == expected
    assert found[1].overlap is not None and len(found[1].partition_masks) == 2
    with pytest.raises(ValueError, match="unknown pooling 'median'; allowed: smallest, geometric, mean"):
        cc.consensus(network, parts, recipe, pooling="median")


# --- pruning at initialisation ---


def one_batch_loss(few):
    """The loss of a sample as a function of some weights of a plain double network: PyTorch's own machinery."""
    images = saliency.sample(few.train, 0, per_class=4)
    pixels = normalise(images.images, images.mean, images.std).double()

    def loss(copy, names):
        plain = dict(copy.named_parameters())

        def of(*weights):
            changed = plain | dict(zip(names, weights, strict=True))
            return torch.nn.functional.cross_entropy(
                torch.func.functional_call(copy, changed, (pixels,)), images.labels
            )

        return of

    return images, loss


def test_snip_and_grasp_are_their_papers_formulas(few, network):
    images, loss = one_batch_loss(few)
    names = cc.prunable(network)
    copy, weights = saliency._double(network, names)
    of = loss(copy, names)
    gradient = torch.autograd.functional.jacobian(of, tuple(weights))
    _, product = torch.autograd.functional.vhp(of, tuple(w.detach() for w in weights), gradient)
    snip = saliency.snip_scores(network, images, names)
    grasp = saliency.grasp_scores(network, images, names)
    for name, w, g, hg in zip(names, weights, gradient, product, strict=True):
        assert torch.allclose(snip[name], (w * g).abs().detach(), rtol=1e-6, atol=1e-12)
        assert torch.allclose(grasp[name], (w * hg).detach(), rtol=1e-5, atol=1e-10)


def test_synflow_never_cuts_a_layer_off_where_magnitude_does():
    network = cc.build("resnet20", 10, seed=0)
    dense = cc.Ticket.of(network).mask
    kept = at_init.synflow_mask(network, dense, 0.004, (3, 32, 32))
    assert cc.masks.count(kept) == round(0.004 * cc.masks.size(dense))
    assert cc.masks.collapse(kept, network).connected and not cc.masks.collapse(kept, network).empty_layers


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
def test_methods_at_initialisation_have_the_densities_asked_for_and_train_nothing(
    method, few, network, recipe, options, monkeypatch
):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    found = list(getattr(cc, method)(network, few.train, recipe, [0.5, 0.1], **options))
    assert [round(r.density, 3) for r in found] == [1.0, 0.5, 0.1]
    again = list(getattr(cc, method)(network, few.train, recipe, [0.5, 0.1], **options))
    assert all(a.ticket.hash == b.ticket.hash for a, b in zip(found, again, strict=True))
    assert found[2].image_epochs == (0 if method == "synflow" else 100 * (1 if method == "snip" else 3))


# --- from a reading with fresh eyes ------------------------------------------------------------------------------


def test_validation_images_are_a_list_one_a_partition(few, network, recipe):
    with pytest.raises(ValueError, match="^validation must be a list of images, for each of 1 partitions its own$"):
        cc.imp(network, few.train, recipe, validation=few.validation)
    with pytest.raises(ValueError, match="for each of 2 partitions its own"):
        cc.colt(network, cc.partition(few.train, 2), recipe, validation=[few.validation])


def test_copies_of_other_classes_have_no_one_head_though_as_many_outputs(few, recipe):
    two = cc.build("conv3", 5, width=4)
    with pytest.raises(ValueError, match="crossfit needs copies with one head: not partitions by class"):
        cc.crossfit(two, cc.partition(few.train, 2, "class"), recipe)


def test_saliency_in_float64_is_taught_by_teachers_in_float32(few, network, recipe):
    teacher = cc.build("conv3", 10, seed=1, width=4)
    *_, last = cc.snip(network, few.train, recipe, [0.5], objective=cc.KD(teacher))
    assert last.density == pytest.approx(0.5, abs=0.01)


def test_looking_whether_a_dense_run_could_begin_trains_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("colt_core.training.loop.Trainer._step", lambda *_: pytest.fail("a training was begun"))
    monkeypatch.setenv("COLT_STORE", str(tmp_path))
    from colt_core.studies.run import check

    check(cc.Experiment(method="dense", rewind=2, dataset="cifar10-mini@8", network_args={"width": 4}), "cpu")


def test_networks_without_one_output_are_refused_by_synflow_in_one_line(few, recipe):
    for name, message in (
        ("dcgan", "SynFlow needs a network that gives one tensor, not a"),
        ("vae", "nothing flows from"),
    ):
        network = cc.build(name, width=4)
        with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
            list(cc.synflow(network, few.train, recipe, [0.5]))
    gan = cc.build("dcgan", width=4)
    with pytest.raises(ValueError, match="is asked of one tensor"):
        cc.masks.collapse(cc.Ticket.of(gan).mask, gan)


@pytest.mark.parametrize("scores", [saliency.snip_scores, saliency.grasp_scores])
def test_a_layer_that_nothing_is_computed_with_is_named(few, scores):
    class Spare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aux = cc.build("conv3", 10, 0, width=4), torch.nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.body(x)

    with pytest.raises(ValueError, match=r"nothing flows from aux.weight to the loss: leave it out"):
        scores(Spare(), few.train, ["body.conv1.weight", "aux.weight"])
