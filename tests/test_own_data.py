"""What users have at hand becomes a data set: arrays, pictures, objects; it is saved, named, and run."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import colt_core as cc
from colt_core import data as datasets

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 12, 10, 3), dtype=np.uint8)  # [N, H, W, C], not square
LABELS = np.arange(60) % 3
FEW = RNG.integers(0, 256, (12, 12, 10, 3), dtype=np.uint8), np.arange(12) % 3
FIRST = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


class Listed:
    """An indexable of (picture, label), as torchvision's data sets are."""

    classes = ["ant", "bee", "cat"]

    def __init__(self, pixels=PIXELS, labels=LABELS, make=Image.fromarray):
        self.pixels, self.labels, self.make = pixels, labels, make

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.make(self.pixels[i]), self.labels[i]


def refused(message, **arguments):
    with pytest.raises(ValueError, match=message) as caught:
        cc.Dataset.of(**arguments)
    told = str(caught.value)
    assert len(told.splitlines()) == 1 and len(told) < 700 and "[[" not in told
    return told


def prints(data):
    return [part.fingerprint() for part in (data.train, data.validation, data.test)]


WAYS = {
    "tensor": lambda: (FIRST, torch.from_numpy(LABELS)),
    "tensor, int32 labels": lambda: (FIRST, torch.from_numpy(LABELS).int()),
    "array": lambda: (PIXELS.transpose(0, 3, 1, 2), LABELS),
    "array, channels last": lambda: (PIXELS, LABELS[:, None].astype(np.uint8)),
    "list of pictures": lambda: ([Image.fromarray(one) for one in PIXELS], LABELS.tolist()),
    "list of items": lambda: [(Image.fromarray(one), int(label)) for one, label in zip(PIXELS, LABELS, strict=True)],
    "array stored backwards": lambda: (PIXELS[..., ::-1].copy()[..., ::-1], LABELS),
    "array that cannot be written to": lambda: (
        np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
        LABELS,
    ),
    "object": Listed,
    "object of tensors": lambda: Listed(make=lambda one: torch.from_numpy(one).permute(2, 0, 1)),
    "object of arrays": lambda: Listed(make=lambda one: one),
    "rows with names": lambda: [{"img": i, "coarse_label": 0, "fine_label": k} for i, k in WAYS["list of items"]()],
    "torch's TensorDataset": lambda: torch.utils.data.TensorDataset(FIRST, torch.from_numpy(LABELS)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_give_images_is_the_same_data_set(way):
    wanted = cc.Dataset.of(train=(FIRST, LABELS), test=FEW, classes=["ant", "bee", "cat"], validation=0.2, seed=1)
    found = cc.Dataset.of(train=WAYS[way](), test=FEW, classes=["ant", "bee", "cat"], validation=0.2, seed=1)
    assert prints(found) == prints(wanted)
    assert found.train.labels.dtype == torch.int64 and found.validation.counts() == [4, 4, 4]
    train, held_out = datasets.split_validation(cc.Images(FIRST, torch.from_numpy(LABELS), wanted.classes), 0.2, 1)
    assert torch.equal(found.train.images, train.images) and torch.equal(found.validation.images, held_out.images)
    assert found.mean == pytest.approx((train.images.double() / 255).mean((0, 2, 3)).tolist())
    assert torch.equal(found.test.images, torch.from_numpy(FEW[0]).permute(0, 3, 1, 2))


def test_grey_images_have_one_channel():
    for given in (PIXELS[..., 0], torch.from_numpy(PIXELS[..., :1]), [Image.fromarray(one[..., 0]) for one in PIXELS]):
        data = cc.Dataset.of(train=(given, LABELS))
        assert data.train.shape == (1, 12, 10) and len(data.mean) == 1
    mixed = [Image.fromarray(one if i == 59 else one[..., 0]) for i, one in enumerate(PIXELS)]
    data = cc.Dataset.of(train=(mixed, LABELS))  # the last picture has colours
    every = torch.cat([part.images for part in (data.train, data.validation, data.test)])
    grey = (every[:, 0] == every[:, 1]).flatten(1).all(1) & (every[:, 0] == every[:, 2]).flatten(1).all(1)
    assert every.shape[1:] == (3, 12, 10) and int(grey.sum()) == 59


def test_without_a_test_set_a_fifth_of_each_class_is_it():
    data = cc.Dataset.of(train=(PIXELS, LABELS), seed=3)
    assert data.test.counts() == [4] * 3 and data.validation.counts() == [2] * 3 and data.train.counts() == [14] * 3
    assert prints(data) == prints(cc.Dataset.of(train=Listed(), classes=["0", "1", "2"], seed=3))
    assert prints(data) != prints(cc.Dataset.of(train=(PIXELS, LABELS), seed=4))


@pytest.mark.parametrize("held_out", [FEW, [(Image.fromarray(one), int(i)) for one, i in zip(*FEW, strict=True)]])
def test_a_validation_split_of_its_own_is_kept(held_out, tmp_path):
    data = cc.Dataset.of(train=(PIXELS, LABELS), test=(PIXELS[::2] ^ 1, LABELS[::2]), validation=held_out)
    assert torch.equal(data.validation.images, torch.from_numpy(FEW[0]).permute(0, 3, 1, 2))
    assert len(data.train) == 60 and len(data.test) == 30
    same = cc.load(data.save(tmp_path / "set.safetensors"))
    assert prints(same) == prints(data)


def test_classes_are_named_by_the_object_by_the_user_or_by_number():
    assert cc.Dataset.of(train=Listed()).classes == ("ant", "bee", "cat")
    some = torch.utils.data.Subset(Listed(), range(30))
    assert cc.Dataset.of(train=some).classes == ("ant", "bee", "cat")
    assert cc.Dataset.of(train=Listed(), classes=["x", "y", "z"]).classes == ("x", "y", "z")
    assert cc.Dataset.of(train=(PIXELS, LABELS)).classes == ("0", "1", "2")


class Shown:
    """Pictures of an object that names its classes, as torchvision's do."""

    made = 0

    def __init__(self, classes, labels):
        self.classes, self.labels = classes, labels
        Shown.made += 1
        self.colour = Shown.made  # no picture is in two of them

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return Image.new("RGB", (8, 8), (i, 40 * self.labels[i], self.colour)), self.labels[i]


def test_parts_agree_on_their_classes_by_name():
    train = Shown(["a", "b", "c"], [0, 1, 2] * 8)
    found = cc.Dataset.of(train, Shown(["c", "b"], [0, 1, 0]), validation=Shown(["b", "c", "a"], [2, 0]))
    assert found.classes == ("a", "b", "c")
    assert found.test.labels.tolist() == [2, 1, 2] and found.validation.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="test has the class 'd', which train has not: a, b, c"):
        cc.Dataset.of(train, Shown(["a", "d"], [0, 1]))
    assert cc.Dataset.of(train, Shown(["c", "b"], [0, 1]), classes=["x", "y", "z"]).test.labels.tolist() == [0, 1]


def test_labels_may_be_names():
    images = np.random.default_rng(0).integers(0, 256, (22, 5, 5, 3), dtype=np.uint8)
    images, others, names = images[:20], images[20:], ["dog", "cat"] * 10
    found = cc.Dataset.of((images, names), (others, np.array(["cat", "dog"])), validation=0.2)
    assert found.classes == ("cat", "dog") and found.test.labels.tolist() == [0, 1]
    turned = cc.Dataset.of((images, names), (others, ["cat", "dog"]), classes=["dog", "cat"])
    assert turned.test.labels.tolist() == [1, 0] and turned.classes == ("dog", "cat")
    for test, classes, told in (
        ((images[:1], ["cow"]), None, "test: 'cow' is none of the classes, cat, dog"),
        (None, ["dog", "fox"], "train: 'cat' is none of the classes, dog, fox"),
        (None, ["dog", "cat", "dog"], "different classes: 'dog' is there twice"),
    ):
        with pytest.raises(ValueError, match=told):
            cc.Dataset.of((images, names), test, classes)
    with pytest.raises(ValueError, match="labels count from 0: subtract 1"):
        cc.Dataset.of((images, [1, 2] * 10))
    with pytest.raises(ValueError, match=r"train is a table: give two of its columns"):
        cc.Dataset.of(pd.DataFrame({"image": list(images), "label": names}))


def test_images_of_several_sizes_need_a_size(tmp_path):
    from torchvision.transforms import v2

    mixed = [Image.fromarray(np.ascontiguousarray(one[: 12 - i % 3])) for i, one in enumerate(PIXELS)]
    assert "10x11 after 10x12" in refused("another size than those before it", train=(mixed, LABELS))
    refused(
        "the images of test are 3x12x9, those of train 3x12x10", train=(PIXELS, LABELS), test=(FEW[0][:, :, 1:], FEW[1])
    )
    data = cc.Dataset.of(train=(mixed, LABELS), test=FEW, size=8, seed=2)
    usual = v2.Compose([v2.Resize(8, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(8)])
    wanted = {np.asarray(usual(one)).tobytes() for one in mixed}
    train = torch.cat([data.train.images, data.validation.images])
    assert {one.permute(1, 2, 0).contiguous().numpy().tobytes() for one in train} == wanted
    arrays = cc.Dataset.of(train=(PIXELS, LABELS), test=FEW, size=8)
    assert torch.equal(arrays.test.images, data.test.images)


@pytest.mark.parametrize("height", [12, 13, 31, 64, 97])
@pytest.mark.parametrize("width", [12, 33, 64, 130])
@pytest.mark.parametrize("size", [8, 12, 33])
def test_resize_and_crop_are_torchvisions(height, width, size):
    from torchvision.transforms import v2

    from colt_core.data.pictures import fitted, pixels_of

    usual = v2.Compose([v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))
    wanted = torch.from_numpy(np.asarray(usual(picture)).copy()).permute(2, 0, 1)
    assert torch.equal(pixels_of(picture, size), wanted)
    assert torch.equal(fitted(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1), size), wanted)
    grey = picture.convert("L")
    assert torch.equal(pixels_of(grey, size, 1)[0], torch.from_numpy(np.asarray(usual(grey)).copy()))


# --- bad input ---


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("train must be .images, labels., .* not None", {"train": None}),
        ("train: the labels are missing", {"train": PIXELS}),
        ("train: the labels are missing", {"train": (PIXELS, None)}),
        ("train: 1 of 60 labels are missing", {"train": (PIXELS, [None, *LABELS[1:].tolist()])}),
        ("test: the labels are missing", {"train": (PIXELS, LABELS), "test": torch.from_numpy(PIXELS)}),
        ("labels must be whole numbers, not <U3", {"train": (PIXELS, LABELS), "test": (FEW[0], ["ant"] * len(FEW[1]))}),
        ("names of at least two classes, not .*ant", {"train": (PIXELS, ["ant"] * 60)}),
        (r"labels must be 0, 1, \.\.\., not -1\.\.2", {"train": (PIXELS, np.where(LABELS == 0, -1, LABELS))}),
        (r"test: labels must lie in 0\.\.2, .* not 7", {"train": (PIXELS, LABELS), "test": (FEW[0], FEW[1] + 5)}),
        ("train: labels must lie in", {"train": (PIXELS, LABELS), "classes": ["a", "b"]}),
        ("labels must be whole numbers, not float64", {"train": (PIXELS, LABELS / 2)}),
        (r"one an image, not of shape \[60, 3\]", {"train": (PIXELS, np.eye(3)[LABELS])}),
        (r"must be uint8, 0\.\.255, not float32", {"train": (PIXELS.astype(np.float32), LABELS)}),
        (
            r"must be uint8, 0\.\.255, not float32",
            {"train": Listed(make=lambda one: torch.from_numpy(one) / 255)},
        ),
        (r"of shape .* not \[60, 12, 10, 4\]", {"train": (PIXELS[..., [0, 1, 2, 2]], LABELS)}),
        (r"of shape .* not \[60, 360\]", {"train": (PIXELS.reshape(60, -1), LABELS)}),
        ("train has no image", {"train": (PIXELS[:0], LABELS[:0])}),
        ("train has no image", {"train": []}),
        ("class 'd' has no training image", {"train": (PIXELS, LABELS), "classes": ["a", "b", "c", "d"]}),
        ("class '1' has no training image", {"train": (PIXELS, np.where(LABELS == 1, 0, LABELS))}),
        ("hold out all 1 images of class '1'", {"train": (PIXELS, (np.arange(60) == 3).astype(int))}),
        ("classes must be the names of at least two", {"train": (PIXELS, LABELS), "classes": "abc"}),
        ("it must be .picture, label., not 3 values", {"train": [(1, 2, 3)] * 9}),
        ("it must be .picture, label., not Image", {"train": [Image.new("RGB", (4, 4))] * 9}),
        ("image 0 of train is of type str, not an image", {"train": [("a.png", 0)] * 9}),
        ("image 0 of train has no label", {"train": [(Image.new("RGB", (4, 4)), None)] * 9}),
        ("a label must be a whole number, not 'ant'", {"train": [(Image.new("RGB", (4, 4)), "ant")] * 9}),
        ("a label must be a whole number, not 0.5", {"train": [(Image.new("RGB", (4, 4)), 0.5)] * 9}),
        ("a label must be one of .* not -1", {"train": [(Image.new("RGB", (4, 4)), -1)] * 9}),
        (r"a label must be one of 0\.\.2, not 3", {"train": Listed(labels=LABELS + 3)}),
        ("validation must lie strictly", {"train": (PIXELS, LABELS), "validation": 1.5}),
        ("size of images must be", {"train": (PIXELS, LABELS), "size": 0}),
        ("not dict", {"train": {"images": PIXELS}}),
        ("not dict: give its splits one by one", {"train": {"train": [{"image": PIXELS[0], "label": 0}]}}),
        ("or have one of label, labels, fine_label; it has 'image', 'kind'", {"train": [{"image": 1, "kind": 0}] * 9}),
    ],
)
def test_bad_input_is_one_line_without_pixels(message, arguments, place):
    refused(message, **arguments)
    assert not list(place.rglob("*.safetensors")) and not list(place.rglob(".*")), "something is left"


