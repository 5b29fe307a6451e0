import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import colt_core as cc
from colt_core import masks, models


@pytest.fixture
def ticket(network):
    weights = dict(network.named_parameters())
    mask = masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.6)
    return cc.Ticket.of(network, mask)


def test_the_same_ticket_gives_the_same_bytes_and_comes_back(ticket, tmp_path):
    one, two = ticket.save(tmp_path / "one.safetensors"), ticket.save(tmp_path / "two.safetensors")
    assert one.read_bytes() == two.read_bytes()
    loaded = cc.Ticket.load(one)
    assert loaded.hash == ticket.hash and loaded.architecture == ticket.architecture
    assert list(loaded.mask) == list(ticket.mask) and list(loaded.theta0) == list(ticket.theta0)
    assert loaded.save(tmp_path / "three.safetensors").read_bytes() == one.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_ticket_is_readable_with_safetensors_alone(ticket, tmp_path):
    tensors = load_file(ticket.save(tmp_path / "t.safetensors"))
    network = cc.build("conv3", 10, seed=8, width=4)
    network.load_state_dict({k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")})
    kept = {k.removeprefix("mask/"): v for k, v in tensors.items() if k.startswith("mask/")}
    assert set(kept) == set(ticket.mask) and all(v.dtype == torch.bool for v in kept.values())
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert json.loads(file.metadata()["ticket"])["architecture"]["name"] == "conv3"


def test_tickets_hold_no_time_host_or_path(ticket, tmp_path):
    import socket

    content = ticket.save(tmp_path / "t.safetensors").read_bytes()
    assert str(tmp_path).encode() not in content and socket.gethostname().encode() not in content


@pytest.mark.parametrize("cut", [5, 200, 2000])
def test_a_truncated_ticket_is_one_clear_line(ticket, tmp_path, cut):
    path = ticket.save(tmp_path / "t.safetensors")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="truncated") as caught:
        cc.Ticket.load(path)
    assert "\n" not in str(caught.value)


def test_an_altered_ticket_is_found_out(ticket, tmp_path):
    path = ticket.save(tmp_path / "t.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="altered"):
        cc.Ticket.load(path)


def test_an_altered_partition_mask_or_provenance_is_found_out(network, parts, recipe, tmp_path):
    found = list(cc.colt(network, parts, recipe, rate=0.3, target=0.3, device="cpu"))[1]
    path = found.save(tmp_path / "r.safetensors")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = file.metadata()
    tensors["partition/0/conv1.weight"][0, 0, 0, 0] ^= True
    save_file(tensors, path, about)
    with pytest.raises(ValueError, match="altered"):
        cc.Round.load(path, found.record())
    path = found.save(path)
    save_file(load_file(path), path, {"ticket": about["ticket"].replace('"round": 1', '"round": 9')})
    with pytest.raises(ValueError, match="altered"):
        cc.Ticket.load(path)


def test_other_files_are_no_tickets(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="is no ticket"):
        cc.Ticket.load(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no ticket"):
        cc.Ticket.load(tmp_path / "none.safetensors")


def test_a_ticket_for_another_network_is_refused(ticket):
    with pytest.raises(
        ValueError, match=r"another network: (ResNet|resnet20|conv3)? ?has no parameter|has shape"
    ) as caught:
        ticket.mask_for(cc.build("resnet20", 10))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has shape"):
        cc.Ticket.of(cc.build("conv3", 10, width=8), ticket.mask)
    with pytest.raises(ValueError, match="there is no parameter 'conv1.weigth'; .*; did you mean 'conv1.weight'"):
        cc.Ticket.of(cc.build("conv3", 10, width=8), names=["conv1.weigth"])


def test_the_name_of_a_tickets_file_says_what_it_is(ticket, tmp_path):
    with pytest.raises(ValueError, match="a ticket's file is safetensors: let its name end so, not with .pt"):
        ticket.save(tmp_path / "ticket.pt")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_one_clear_line_and_leaves_nothing(ticket, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as caught:
        ticket.save(tmp_path / "file" / "t.safetensors")
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_old_file_whole(ticket, tmp_path, monkeypatch):
    path = ticket.save(tmp_path / "t.safetensors")
    before = path.read_bytes()

    def full(tensors, part, metadata):
        part.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("colt_core.files.save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        ticket.redraw(1).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_the_model_is_theta0_under_the_mask(ticket, network):
    model = ticket.model()
    for name, value in network.state_dict().items():
        kept = ticket.mask.get(name, torch.tensor(True))
        assert torch.equal(model.state_dict()[name], value * kept)


@pytest.mark.parametrize("classes", [10, 5, 200])
def test_transfer_changes_the_head_alone(ticket, classes):
    moved, own = ticket.model(classes, seed=4), ticket.model()
    head = models.head_name(own) + "."
    for name, value in moved.state_dict().items():
        if name.startswith(head):
            assert value.shape[0] == classes and not torch.equal(value[:5], own.state_dict()[name][:5])
        else:
            assert torch.equal(value, own.state_dict()[name])
    with torch.no_grad():
        assert moved.eval()(torch.rand(2, 3, 64, 64)).shape == (2, classes)


def test_a_pruned_head_stays_with_its_classes():
    network = cc.build("conv3", 10, width=4)
    names = cc.prunable(network, head=True)
    dense = masks.dense(dict(network.named_parameters()), names)
    ticket = cc.Ticket.of(
        network, masks.random_like(masks.magnitude(network.state_dict(), dense, 0.5), torch.Generator())
    )
    head = models.head_name(network) + ".weight"
    assert (ticket.model().state_dict()[head] == 0).any()
    assert (ticket.model(classes=10).state_dict()[head] != 0).all()


def test_a_redrawn_ticket_has_the_same_mask_over_other_weights(ticket):
    other = ticket.redraw(5)
    assert all(torch.equal(other.mask[n], ticket.mask[n]) for n in ticket.mask)
    assert all(not torch.equal(other.theta0[n], ticket.theta0[n]) for n in ticket.mask)
    assert other.hash != ticket.hash and other.redraw(5).hash == other.hash


def test_torch_prune_gives_the_same_outputs(ticket):
    from torch.nn.utils import prune

    pruned, x = ticket.to_torch_prune().eval(), torch.rand(3, 3, 32, 32)
    assert prune.is_pruned(pruned)
    with torch.no_grad():
        assert torch.equal(pruned(x), ticket.model().eval()(x))
    kept = sum(int(m.weight_mask.sum()) for m in pruned.modules() if hasattr(m, "weight_mask"))
    assert kept == masks.count(ticket.mask)


def test_scores_depend_on_ticket_and_seed_alone(ticket, few, recipe):
    first, second = (cc.evaluate(ticket, few, recipe, seed=1, device="cpu") for _ in range(2))
    assert first.accuracy == second.accuracy and first.curve == second.curve
    assert 0 <= first.accuracy <= 1 and first.train_images == 120 and first.image_epochs == 120
    assert first.accuracy == first.best_accuracy  # one epoch: best and last are one
    assert cc.Score.from_dict(json.loads(json.dumps(first.as_dict()))) == first


def test_a_score_never_looks_at_the_test_set_to_choose(ticket, few, recipe):
    from dataclasses import replace

    wrong = replace(few, test=replace(few.test, labels=few.test.labels.flip(0)))
    honest, poisoned = (cc.evaluate(ticket, data, recipe.changed(epochs=3), device="cpu") for data in (few, wrong))
    assert honest.curve == poisoned.curve and honest.best_epoch == poisoned.best_epoch


def test_a_ticket_scores_on_other_classes_and_sizes(ticket, mini, few, recipe):
    from dataclasses import replace

    part = lambda images: replace(images.only([0, 1, 2]), pixels=images.pixels.repeat(1, 1, 2, 2))
    large = cc.Dataset("large", part(few.train), part(few.validation), part(few.test))
    score = cc.evaluate(ticket, large, recipe, device="cpu")
    assert score.chance == pytest.approx(1 / 3) and score.test_images == 30
