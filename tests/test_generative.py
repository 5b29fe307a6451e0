"""Tickets of autoencoders and VAEs: the laws of reconstruction, against torch.distributions, SciPy and PCA."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import colt_core as cc
from colt_core import models
from colt_core.data.augmentation import normalise, original
from colt_core.training import yardsticks
from colt_core.training.objective import described, objective_of
from colt_core.training.reconstruction import divergence, psnr, recognised, reconstructed
from colt_core.widgets import explorer

NAMES = ("autoencoder", "vae")


@pytest.fixture(scope="module")
def small(few):
    """Few images of 16 x 16 pixels."""
    shrink = lambda part: cc.Images(
        part.images[:, :, ::2, ::2].contiguous(), part.labels, part.classes, part.mean, part.std
    )
    return cc.Dataset("small", *(shrink(part) for part in (few.train, few.validation, few.test)))


@pytest.fixture(scope="module")
def quick():
    return cc.Recipe.named("mini").changed(epochs=1, batch_size=24, flip=False)


@pytest.fixture
def make(folder):
    """An experiment on a user's folder of a few pictures."""
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    base = {"dataset": f"{folder}@16", "network_args": {"width": 4, "latent": 64}, "rate": 0.3, "target": 0.6}
    return lambda network, **fields: cc.Experiment(
        **(base | {"network": network, "recipe": recipe, "scores": (0.5,)} | fields)
    )


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


# --- networks ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 22, 18), (1, 28, 28)])
def test_images_come_back_in_their_own_size(name, shape):
    network = cc.build(name, seed=0, channels=shape[0]).eval()
    given = network(torch.randn(2, *shape)).detach()
    assert given.shape == (2, *shape) and 0 <= float(given.min()) <= float(given.max()) <= 1
    code = network.encode(torch.randn(2, *shape))
    assert code[0].numel() == 8 * math.ceil(shape[1] / 8) * math.ceil(shape[2] / 8)


def test_a_latent_of_a_cifar_image_has_128_numbers_and_the_encoder_has_conv3s_shapes():
    network, classifier = cc.build("autoencoder", seed=0), cc.build("conv3", width=16)
    assert network.encode(torch.zeros(1, 3, 32, 32)).numel() == 128
    for i in (1, 2, 3):
        assert (
            network.get_parameter(f"encoder.conv{i}.weight").shape == classifier.get_parameter(f"conv{i}.weight").shape
        )


@pytest.mark.parametrize("name", NAMES)
def test_prunable_are_the_weights_of_all_convolutions_and_of_one_side_if_asked(name):
    network = cc.build(name, seed=0)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convolutions = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, kinds)]
    assert cc.prunable(network) == convolutions and models.head_name(network) is None
    sides = {side: cc.build(name, seed=0, side=side) for side in ("encoder", "decoder")}
    both = [set(cc.prunable(one)) for one in sides.values()]
    assert not both[0] & both[1] and both[0] | both[1] == set(convolutions)
    assert all(n.startswith("decoder.") for n in both[1]) and not any(n.startswith("decoder.") for n in both[0])
    for one in sides.values():  # the authors re-drew the other half: "encoder only" had another initialisation
        assert all(torch.equal(v, network.state_dict()[n]) for n, v in one.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_transposed_convolutions_cost_what_pytorch_counts(name):
    network = cc.build(name, seed=0).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32))
    assert models.forward_flops(network) == counter.get_total_flops()


# --- laws of the loss ---


def test_the_divergence_is_that_of_torch_and_zero_of_the_prior():
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(5, 8, 2, 2, generator=rng), torch.randn(5, 8, 2, 2, generator=rng)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    assert torch.allclose(divergence(mean, log_variance), exact, rtol=1e-5)
    assert torch.equal(divergence(torch.zeros(3, 4), torch.zeros(3, 4)), torch.zeros(3))


def test_pixels_are_what_they_were_before_they_were_normalised(small):
    pixels = small.train.images[:4]
    back = original(normalise(pixels, small.train.mean, small.train.std), small.train.mean, small.train.std)
    assert torch.allclose(back, pixels.float() / 255, atol=1e-6)


def test_the_metric_is_the_error_of_pixels_in_0_to_1_and_psnr_agrees(small):
    network, images = cc.build("autoencoder", seed=0, width=4).eval(), small.test
    with torch.no_grad():
        given = network(normalise(images.images, images.mean, images.std))
    exact = float(nn.functional.mse_loss(given, images.images.float() / 255))
    objective = objective_of("reconstruction").fitted(images)
    assert objective.score(network, images) == pytest.approx(exact, rel=1e-5)
    assert objective.others(network, images)["psnr"] == pytest.approx(10 * math.log10(1 / exact), rel=1e-5)
    assert psnr(0.01) == pytest.approx(20)
    loss, summed = objective.loss(network, normalise(images.images, images.mean, images.std), images.labels)
    assert float(loss.detach()) == pytest.approx(exact, rel=1e-5) == float(summed) / len(images)


