import math
from copy import deepcopy

import pytest
import torch
from torchvision.transforms import functional as tv

import colt_core as cc
from colt_core import masks, training
from colt_core.data.augmentation import augment, epoch_order, normalise
from colt_core.training import Recipe, loop


def same(a, b):
    return all(torch.equal(value, b[key]) for key, value in a.items())


def state(network):
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def half_mask(network, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.rand(network.get_parameter(n).shape, generator=rng) < 0.5 for n in cc.prunable(network)}


# --- masked weights ---


@pytest.mark.parametrize(
    "change",
    [{"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4}, {"optimizer": "adam", "weight_decay": 1e-2}],
    ids=["sgd with momentum and weight decay", "adam with weight decay"],
)
def test_a_masked_weight_is_exactly_zero_at_every_forward_pass(network, few, recipe, change):
    mask, seen = half_mask(network), []

    def look(module, inputs):
        for name, kept in mask.items() if module is network else ():  # a copy's outputs are looked at beforehand
            seen.append(float(network.get_parameter(name).detach()[~kept].abs().max()))

    network.register_forward_pre_hook(look)
    cc.train(network, few.train, recipe.changed(epochs=2, **change), mask=mask, validation=few.validation)
    look(network, None)
    assert len(seen) > 20 and max(seen) == 0.0


def test_a_mask_that_comes_late_is_not_undone_by_stale_momentum(network, few, recipe):
    """Momentum gathered while a weight was alive must not bring it back once it is masked."""
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    masked = loop._MaskedWeights(network, half_mask(network))
    pixels, labels = normalise(few.train.images, few.mean, few.std), few.train.labels
    for step in range(6):
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), labels).backward()
        sgd.step()
        if step >= 2:
            masked.apply()
            assert all(not network.get_parameter(n).detach()[~kept].any() for n, kept in half_mask(network).items())


def test_gradients_of_kept_weights_move_them(network, few, recipe):
    before, mask = state(network), half_mask(network)
    cc.train(network, few.train, recipe, mask=mask)
    name = cc.prunable(network)[0]
    assert not torch.equal(network.get_parameter(name)[mask[name]], before[name][mask[name]])