def test_an_object_whose_pictures_cannot_be_read_is_told_whole():
    class Broken(Listed):
        def __getitem__(self, i):
            if i % 4 == 1:
                raise OSError(f"image file {i} is truncated")
            return super().__getitem__(i)

    told = refused("15 of 60 pictures cannot be read", train=Broken())
    assert "image 1 of train (OSError: image file 1 is truncated)" in told and "image 57 of train" in told


def test_pictures_that_are_read_from_their_files_only_now_are_told_whole(tmp_path):
    for i, pixels in enumerate(PIXELS[:12]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png", compress_level=0)
    for i in (2, 5):
        (tmp_path / f"{i}.png").write_bytes((tmp_path / f"{i}.png").read_bytes()[:200])
    opened = [Image.open(tmp_path / f"{i}.png") for i in range(12)]
    try:
        refused("2 of 12 pictures cannot be read: image 2 of train .*, image 5 of train", train=(opened, LABELS[:12]))
    finally:
        for one in opened:
            one.close()


def test_no_pixel_is_ever_printed(mini):
    data = cc.Dataset.of(train=(PIXELS, LABELS), test=FEW, name="mine", classes=["ant", "bee\n", "cat"])
    for one in (data, data.train, mini, mini.train, data.train.source):
        assert len(repr(one)) < 300 and "tensor(" not in repr(one), repr(one)
    assert repr(data) == "Dataset(mine: 54 train, 6 validation, 12 test of 3x12x10, 3 classes: ant, bee, cat)"
    assert repr(data.train) == "Images(54 of 3x12x10, 3 classes: ant, bee, cat)"
    with pytest.raises(ValueError, match="text or a path, not Listed; .* cc.Dataset.of") as caught:
        cc.load(Listed())
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError) as caught:
        cc.Experiment(dataset=(PIXELS, LABELS))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 600