def test_beta_0_without_draws_is_the_autoencoder_bit_for_bit(small, quick):
    plain = cc.build("autoencoder", seed=0, width=4)
    vae = cc.build("vae", seed=1, width=4)
    vae.load_state_dict(plain.state_dict(), strict=False)
    one = cc.train(plain, small.train, quick, seed=3)
    other = cc.train(vae, small.train, quick, seed=3, objective=cc.ELBO(beta=0.0, sampled=False))
    assert one.epochs[0]["mse"] == other.epochs[0]["mse"]
    trained = vae.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_labels_do_not_matter(small, quick, name):
    shuffled = cc.Images(
        small.train.images, small.train.labels.roll(7), small.train.classes, small.train.mean, small.train.std
    )
    networks = [cc.build(name, seed=0, width=4) for _ in range(2)]
    for network, images in zip(networks, (small.train, shuffled), strict=True):
        cc.train(network, images, quick, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(*(n.state_dict().values() for n in networks), strict=True))


def test_a_vae_draws_in_training_alone_and_the_seed_fixes_what(small, quick):
    def trained(seed, **how):
        network = cc.build("vae", seed=0, width=4)
        cc.train(network, small.train, quick, seed=seed, objective=cc.ELBO(**how))
        return network

    first, again, still = trained(3), trained(3), trained(3, sampled=False)
    state = first.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in again.state_dict().items())
    assert not all(torch.equal(v, state[n]) for n, v in still.state_dict().items())
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(first.eval()(pixels), first(pixels))


def test_nats_are_the_bound_of_a_gaussian_decoder_of_variance_a_half(small):
    network, images = cc.build("vae", seed=0, width=4).eval(), small.test
    network.latent.weight.data *= 20
    nn.init.constant_(network.log_variance.weight, 0)
    nn.init.constant_(network.log_variance.bias, -40)  # nothing is left to draw: the mean is what is decoded
    told = cc.ELBO().fitted(images).others(network, images)
    with torch.no_grad():
        given = network(normalise(images.images, images.mean, images.std))
    decoder = torch.distributions.Normal(given, math.sqrt(0.5))
    bound = -decoder.log_prob(images.images.float() / 255).double().mean() + told["kl"] / (3 * 16 * 16)
    assert told["nats"] == pytest.approx(float(bound), rel=1e-4)
    nn.init.constant_(network.latent.weight, 0)  # the posterior is the same whatever the image
    assert told["active"] > 0 == cc.ELBO().fitted(images).others(network, images)["active"]


# --- what a score is held against ---


def test_a_dead_network_gives_no_less_than_the_error_of_one_colour(small):
    network = cc.build("autoencoder", seed=0, width=4).eval()
    cc.masks.apply(
        {n: torch.zeros_like(network.get_parameter(n), dtype=torch.bool) for n in cc.prunable(network)}, network
    )
    objective = objective_of("reconstruction").fitted(small.test)
    best = yardsticks.simple_errors(small)["one colour"]
    colour = torch.tensor(small.test.images.float().div(255).mean((0, 2, 3)).tolist())
    assert objective.score(network, small.test) >= best
    network.decoder.deconv1.bias.data = torch.logit(colour)
    assert objective.score(network, small.test) == pytest.approx(best, rel=1e-5)
    assert objective.chance(small.train) == pytest.approx(
        float((small.train.images / 255.0).var((0, 2, 3), correction=0).mean()), rel=1e-5
    )


class Linear(nn.Module):
    """A linear autoencoder."""

    objective, anatomy = "reconstruction", {"head": None}

    def __init__(self, classes=10, width=6):
        super().__init__()
        self.down, self.up = nn.Linear(3 * 64, width), nn.Linear(width, 3 * 64)

    def forward(self, x):
        return self.up(self.down(x.flatten(1))).view_as(x)