@pytest.mark.parametrize(
    "change",
    [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "adam"}],
    ids=["sgd with momentum", "plain sgd", "adam"],
)
def test_steps_are_those_of_torch_optim(network, few, recipe, change):
    recipe, other = recipe.changed(weight_decay=1e-2, learning_rate=0.01, **change), deepcopy(network)
    ours, common = training.Optimizer(recipe, network), {"lr": 0.01, "weight_decay": 1e-2, "fused": True}
    adam = recipe.optimizer == "adam"
    theirs = torch.optim.Adam if adam else lambda *a, **k: torch.optim.SGD(*a, momentum=recipe.momentum, **k)
    theirs = theirs(other.parameters(), **common)
    pixels, labels = normalise(few.train.images, few.mean, few.std), few.train.labels
    for step in range(5):
        ours.learning_rate = theirs.param_groups[0]["lr"] = 0.01 / (1 + step)
        for optimizer, moved in ((ours, network), (theirs, other)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(moved(pixels), labels).backward()
            if adam and step < 2:
                next(moved.parameters()).grad = None  # not in use yet
            optimizer.step()
    for name, value in other.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


# --- determinism ---


def test_the_same_training_gives_the_same_bytes(network, few, recipe):
    other = cc.build("conv3", 10, seed=0, width=4)
    torch.manual_seed(1)
    first = cc.train(network, few.train, recipe, seed=3, validation=few.validation)
    torch.manual_seed(2)
    second = cc.train(other, few.train, recipe, seed=3)
    assert same(state(network), state(other)), "validation or the global random state changed the training"
    assert [e["loss"] for e in first.epochs] == [e["loss"] for e in second.epochs]


def test_another_seed_gives_another_training(network, few, recipe):
    other = cc.build("conv3", 10, seed=0, width=4)
    cc.train(network, few.train, recipe, seed=3)
    cc.train(other, few.train, recipe, seed=4)
    assert not same(state(network), state(other))


def test_dropout_is_part_of_what_the_seed_fixes(few, recipe):
    copies = [cc.build("mobilenetv2", 10) for _ in range(2)]
    small = few.train.take(torch.arange(0, 120, 10))
    for number, copy in enumerate(copies):
        torch.manual_seed(number)
        cc.train(copy, small, recipe.changed(batch_size=6), seed=1)
    assert same(state(copies[0]), state(copies[1]))


def test_copies_do_not_depend_on_each_other_or_on_their_order(few, parts, recipe):
    make = lambda: [cc.build("conv3", 5, seed=0, width=4) for _ in parts]
    together = cc.train_copies(make(), parts, recipe, seeds=[7, 8])
    backwards = cc.train_copies(make(), parts[::-1], recipe, seeds=[8, 7])[::-1]
    assert all(same(state(a), state(b)) for a, b in zip(together, backwards, strict=True))
    assert not same(state(together[0]), state(together[1]))


def test_the_thread_count_and_random_state_are_put_back(network, few, recipe):
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    cc.train(network, few.train, recipe, threads=2)
    assert torch.get_num_threads() == threads and torch.equal(before, torch.random.get_rng_state())


def test_training_in_two_pieces_ends_where_one_does(few, recipe):
    """Late rewinding starts from step k of the same schedule; without BatchNorm or momentum the pieces must join."""
    plain = recipe.changed(epochs=2, optimizer="sgd", momentum=0.0, learning_rate=0.05)
    whole, pieces = (cc.build("conv3", 10, seed=0, width=4) for _ in range(2))
    cc.train(whole, few.train, plain, seed=1)
    first = cc.train(pieces, few.train, plain, seed=1, steps=3)
    second = cc.train(pieces, few.train, plain, seed=1, first_step=3)
    assert first.steps == 3 and first.images == 72 and first.images + second.images == 240
    assert same(state(whole), state(pieces))


# --- data order and augmentation ---


@pytest.mark.parametrize("batch", [50, 7])
def test_an_epoch_sees_every_image_once_in_even_batches(few, batch):
    recipe = Recipe(batch_size=batch, crop=0, flip=False, rotation=0)
    order, _ = epoch_order(few.train, seed=0, epoch=3)
    batches = list(loop._batches(few.train, recipe, seed=0, epoch=3))
    assert sorted(order.tolist()) == list(range(120))
    sizes = [len(labels) for _, labels in batches]
    assert len(sizes) == math.ceil(120 / batch) and max(sizes) <= batch and max(sizes) - min(sizes) <= 1
    pixels = torch.cat([pixels for pixels, _ in batches])
    assert torch.equal(pixels, normalise(few.train.batch(order), few.mean, few.std))
    assert torch.equal(torch.cat([labels for _, labels in batches]), few.train.labels[order])
    assert order.tolist() != epoch_order(few.train, seed=0, epoch=4)[0].tolist()


def test_a_piece_of_an_epoch_is_that_piece_of_its_batches(few):
    recipe = Recipe(batch_size=7)
    whole = list(loop._batches(few.train, recipe, seed=1, epoch=2))
    steps = recipe.steps(120)
    piece = list(loop._batches(few.train, recipe, 1, 2, first=2 * steps + 3, end=2 * steps + 8))
    assert len(piece) == 5
    assert all(torch.equal(a, b) for p, w in zip(piece, whole[3:8], strict=True) for a, b in zip(p, w, strict=True))


def shifts(count, dy=0, dx=0, flip=False, angle=0.0):
    return {
        "dy": torch.full((count,), dy),
        "dx": torch.full((count,), dx),
        "flip": torch.full((count,), flip),
        "angle": torch.full((count,), angle),
    }


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, -4), (-4, 2)])
def test_crop_and_flip_are_torchvisions(few, dy, dx, flip):
    pixels = few.train.images[:5]
    expected = tv.crop(tv.pad(pixels, 4), 4 + dy, 4 + dx, 32, 32)
    expected = tv.hflip(expected) if flip else expected
    assert torch.equal(augment(pixels, shifts(5, dy, dx, flip), rotates=False), expected)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("dy", "dx", "degrees"), [(0, 0, 15.0), (3, -4, -7.0), (-4, 2, 20.0)])
def test_crop_then_flip_then_rotation_are_torchvisions(few, dy, dx, flip, degrees):
    """RandomRotation takes the nearest pixel and fills with black; all three in one pass give the same bytes."""
    pixels = few.train.images[:5]
    expected = tv.crop(tv.pad(pixels, 4), 4 + dy, 4 + dx, 32, 32)
    expected = tv.rotate(tv.hflip(expected) if flip else expected, degrees, tv.InterpolationMode.NEAREST)
    assert torch.equal(augment(pixels, shifts(5, dy, dx, flip, math.radians(degrees))), expected)


def test_augmentation_off_changes_nothing_and_normalisation_is_torchvisions(few):
    pixels = few.train.images[:4]
    assert augment(pixels, shifts(4, 2, 2, True), moves=False, rotates=False) is pixels
    assert torch.equal(augment(pixels, shifts(4)), pixels)
    expected = tv.normalize(pixels.float() / 255, few.mean, few.std)
    assert torch.allclose(normalise(pixels, few.mean, few.std), expected, atol=1e-5)
    assert torch.equal(pixels, few.train.images[:4]), "normalising must not write into the data"