# --- notes ---


def test_uneven_classes_and_missing_ones_are_said():
    labels = np.array([0] * 40 + [1] * 20)
    data = cc.Dataset.of(train=(PIXELS, labels), test=(FEW[0], FEW[1] * 0), classes=["ant", "bee"])
    assert data.notes == ("classes are uneven: 'ant' has 36 training images, 'bee' has 18", "no test image of 'bee'")
    assert all(note in repr(data) for note in data.notes)
    assert cc.Dataset.of(train=(PIXELS, LABELS), test=FEW).notes == ()


@pytest.mark.parametrize("listed", [False, True])
def test_copies_are_counted_and_leaks_warned_of_once(listed):
    pixels = PIXELS.copy()
    pixels[[7, 21, 50]] = pixels[3]  # three copies of one image
    few = FEW[0].copy()
    few[:2] = pixels[30], pixels[31]
    few[5] = pixels[3]
    train = Listed(pixels) if listed else (pixels, LABELS)
    give = lambda: cc.Dataset.of(train=train, test=(few, FEW[1]), name=f"copies {listed}", classes=["a", "b", "c"])
    with pytest.warns(UserWarning, match=f"^copies {listed}: 3 of 12 test images are among the training images too$"):
        data = give()
    assert data.notes[0] == "3 of 60 training images are copies of others"
    assert data.notes[1] == "3 of 12 test images are among the training images too" and len(data.notes) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        give()