def test_a_linear_autoencoder_comes_near_pca_and_never_beats_it(small, quick):
    shrink = lambda part: cc.Images(
        part.images[:, :, ::2, ::2].contiguous(), part.labels, part.classes, part.mean, part.std
    )
    images = shrink(small.train)
    data = cc.Dataset("tiny", images, images, images)
    rows = images.images.flatten(1).double().numpy() / 255
    left = np.linalg.svd(rows - rows.mean(0), compute_uv=False)[6:]
    bound = yardsticks.simple_errors(data, [6])["PCA of 6"]
    assert bound == pytest.approx((left**2).sum() / rows.size, rel=1e-6)
    network = Linear()
    recipe = quick.changed(epochs=150, learning_rate=5e-3, weight_decay=0.0, warmup=1.0)
    cc.train(network, images, recipe)
    reached = objective_of("reconstruction").fitted(images).score(network, images)
    assert bound <= reached < 1.3 * bound


def test_copies_learn_what_their_networks_declare_or_what_is_said(small, quick):
    images, half = small.train, cc.partition(small.train, 2)[0]
    fresh = lambda: cc.build("autoencoder", 10, 0, width=4)
    copies = cc.train_copies([fresh(), fresh()], [images, half], quick, seeds=[3, 4], workers=1, device="cpu")
    alone = fresh()
    cc.train(alone, images, quick, seed=3, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(copies[0].parameters(), alone.parameters(), strict=True))
    taught = cc.KD(cc.build("conv3", 10, 1, width=4), weight=0.5)
    told = [cc.build("conv3", 10, 0, width=4) for _ in range(2)]
    cc.train_copies(told, [images, images], quick, seeds=[3, 4], workers=1, device="cpu", objective=taught)
    network = cc.build("conv3", 10, 0, width=4)
    cc.train(network, images, quick, seed=4, device="cpu", objective=taught)
    assert all(torch.equal(a, b) for a, b in zip(told[1].parameters(), network.parameters(), strict=True))


def test_frechet_distances_are_those_of_gaussians_by_scipys_square_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) @ rng.normal(size=(5, 5)) + 1
    one, other = (np.cov(x.T, bias=True) for x in (a, b))
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other - 2 * scipy.linalg.sqrtm(one @ other).real)
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    assert yardsticks.frechet(a, b) == pytest.approx(exact, rel=1e-6) == yardsticks.frechet(b, a)
    assert yardsticks.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert 0 < yardsticks.frechet_null(a) < yardsticks.frechet(a, b)
    with pytest.raises(ValueError, match="two sets of features"):
        yardsticks.frechet(a, b[:, :3])


def test_a_perfect_reconstruction_is_recognised_as_the_image_is(small, quick):
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.one * original(x, small.test.mean, small.test.std)

    judge = cc.build("conv3", 10, seed=0, width=4)
    cc.train(judge, small.train, quick)
    assert torch.equal(reconstructed(Same(), small.test).images, small.test.images)
    assert recognised(judge, Same(), small.test) == 1
    with torch.no_grad():
        judge.head.bias[3] += 100  # now it says one thing of everything: another judge, asked anew
    constant = cc.build("autoencoder", width=4)
    assert recognised(judge, constant, small.test) == recognised(judge, Same(), small.test) == 1
    with torch.no_grad():
        judge.head.bias[3] -= 100
    features = yardsticks.features_of(judge, small.test)
    with torch.no_grad():
        scores = judge.head(features.float())
    assert features.shape == (100, 16)
    assert torch.allclose(scores, judge(normalise(small.test.images, small.test.mean, small.test.std)), atol=1e-5)
    with pytest.raises(ValueError, match="gives images back, no scores of classes"):
        recognised(cc.build("autoencoder", width=4), Same(), small.test)


def test_samples_and_traversals_come_from_the_prior_and_the_seed_alone(small):
    network = cc.build("vae", seed=0, width=4)
    one, again = (yardsticks.samples(network, 5, small.test, seed=1) for _ in range(2))
    assert one.shape == (3, 16, 16) and torch.equal(one.images, again.images)
    moved = yardsticks.traversals(network, small.test, 3, steps=5)
    assert moved.shape == (3, 5, 3, 16, 16) and not torch.equal(moved[0, 0], moved[0, -1])
    with pytest.raises(ValueError, match="no prior to draw from"):
        yardsticks.samples(cc.build("autoencoder"), 5, small.test)


# --- tickets ---


