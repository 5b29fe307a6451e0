"""ImageNet at 64 pixels from small archives and folders in the official layout."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import v2

import colt_core as cc
from colt_core import data as datasets

WNIDS = ["n03", "n01", "n02"]  # by their numbers in the development kit: 1, 2, 3
SHOWN = ["n02", "n01", "n03", "n02", "n01"]  # what the validation images show
KIT = "ILSVRC2012_devkit_t12"


def jpeg(rng, index):
    """A picture of its own size, one of them grey, one with inks."""
    height, width = 70 + int(rng.integers(40)), 50 + int(rng.integers(90))
    picture = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize(
        (width, height)
    )
    stream = io.BytesIO()
    picture.convert({0: "L", 1: "CMYK"}.get(index, "RGB")).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def contents():
    """The official files: names and bytes of each class's training images, of the validation images, of the kit."""
    rng = np.random.default_rng(0)
    train = {wnid: {f"{wnid}_{i}.JPEG": jpeg(rng, i) for i in (10, 2, 0, 1, 7)} for wnid in WNIDS}
    val = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(rng, i) for i in range(len(SHOWN))}
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8")]
    rows = [(i + 1, wnid, f"word {wnid}", "", 0) for i, wnid in enumerate(WNIDS)] + [(4, "n00", "above", "", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)[:, None]})
    answers = "".join(f"{WNIDS.index(wnid) + 1}\n" for wnid in SHOWN).encode()
    return train, val, {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": answers}


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def unpack(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / "downloads" / "imagenet"
    path.mkdir(parents=True)
    return path


def archives(root, contents):
    train, val, kit = contents
    inner = {f"{wnid}.tar": tar(root / "inner", files).read_bytes() for wnid, files in train.items()}
    (root / "inner").unlink()
    tar(root / "ILSVRC2012_img_train.tar", inner)
    tar(root / "ILSVRC2012_img_val.tar", dict(reversed(val.items())))
    tar(root / f"{KIT}.tar.gz", {f"{KIT}/data/{name}": content for name, content in kit.items()}, "w:gz")


def folders(root, contents, sorted_out):
    train, val, kit = contents
    for wnid, files in train.items():
        unpack(root / "train" / wnid, files)
    if sorted_out:
        unpack(
            root / "val", {f"{wnid}/{name}": content for wnid, (name, content) in zip(SHOWN, val.items(), strict=True)}
        )
    else:
        unpack(root / "val", val)
        unpack(root / KIT / "data", kit)


def all_images(contents):
    """What the set must hold, made by torchvision."""
    usual = v2.Compose([v2.Resize(64, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(64)])
    pixels = lambda content: np.asarray(usual(Image.open(io.BytesIO(content)).convert("RGB"))).transpose(2, 0, 1)
    train, val, _ = contents
    first = [pixels(train[wnid][name]) for wnid in sorted(train) for name in sorted(train[wnid])]
    return np.stack(first), np.stack([pixels(val[name]) for name in sorted(val)])


@pytest.mark.parametrize("layout", ["archives", "folders", "folders, flat val"])
def test_it_is_prepared_from_the_official_layouts(root, contents, layout):
    archives(root, contents) if layout == "archives" else folders(root, contents, layout == "folders")
    data = cc.load("imagenet-64", validation=0.2)
    train, test = all_images(contents)
    assert data.classes == ("n01", "n02", "n03") and data.train.source.path.endswith("imagenet-64.safetensors")
    assert np.array_equal(data.train.pixels, train) and np.array_equal(data.test.images, test)
    assert data.test.labels.tolist() == [["n01", "n02", "n03"].index(wnid) for wnid in SHOWN]
    assert (data.train.counts(), data.validation.counts()) == ([4, 4, 4], [1, 1, 1])
    before = data.train.fingerprint()
    shutil.rmtree(root)
    assert cc.load("imagenet-64", validation=0.2).train.fingerprint() == before
    assert list(datasets.prepared()["name"]) == ["imagenet-64"]
    assert cc.load("imagenet-64@16:0,2").train.shape == (3, 16, 16)
    assert [path.name for path in Path(datasets.data_folder()).iterdir() if path.is_file()] == [
        "imagenet-64.safetensors"
    ]


def refused(message):
    with pytest.raises(ValueError, match=message) as caught:
        cc.load("imagenet-64")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(datasets.data_folder().glob("*.safetensors")) and not list(datasets.data_folder().glob(".*"))


def test_what_is_missing_or_damaged_is_one_line(root, contents):
    refused(r"not downloaded for you: put ILSVRC2012_img_train.tar, .* into .*downloads/imagenet$")
    archives(root, contents)
    whole = (root / "ILSVRC2012_img_train.tar").read_bytes()
    (root / "ILSVRC2012_img_train.tar").write_bytes(whole[: len(whole) // 2])
    refused("holds a damaged archive|cannot be read")
    (root / "ILSVRC2012_img_train.tar").write_bytes(whole)
    (root / f"{KIT}.tar.gz").rename(root / "kit")
    refused("lacks ILSVRC2012_devkit_t12.tar.gz")
    (root / "kit").rename(root / f"{KIT}.tar.gz")
    (root / "ILSVRC2012_img_val.tar").unlink()
    refused("lacks ILSVRC2012_img_val.tar, or a folder val")
    tar(root / "ILSVRC2012_img_val.tar", dict(list(contents[1].items())[:3]))
    refused("5 answers for 3 validation images")


def test_pictures_that_cannot_be_read_are_listed(root, contents):
    folders(root, contents, True)
    for name in ("n01_0", "n01_7"):
        (root / "train" / "n01" / f"{name}.JPEG").write_bytes(b"\xff\xd8\xff no picture")
    refused("imagenet/: 2 of 20 pictures cannot be read: train/n01/n01_0.JPEG.*train/n01/n01_7.JPEG")