# --- schedule and recipe ---


def test_the_official_schedule_by_hand():
    official, steps = Recipe.named("official"), 196  # ceil(50,000 / 256)
    assert official.rate_at(0, steps) == pytest.approx(0.1 / 196)
    assert official.rate_at(195, steps) == pytest.approx(0.1)
    for epoch, rate in ((1, 0.1), (19, 0.1), (20, 0.02), (29, 0.02), (30, 0.004), (45, 0.0008), (49, 0.0008)):
        assert official.rate_at(epoch * steps, steps) == pytest.approx(rate)


def test_warm_up_never_divides_by_nothing():
    assert Recipe(warmup=0).rate_at(0, 1) == 0.1
    assert 0 < Recipe(warmup=1).rate_at(0, 1) <= 0.1
    assert Recipe(epochs=1, warmup=1, schedule="cosine").rate_at(0, 1) == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"optimiser": "sgd"}, "unknown key 'optimiser'; allowed: epochs, batch_size"),
        ({"optimizer": "lion"}, "'sgd' or 'adam'"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Recipe(**change)
    assert "\n" not in str(caught.value)


def test_recipes_are_frozen_and_named():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().epochs = 3
    with pytest.raises(ValueError, match="allowed: official"):
        Recipe.named("best")
    assert Recipe.named("mini").model_copy(update={"epochs": 7}).epochs == 7


# --- bookkeeping and errors ---


def test_best_and_last_are_kept_apart(network, few, recipe):
    history = cc.train(network, few.train, recipe.changed(epochs=4), validation=few.validation)
    scores = [epoch["validation_accuracy"] for epoch in history.epochs]
    assert history.best_epoch == scores.index(max(scores)) and history.validation_accuracy == scores[-1]
    network.load_state_dict(history.best_state)
    assert cc.accuracy(network, few.validation) == max(scores)


def test_a_network_learns(mini):
    network = cc.build("conv3", 10, seed=0, width=8)
    history = cc.train(network, mini.train, Recipe.named("mini"), validation=mini.validation)
    assert history.validation_accuracy > 0.25 and history.epochs[1]["loss"] < history.epochs[0]["loss"]
    assert history.images == 2 * len(mini.train)


def test_tf32_on_the_cpu_is_float32_to_the_last_bit(few, recipe):
    copies = [cc.build("conv3", 10, seed=0, width=4) for _ in range(2)]
    histories = [
        cc.train(copy, few.train, recipe.changed(precision=name), validation=few.validation, device="cpu")
        for copy, name in zip(copies, ("float32", "tf32"), strict=True)
    ]
    assert same(state(copies[0]), state(copies[1])) and histories[0].epochs == histories[1].epochs


@pytest.mark.parametrize(("precision", "low"), [("float32", False), ("tf32", True), ("bfloat16", True)])
def test_a_recipe_of_lower_precision_lets_the_device_round(network, few, recipe, monkeypatch, precision, low):
    asked, real = [], loop.reproducible

    def spy(device, seed, threads=1, tf32=False):
        asked.append(tf32)
        return real(device, seed, threads, tf32)

    monkeypatch.setattr(loop, "reproducible", spy)
    cc.train(network, few.train, recipe.changed(precision=precision, epochs=2), device="cpu")
    assert asked == [low, low]


def test_bfloat16_keeps_weights_in_float32(network, few, recipe):
    cc.train(network, few.train, recipe.changed(precision="bfloat16"))
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_a_diverged_training_says_so(network, few, recipe):
    with pytest.raises(FloatingPointError, match="lower the recipe's learning rate"):
        cc.train(network, few.train, recipe.changed(epochs=9, optimizer="sgd", learning_rate=1e20, warmup=0))


@pytest.mark.parametrize("name", ["autoencoder", "conv3"])
def test_accuracy_is_of_scores_one_a_class(few, parts, name):
    network, half = cc.build(name, 10, seed=0, width=4), parts[0]
    gives = r"\[5, 3, 32, 32\]" if name == "autoencoder" else r"\[5, 10\]"
    with pytest.raises(ValueError, match=rf"{name} gives {gives} for 5 images; scores \[N, classes\], \[5, 5\]"):
        cc.accuracy(network, half, batch=5)
    told = "gives images back, no scores" if name == "autoencoder" else "the head has 10 outputs"
    with pytest.raises(ValueError, match=told):
        cc.training.objective.CROSS_ENTROPY.check(network, half)


def test_head_mask_device_and_lengths_are_checked_first(network, few, parts, recipe):
    with pytest.raises(ValueError, match="the head has 10 outputs but the images have 5 classes"):
        cc.train(network, parts[0], recipe)
    with pytest.raises(ValueError, match="another network"):
        cc.train(network, few.train, recipe, mask={"conv9.weight": torch.ones(1).bool()})
    with pytest.raises(ValueError, match="2 networks need 2 parts, not 1"):
        cc.train_copies([network, network], parts[:1], recipe)
    with pytest.raises(ValueError, match="allowed: auto, cpu"):
        cc.train(network, few.train, recipe, device="abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, d, r: cc.train(n, d, r), "images must be a set of images, dataset.train for example, not Dataset"),
        (lambda n, d, r: cc.partition(d), "images must be a set of images, dataset.train for example, not Dataset"),
        (lambda n, d, r: cc.accuracy(n, d), "images must be a set of images, dataset.test for example, not Dataset"),
        (lambda n, d, r: cc.colt(n, d, r), r"parts must be a list, of partition\(dataset.train\) for example, not"),
        (lambda n, d, r: cc.colt(n, [d, d], r), "each of the parts must be a set of images, .* not Dataset"),
        (lambda n, d, r: cc.imp(n, d, r), "must be a set of images, dataset.train for example, not Dataset"),
        (lambda n, d, r: cc.evaluate(n, d.train, r), r"data must be a Dataset, load\('cifar10'\) for example, not Im"),
    ],
)
def test_a_data_set_and_its_images_are_told_apart_in_one_line(network, few, recipe, call, message):
    with pytest.raises(ValueError, match=message):
        call(network, few, recipe)