@pytest.mark.parametrize(("network", "method"), [("autoencoder", "colt"), ("vae", "imp")])
def test_a_network_that_declares_its_objective_works_as_it_stands(make, tmp_path, network, method):
    experiment = make(network, method=method)
    assert experiment.objective["name"] == {"autoencoder": "reconstruction", "vae": "vae"}[network]
    frame = cc.run(experiment, tmp_path, device="cpu")
    scores = frame[frame["kind"] == "score"]
    assert len(scores) == 1 and scores["accuracy"].isna().all() and set(scores["metric"]) == {"mse"}
    row = scores.iloc[0]
    assert row["psnr"] == pytest.approx(-10 * math.log10(row["mse"]))
    assert ("nats" in scores) == ("active" in scores) == (network == "vae")
    table = cc.report.accuracy_table(frame, [0.5])
    assert table["mse"].iloc[0] == row["mse"]
    found = list(cc.rounds(experiment, tmp_path, device="cpu"))
    state = found[0].ticket.theta0
    for earlier, later in zip(found, found[1:], strict=False):
        assert cc.masks.count(cc.masks.difference(later.ticket.mask, earlier.ticket.mask)) == 0
        assert all(state[name].ndim == 4 for name in later.ticket.mask), "no bias and no normalisation is pruned"
        assert all(torch.equal(value, state[name]) for name, value in later.ticket.theta0.items())
    assert cc.run(experiment, tmp_path, device="cpu").equals(frame)


def test_methods_work_as_they_are_with_late_rewinding_and_early_bird(make, tmp_path):
    arms = {
        name: make("autoencoder", method=name)
        for name in ("dense", "matched", "union", "consensus", "random", "reinit")
    }
    arms["late"] = make("autoencoder", method="imp", rewind=2, network_args={"width": 4, "side": "decoder"})
    recipe = arms["late"].recipe.changed(epochs=3)
    arms["early"] = make("autoencoder", early_bird={"delta": 0.6, "window": 1}, recipe=recipe)
    frame = cc.study([one.changed(scores=None) for one in arms.values()], tmp_path, device="cpu", workers=1)
    for name, one in arms.items():
        rounds = frame[(frame["experiment"] == one.hash) & (frame["kind"] == "round")]
        assert rounds["density"].iloc[0] == 1 and (name == "dense" or rounds["density"].iloc[-1] < 0.5)
    early = frame[(frame["experiment"] == arms["early"].hash) & (frame["round"] > 0)]
    assert any(saved > 0 for row in early["epochs_saved"] for saved in row), "no training was ended early"


def test_a_judge_is_trained_once_and_scores_what_it_recognises(make, tmp_path):
    plain = make("autoencoder", method="imp")
    judged = plain.changed(scoring={"objective": {"name": "reconstruction", "judge": "fc1"}})
    assert plain.hash == judged.hash
    frame = cc.run(judged, tmp_path, device="cpu")
    assert frame["recognised"].dropna().ge(0).all() and frame["recognised"].notna().sum() == 1
    trainings = len(list((tmp_path / "trainings").iterdir()))
    frame = cc.run(judged.changed(scores=(0.2,)), tmp_path, device="cpu")
    assert frame["recognised"].notna().sum() == 2
    assert len(list((tmp_path / "trainings").iterdir())) == trainings, "the judge was trained again"


def test_an_objective_is_rebuilt_with_its_judge(small, quick):
    judge = cc.build("conv3", 10, seed=4, width=4)
    for one in (cc.Reconstruction(judge), cc.ELBO(beta=2.0, judge=judge)):
        one = one.fitted(small.train)
        again = objective_of(json.loads(json.dumps(described(one))), one.tensors())
        network = cc.build("vae", width=4)
        assert again.settings() == one.settings() and again.others(network, small.test) == one.others(
            network, small.test
        )


def test_the_sides_agree_apart_from_each_other_beside_both_nulls(small, quick):
    network = cc.build("autoencoder", seed=0, width=4)
    rounds = list(cc.colt(network, cc.partition(small.train, 2), quick, 0.3, 0.4, device="cpu"))
    table = cc.report.by_side(rounds)
    assert set(table["side"]) == {"encoder", "decoder"} and len(table) == 2 * (len(rounds) - 1)
    assert {"jaccard", "chance", "chance_theta0"} <= set(table)
    first = rounds[1].partition_masks
    own = [{n: m for n, m in mask.items() if n.startswith("decoder.")} for mask in first]
    row = table[(table["side"] == "decoder") & (table["round"] == 1)].iloc[0]
    assert row["jaccard"] == cc.masks.jaccard(*own)
    assert row["chance"] == pytest.approx(
        cc.masks.chance(*own, within={n: torch.ones_like(m) for n, m in own[0].items()})
    )


# --- carried over ---