# --- saved and named ---


def test_a_saved_data_set_is_the_same_again(tmp_path, mini):
    data = cc.Dataset.of(train=(PIXELS, LABELS), test=FEW, validation=0.3, seed=7, classes=["ant", "bee", "cat"])
    path = data.save(tmp_path / "set.safetensors")
    same = cc.load(path)
    assert prints(same) == prints(data) and same.classes == data.classes and same.name == str(path)
    assert prints(cc.load(path, validation=0.5, seed=3)) == prints(data), "it keeps its own split"
    tensors = load_file(path)
    assert torch.equal(tensors["train_images"], FIRST) and tensors["train_labels"].tolist() == LABELS.tolist()
    assert torch.equal(tensors["test_images"], data.test.images) and int(tensors["held_out"].sum()) == 18
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert json.loads(about["classes"]) == ["ant", "bee", "cat"]
    assert about["sha256"] == cc.files.sha256_of(tensors["train_images"], tensors["test_images"])
    assert same.train.source.path == str(path), "it is mapped"
    for other in (cc.load("cifar10-mini:3-5"), mini):
        assert prints(cc.load(other.save(tmp_path / "other.safetensors"))) == prints(other)
    with pytest.raises(ValueError, match="must end with .safetensors"):
        data.save(tmp_path / "set.npz")