def test_cuda_is_refused_where_there_is_none(network, few, recipe):
    with pytest.raises(ValueError, match="this machine has none; use device='auto' or 'cpu'"):
        cc.train(network, few.train, recipe, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_masked_training_on_cuda(network, few, recipe):
    mask = half_mask(network)
    cc.train(network, few.train, recipe, mask=mask, device="cuda")
    assert all(not network.get_parameter(n).detach().cpu()[~kept].any() for n, kept in mask.items())
    assert masks.density(mask) < 1


# --- what a stored training is found by --------------------------------------------------------------------------


def test_a_stored_training_is_that_of_what_a_network_computes_not_of_its_weights_alone(
    few, recipe, tmp_path, monkeypatch
):
    key = lambda network, **how: cc.training.Training(few.train, recipe, **how).key(network)
    nets = [cc.build("torchvision:mobilenet_v2", 10, 0, dropout=share) for share in (0.0, 0.9, 0.0)]
    assert key(nets[0]) == key(nets[2]) != key(nets[1]), "they begin with the same weights"
    source = "import torch\nimport colt_core as cc\nclass Net(torch.nn.Module):\n"
    source += (
        "    def __init__(self, classes):\n        super().__init__()\n        self.fc = torch.nn.Linear(3, classes)\n"
    )
    source += "    def forward(self, x):\n        return self.fc(x.mean((2, 3)))\n"
    source += "class Mine(cc.training.CrossEntropy):\n    name = 'keyed_net:Mine'\n"
    (tmp_path / "keyed_net.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = key(cc.build("keyed_net:Net", 10))
    (tmp_path / "keyed_net.py").write_text(source.replace("x.mean((2, 3))", "x.amax((2, 3))"))
    assert key(cc.build("keyed_net:Net", 10)) != before, "edited code is other code"
    own = cc.build("conv3", 10, seed=0, width=4)
    assert cc.models.computes(own) == {} == cc.models.computes(cc.Ticket.of(own).compact().model())


def test_what_is_no_recipe_is_refused_in_one_line(few, network):
    with pytest.raises(ValueError, match="recipe must be a Recipe, for example Recipe.named.'mini'., not 'mini'"):
        cc.train(network, few.train, "mini")
    recipe = cc.Recipe.named("mini")
    for other, how, told in (
        (network, {"maks": None}, "unknown option 'maks'; allowed: mask, validation, .*; did you mean 'mask'\\?$"),
        (cc.Ticket.of(network), {}, "network must be a torch.nn.Module, .*, not Ticket"),
        (network, {"objective": cc.KD}, "objective must be an Objective, .* not <class"),
        (cc.build("conv3", 10).requires_grad_(False), {}, "every weight of the network is frozen"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.train(other, few.train, recipe, **how)
    for what in (3, "kd"):
        with pytest.raises((ValueError, FileNotFoundError), match="ticket must be a Ticket, .*, not 3|no ticket at kd"):
            cc.evaluate(what, few, recipe)