def test_an_encoders_ticket_is_a_classifiers_and_back():
    source = cc.build("autoencoder", seed=0, width=4)
    rng = torch.Generator().manual_seed(0)
    mask = {n: torch.rand(source.get_parameter(n).shape, generator=rng) < 0.4 for n in cc.prunable(source)}
    ticket = cc.Ticket.of(source, mask)
    classifier = cc.carried(ticket, cc.build("conv3", 10, seed=1, width=4))
    assert all(torch.equal(m, mask[f"encoder.{n}"]) for n, m in classifier.mask.items())
    assert all(
        torch.equal(classifier.theta0[n], source.state_dict()[f"encoder.{n}"]) for n in ("conv2.weight", "norm2.bias")
    )
    assert torch.equal(classifier.theta0["head.weight"], cc.build("conv3", 10, seed=1, width=4).head.weight)
    back = cc.carried(classifier, cc.build("autoencoder", seed=2, width=4))
    assert all(torch.equal(back.mask[n], mask[n]) for n in mask if n.startswith("encoder."))
    assert all(bool(back.mask[n].all()) for n in mask if not n.startswith("encoder."))
    vae = cc.carried(ticket, cc.build("vae", seed=3, width=4))
    assert all(torch.equal(vae.mask[n], m) for n, m in mask.items()) and bool(vae.mask["log_variance.weight"].all())
    assert vae.model()(torch.zeros(2, 3, 16, 16)).shape == (2, 3, 16, 16)
    with pytest.raises(
        ValueError, match=r"conv1.weight is \(8, 3, 3, 3\) in the network, \(4, 3, 3, 3\) in the ticket"
    ):
        cc.carried(ticket, cc.build("conv3", width=8))
    with pytest.raises(ValueError, match="no layer that a resnet20 knows by name"):
        cc.carried(ticket, cc.build("resnet20"))


def test_carried_tickets_are_a_method(make, tmp_path):
    args = {"width": 4, "latent": 64}
    one = make("conv3", network_args={"width": 4}, method="carried", source="autoencoder", source_args=args)
    assert one.objective is None and one.reference().objective == {"name": "reconstruction"}
    assert one.reference().changed(network="conv3", network_args={"width": 4}).objective is None
    own = cc.Experiment(method="carried", network="conv3", options={"source": "autoencoder", "of": "imp"})
    imp = cc.Experiment(method="imp", network="autoencoder").rate
    assert own.reference().rate == imp and own.changed(rate=0.3).reference().rate == 0.3, "not given: IMP's own"
    rounds = list(cc.rounds(one, tmp_path, device="cpu"))
    source = list(cc.rounds(one.reference(), tmp_path, device="cpu"))
    for found, other in zip(rounds, source, strict=True):
        assert all(torch.equal(m, other.ticket.mask[f"encoder.{n}"]) for n, m in found.ticket.mask.items())
        assert found.ticket.provenance["parent"] == other.ticket.hash
    with pytest.raises(ValueError, match="a silent ticket holds channels at zero"):
        cc.carried(source[-1].ticket.silent(), cc.build("conv3", 10, width=4))
    shuffled = list(cc.rounds(one.changed(control="random"), tmp_path, device="cpu"))[-1].ticket.mask
    last = rounds[-1].ticket.mask
    assert all(int(m.sum()) == int(last[n].sum()) for n, m in shuffled.items()) and cc.masks.hamming(shuffled, last) > 0


# --- transposed layers the right way round ---


def test_dead_channels_of_a_transposed_layer_are_counted_the_right_way():
    network = cc.build("autoencoder", seed=0, width=4)
    mask = cc.masks.dense(network.state_dict(), cc.prunable(network))
    layer = "decoder.deconv2.weight"  # [8 inputs, 4 outputs, 4, 4]
    mask[layer][:3], mask[layer][:, 0] = False, False
    row = cc.masks.by_layer(mask, transposed=models.transposed(network)).loc["decoder.deconv2"]
    assert (row["dead_in"], row["dead_out"]) == (3, 1) and cc.Ticket.of(network, mask).transposed == models.transposed(
        network
    )
    shared = {one.layer: one for one in cc.masks.shared_channels(mask, mask, transposed=models.transposed(network))}
    assert shared["decoder.deconv2"].channels == 4 and shared["decoder.deconv2"].shared == 3
    assert cc.masks.collapse(mask, network).connected and cc.masks.collapse(mask, network).dead_channels == 1
    mask[layer][:] = False
    assert not cc.masks.collapse(mask, network).connected