def test_a_file_of_tensors_from_elsewhere_needs_no_checksum(tmp_path):
    from safetensors.torch import save_file

    tensors = {"train_images": FIRST.contiguous(), "train_labels": torch.from_numpy(LABELS)}
    tensors |= {"test_images": FIRST[:6].flip(3).contiguous(), "test_labels": torch.from_numpy(LABELS[:6])}
    save_file(tensors, tmp_path / "set.safetensors", {"classes": '["ant", "bee", "cat"]'})
    data = cc.load(tmp_path / "set.safetensors")
    assert data.classes == ("ant", "bee", "cat") and data.train.source.path == str(tmp_path / "set.safetensors")


def test_another_normalisation_is_kept(tmp_path, mini):
    from dataclasses import replace

    mean, std = datasets.CIFAR100_STATISTICS
    parts = [replace(part, mean=mean, std=std) for part in (mini.train, mini.validation, mini.test)]
    other = cc.Dataset("other", *parts)
    assert prints(cc.load(other.save(tmp_path / "other.safetensors"))) == prints(other)
    assert other.named() != cc.Dataset("other", mini.train, mini.validation, mini.test).named()


def test_a_damaged_file_of_ones_own_is_one_line(tmp_path):
    path = cc.Dataset.of(train=(PIXELS, LABELS)).save(tmp_path / "set.safetensors")
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), whole[:40], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            cc.load(path)
        assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)