def test_the_explorer_shows_a_transposed_layer_with_its_outputs_as_rows(make, tmp_path):
    experiment = make("autoencoder", scores=None)
    cc.run(experiment, tmp_path, device="cpu")
    view = explorer([experiment], store=tmp_path)
    view.layer = layer = "decoder.deconv1.weight"  # [4 inputs, 3 outputs, 4, 4]
    assert [layer, [3, 4, 4, 4]] in view.about()["layers"] and layer in view.about()["turned"]
    view.weight = [2, 1 * 16 + 7]
    found = list(cc.rounds(experiment, tmp_path, device="cpu"))
    assert view.history()["ticket"].tolist() == [bool(one.ticket.mask[layer][1, 2, 1, 3]) for one in found]
    first, second, _ = view.masks([layer])
    copies = [one[layer].transpose(0, 1) for one in found[view.round].partition_masks]
    assert torch.equal(first[layer], copies[0]) and torch.equal(second[layer], copies[1])
    packed = np.unpackbits(view.sheets.packed(f"{experiment.hash}/1/0"), bitorder="little")
    begin = 8 * view.about()["starts"][[name for name, _ in view.about()["layers"]].index(layer)]
    assert packed[begin : begin + copies[0].numel()].tolist() == copies[0].flatten().int().tolist()


def test_views_tell_scores_by_their_metric(make, tmp_path):
    cc.study([make("autoencoder"), make("conv3", network_args={"width": 4})], tmp_path, device="cpu", workers=1)
    view = cc.widgets.compare(store=tmp_path)
    nets = [value for _, value in view.filters["net"].options]
    view.filters["net"].value = nets
    assert "1 scored tickets" in view.words.value and "Scores by mse are left out" in view.words.value
    view.filters["net"].value = [name for name in nets if "autoencoder" in name]
    assert "1 scored tickets" in view.words.value and "left out" not in view.words.value and "mse" in view.picture.alt
    rounds = [r for r in cc.run(make("autoencoder"), tmp_path, device="cpu").to_dict("records") if r["kind"] == "round"]
    epochs = cc.plots.cycles.epochs_table(rounds)
    assert epochs["validation_mse"].notna().all()
    figure = cc.plots.progress(epochs, cc.plots.rounds_table({"colt": rounds}), 0.3, 2)
    assert figure.axes[1].get_title(loc="left") == "Validation mse of each copy"


# --- pictures without labels, and mistakes ---


def test_a_folder_of_pictures_without_classes_is_enough(tmp_path, mini):
    from PIL import Image

    place = tmp_path / "faces"
    place.mkdir()
    for i, pixels in enumerate(mini.train.images[:20]):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((18, 22)).save(place / f"{i:06}.png")
    data = cc.load(str(place))
    assert data.train.classes == ("unlabelled",) and data.train.shape == (3, 22, 18)
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    about = {
        "dataset": str(place),
        "network": "autoencoder",
        "network_args": {"width": 4, "latent": 64},
        "recipe": recipe,
    }
    frame = cc.run(
        cc.Experiment(**about, by="random", rate=0.4, target=0.5, scores=(0.5,)), tmp_path / "store", device="cpu"
    )
    assert frame["mse"].notna().sum() == 1
    with pytest.raises(ValueError, match="no labels to be split by class; allowed: random, order"):
        cc.run(cc.Experiment(**about), tmp_path / "store", device="cpu")
    with pytest.raises(ValueError, match="these images have no labels: classes can be learnt"):
        cc.train(cc.build("conv3", 1, width=4), data.train, recipe)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network": "vae", "objective": {"name": "vae", "beta": -1}}, "beta must be 0 or more, not -1"),
        ({"network": "vae", "recipe": "official"}, "a classifier's recipe with milestones does not go with the VAE's"),
        ({"network": "autoencoder", "objective": "cross-entropy"}, "it is no classifier, and knows no cross-entropy"),
        ({"network": "vae", "scoring": {"objective": "cross-entropy"}}, "it is no classifier, and knows no cross-ent"),
        ({"objective": {"name": "reconstruction", "size": 2}}, "does not take the settings .*keyword argument 'size'"),
        ({"network": "vae", "objective": {"name": "vae", "beta": "x"}}, "beta must be a number, not 'x'"),
        ({"network": "vae", "objective": {"name": "vae", "beta": None}}, "beta must be a number, not None"),
        (
            {"network": "autoencoder", "scoring": {"objective": {"name": "reconstruction", "judge": 3}}},
            "judge must be a network or a network's name, not 3",
        ),
    ],
)
def test_a_mistake_in_an_experiment_is_one_clear_line(fields, message):
    with pytest.raises(ValueError, match=message) as told:
        cc.Experiment(**fields)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("autoencoder", {"latent": 4096}, "a latent of 4096 is larger than the image"),
        ("vae", {"latent": 100}, "latent must be a multiple of 16, from 16 to 3072, not 100"),
        ("vae", {"side": "left"}, "unknown side 'left'; allowed: both, encoder, decoder"),
        ("autoencoder", {"width": 0}, "width must be at least 1, not 0"),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        cc.build(name, **arguments)


def test_what_does_not_go_together_is_refused_before_any_training(small, quick):
    for network, objective, message in (
        (
            "autoencoder",
            cc.training.CROSS_ENTROPY,
            "gives images back, no scores of classes: cross-entropy and accuracy",
        ),
        ("autoencoder", cc.ELBO(), "no posterior"),
        ("conv3", cc.Reconstruction(), "conv3 gives .*images again, is expected"),
    ):
        for call in (cc.train, cc.imp):
            with pytest.raises(ValueError, match=message):
                call(cc.build(network, 10, width=4), small.train, quick, objective=objective)
    with pytest.raises(ValueError, match=r"components must lie in 1..768"):
        yardsticks.simple_errors(small, [0])


JUDGE = {"objective": {"name": "reconstruction", "judge": "conv3"}}
KD = {"objective": {"name": "kd", "teacher": "resnt20"}}
PLAIN = {"network": "conv3", "network_args": {"width": 4}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"dataset": "unlabelled", "by": "random", "scoring": JUDGE},
            "'conv3', which is to .* judge: these images have no",
        ),
        ({"score_on": "unlabelled", "scoring": JUDGE}, "'conv3', which is to teach or to judge: these images have no"),
        ({"scoring": {"objective": JUDGE["objective"] | {"judge": "autoencoder"}}}, "judge: autoencoder gives images"),
        ({"scoring": {"objective": JUDGE["objective"] | {"judge": "nonsense"}}}, "judge: unknown network 'nonsense'"),
        ({"scoring": {"head": "fresh"}}, "autoencoder has no head that could be made anew for 3 classes"),
        ({"scoring": {"objective": "kd"}}, "gives images back, no scores of classes"),
        ({"scoring": {"objective": "vae"}}, "no posterior"),
        (
            {"network": "vae", "objective": "reconstruction", "scoring": {"objective": "vae"}, "recipe": "steps"},
            "milestones",
        ),
        (PLAIN | {"scoring": KD}, "'resnt20', which is to teach or to judge: unknown network 'resnt20'"),
        (PLAIN | KD, "'resnt20', which is to teach or to judge: unknown network 'resnt20'"),
        (PLAIN | {"objective": {"name": "kd", "teacher": "vae"}}, "'vae', which is to teach .* gives images back"),
        (PLAIN | {"score_on": "cifar10-mini@16", "scoring": {"head": "own"}}, "the head has 3 outputs but the images"),
    ],
)
def test_what_scores_could_only_fail_of_is_refused_before_any_training(make, few, tmp_path, fields, message):
    from PIL import Image

    (tmp_path / "faces").mkdir()
    for i in range(12):
        Image.fromarray(few.test.images[i].permute(1, 2, 0).numpy()).save(tmp_path / f"faces/{i}.png")
    fields = {name: f"{tmp_path}/faces@16" if value == "unlabelled" else value for name, value in fields.items()}
    job = make(**{"network": "autoencoder"} | {name: value for name, value in fields.items() if name != "recipe"})
    if "recipe" in fields:
        job = job.changed(recipe=job.recipe.changed(epochs=3, schedule="step", milestones=(1,)))
    plain = job.changed(scoring=None, score_on=None) if "objective" not in fields else job
    for call in (lambda: cc.run(job, tmp_path / "store", "cpu"), lambda: cc.study([job, plain], tmp_path / "store")):
        with pytest.raises(ValueError, match=message) as told:
            call()
        assert "\n" not in str(told.value) and not list((tmp_path / "store").glob("*/records.jsonl"))


@pytest.mark.parametrize("beta", ["1", None, True, [1]])
def test_beta_is_a_number(beta):
    with pytest.raises(ValueError, match="beta must be a number, not ") as told:
        cc.ELBO(beta=beta)
    assert "\n" not in str(told.value) and cc.ELBO(beta=np.float32(0.5)).settings() == {"beta": 0.5}


def test_scores_by_cross_entropy_are_so_also_where_another_objective_finds():
    one = cc.Experiment(objective="kd", scoring={"objective": "cross-entropy"})
    assert one.scoring.objective == {"name": "cross-entropy"} and cc.Experiment(scoring={}).scoring.objective is None