def test_a_name_is_by_content_and_says_nothing_of_the_machine(place):
    give = lambda **more: cc.Dataset.of(train=(PIXELS, LABELS), test=FEW, name="My pictures!", **more)
    name = give().named()
    assert name == give().named() and name.startswith("own:My-pictures-") and len(name) == len("own:My-pictures-") + 16
    assert name != give(seed=1).named() and len(list((place / "own").iterdir())) == 2
    assert prints(cc.load(name)) == prints(give()) and cc.load(name).named() == name
    assert cc.load(f"{name}@8:0,2").train.shape == (3, 8, 8) and len(cc.load(f"{name}:0,2").classes) == 2
    assert datasets.is_built_in(name) and datasets.stamp(name) != datasets.stamp(give(seed=1).named())
    (place / "own" / f"{name[4:]}.safetensors").unlink()
    with pytest.raises(ValueError, match=r"is not on this machine: give it again"):
        cc.load(name)
    data = give()
    assert cc.load(data.named()).test.labels.tolist() == FEW[1].tolist()


def test_a_data_set_that_was_loaded_has_its_name(folder, place):
    assert cc.load("cifar10-mini:0-4").named() == "cifar10-mini:0-4"
    assert cc.load(folder).named() == str(folder)
    for other in (cc.load("cifar10-mini", seed=1), cc.load("cifar10-mini", size=8)):
        assert other.named().startswith("own:cifar10-mini-") and prints(cc.load(other.named())) == prints(other)


def test_pictures_are_decoded_into_a_file_of_their_own_that_is_mapped(place):
    data = cc.Dataset.of(train=Listed(), name="listed")
    assert data.train.source.path == str(next((place / "own").glob("*.safetensors")))
    assert data.named() == f"own:{next((place / 'own').glob('*.safetensors')).stem}" and data.name == "listed"
    assert [path.name for path in (place / "own").iterdir()] == [f"{data.named()[4:]}.safetensors"]


# --- the whole way ---


def test_own_data_goes_into_verbs_and_experiments(tmp_path, recipe):
    grey = cc.Dataset.of(train=(PIXELS[..., 0].repeat(2, 1).repeat(2, 2), LABELS), test=None, classes=["a", "b", "c"])
    brief = recipe.changed(batch_size=6)
    colour = cc.Dataset.of(train=Listed(), test=(FEW[0], FEW[1]), name="listed", size=32)
    network = cc.build("conv3", 3, seed=0, width=4)
    last = list(cc.colt(network, cc.partition(colour.train, 3), brief, rate=0.5, target=0.6, device="cpu"))[-1]
    score = cc.evaluate(last.ticket, colour, brief, seed=0, device="cpu")
    assert 0 <= score.value <= 1 and grey.train.shape == (1, 24, 20)
    settings = {"network_args": {"width": 4}, "rate": 0.5, "target": 0.6, "recipe": brief, "scores": (0.6,)}
    experiment = cc.Experiment(dataset=colour, score_on=colour, **settings)
    assert experiment.dataset == experiment.score_on == colour.named()
    assert experiment.hash == cc.Experiment(dataset=colour.named(), **settings).hash
    frame = cc.run(experiment, tmp_path / "runs", device="cpu")
    assert frame["accuracy"].notna().sum() == 1 and set(frame["dataset"]) == {colour.named()}
    several = [experiment, experiment.changed(seed=1)]
    cc.study(several, tmp_path / "workers", device="cpu", workers=2)
    ends = lambda store: [(store / experiment.hash / f"round-{i:02d}.safetensors").read_bytes() for i in (1, 2)]
    assert ends(tmp_path / "workers") == ends(tmp_path / "runs"), "worker processes map the same file"
    code = "import sys, colt_core as cc; print(len(cc.load(sys.argv[1]).train))"
    done = subprocess.run([sys.executable, "-c", code, colour.named()], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == str(len(colour.train)), done.stderr