def test_scores_at_initialisation_are_of_the_networks_own_loss_and_synflow_says_why_it_has_none(small, quick):
    network = cc.build("autoencoder", seed=0, width=4)
    names, objective = cc.prunable(network), cc.Reconstruction().fitted(small.train)
    from colt_core.training.saliency import snip_scores

    found = snip_scores(network, small.train, names, cc.Reconstruction())
    copy = cc.build("autoencoder", seed=0, width=4).double().train()
    pixels = normalise(small.train.images, small.train.mean, small.train.std).double()
    # Batch normalisation sees two chunks there: the images of each are drawn from one seed.
    rng = cc.seeding.generator(0, "chunks", 120)
    for index in torch.randperm(120, generator=rng).tensor_split(2):
        (objective.loss(copy, pixels[index], small.train.labels[index])[0] / 2).backward()
    for name in names:
        weight = copy.get_parameter(name)
        assert torch.allclose(found[name], (weight.grad * weight).abs().detach())
    rounds = list(cc.snip(network, small.train, quick, [0.5, 0.2], device="cpu"))
    assert [round(one.density, 3) for one in rounds] == [1.0, 0.5, 0.2]
    assert [round(one.density, 3) for one in cc.synflow(network, small.train, quick, [0.3], device="cpu")] == [1.0, 0.3]
    network.decoder.deconv1.weight.data *= 1e6
    with pytest.raises(ValueError, match="SynFlow's scores are all zero"):
        list(cc.synflow(network, small.train, quick, [0.5], device="cpu"))


# --- a generator against a discriminator ---


def test_a_step_of_both_is_a_step_of_each_with_an_optimiser_of_its_own(small):
    network = cc.build("dcgan", seed=0, width=4, latent=8, image_size=16)
    plain = cc.build("dcgan", seed=0, width=4, latent=8, image_size=16)
    images, objective = small.train, cc.training.Adversarial().fitted(small.train)
    pixels = normalise(images.images[:24], images.mean, images.std)
    with cc.seeding.drawing(0, "step"):
        loss, metric = objective.loss(network.train(), pixels, images.labels[:24])
    loss.backward()
    assert math.isnan(metric)
    mean, std = (torch.tensor(v)[:, None, None] for v in (images.mean, images.std))
    with cc.seeding.drawing(0, "step"):
        made = (plain.train().generate(torch.randn(24, 8)) - mean) / std
    twin = cc.build("dcgan", seed=0, width=4, latent=8, image_size=16).train()
    entropy = nn.functional.binary_cross_entropy_with_logits
    fooled = entropy(twin.judge(made), torch.ones(24))
    told = entropy(plain.judge(pixels), torch.ones(24)) + entropy(plain.judge(made.detach()), torch.zeros(24))
    grown = torch.autograd.grad(fooled, list(plain.generator.parameters()))
    taught = torch.autograd.grad(told, list(plain.discriminator.parameters()))
    both = [*network.generator.parameters(), *network.discriminator.parameters()]
    assert all(torch.allclose(a, b.grad, atol=1e-6) for a, b in zip((*grown, *taught), both, strict=True))
    assert float(loss.detach()) == pytest.approx(float((told + fooled).detach()), rel=1e-5)
    state = plain.discriminator.state_dict()
    assert all(torch.allclose(v, state[n]) for n, v in network.discriminator.state_dict().items()), "statistics differ"


def test_a_gan_goes_the_whole_way(make, tmp_path):
    one = make("dcgan", method="imp", network_args={"width": 4, "latent": 8, "image_size": 16})
    assert one.objective == {"name": "adversarial"}
    frame = cc.run(one, tmp_path, device="cpu")
    row = frame[frame["kind"] == "score"].iloc[0]
    for _ in range(2):  # what is stored is told again, where training measured nothing
        first = cc.run(one.changed(method="dense", scores=()), tmp_path / "two", device="cpu")
        shutil.rmtree(tmp_path / "two" / first["experiment"].iloc[0])
    assert row["metric"] == "frechet" and 0 < row["frechet"] < math.inf and row["null"] >= 0 and row["chance"] > 0
    assert {n.split(".")[1] for n in frame["pruned"].iloc[0]} == {
        "deconv3",
        "deconv2",
        "deconv1",
        "conv1",
        "conv2",
        "conv3",
    }
    with pytest.raises(ValueError, match="the generator makes images of 3 x 32 x 32, not 3 x 16 x 16"):
        cc.run(make("dcgan", network_args={"width": 4}), tmp_path, device="cpu")
    with pytest.raises(ValueError, match="image_size must be a multiple of 8, not 20"):
        cc.build("dcgan", image_size=20)
