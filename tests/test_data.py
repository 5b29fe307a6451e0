import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from waiting import PATIENCE

import colt_core as cc
from colt_core import data as datasets
from colt_core.files import sha256_of

loading = import_module("colt_core.data.load")  # the package shows the function of that name


def numbered(n, classes, seed=0):
    """Images that carry their own number in their first pixels, so that they can be told apart."""
    images = torch.zeros(n, 3, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(n) % 256, torch.arange(n) // 256
    labels = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % classes
    return cc.Images(images, labels, tuple(f"c{i}" for i in range(classes)))


def numbers(images):
    return (images.images[:, 0, 0, 0].long() + 256 * images.images[:, 0, 0, 1].long()).tolist()


# --- the embedded data set ---


def test_the_embedded_set_is_balanced_and_has_the_official_classes(mini):
    assert mini.classes == loading._embedded()[1] and mini.classes[0] == "airplane" and mini.classes[-1] == "truck"
    assert (len(mini.train), len(mini.validation), len(mini.test)) == (2700, 300, 2000)
    assert (
        mini.train.counts() == [270] * 10 and mini.validation.counts() == [30] * 10 and mini.test.counts() == [200] * 10
    )


def test_the_embedded_pixels_are_cifar10s_own(mini):
    path = datasets.data_folder() / "cifar10.safetensors"
    if not path.exists():
        pytest.skip("the full CIFAR-10 is not at hand: set COLT_DATA to compare")
    index = json.loads((datasets.ASSETS / "cifar10-mini.json").read_text())["index"]
    full, (embedded, _) = load_file(path), loading._embedded()
    for part in ("train", "test"):
        assert torch.equal(full[f"{part}_images"][index[part]], embedded[f"{part}_images"])
        assert torch.equal(full[f"{part}_labels"][index[part]], embedded[f"{part}_labels"])


def test_channel_statistics_are_those_of_the_training_pixels(mini):
    pixels = mini.train.images.double() / 255
    assert mini.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert mini.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    assert mini.test.mean == mini.validation.mean == mini.train.mean


# --- partitions ---


@given(st.integers(2, 12), st.integers(1, 12), st.sampled_from(["class", "random", "stratified"]), st.integers(0, 9))
@settings(max_examples=80)
def test_partitions_are_disjoint_and_cover_everything(classes, count, by, seed):
    images = numbered(120, classes)
    if by == "class" and count > classes:
        with pytest.raises(ValueError, match=f"at most {classes}"):
            cc.partition(images, count, by, seed)
        return
    found = [number for part in cc.partition(images, count, by, seed) for number in numbers(part)]
    assert sorted(found) == list(range(120))


@pytest.mark.parametrize(("classes", "count", "sizes"), [(10, 2, [5, 5]), (10, 3, [4, 3, 3]), (7, 5, [2, 2, 1, 1, 1])])
def test_class_partitions_are_contiguous_shifted_and_drop_no_class(classes, count, sizes):
    images = numbered(140, classes)
    split = cc.partition(images, count)
    assert [len(part.classes) for part in split] == sizes
    assert [name for part in split for name in part.classes] == list(images.classes)
    for part in split:
        assert part.labels.min() == 0 and part.labels.max() == len(part.classes) - 1
        for number, label in zip(numbers(part), part.labels.tolist(), strict=True):
            assert images.classes[images.labels[number]] == part.classes[label]


def test_stratified_partitions_hold_even_shares():
    for part in cc.partition(numbered(120, 4), 3, "stratified"):
        assert part.counts() == [10] * 4


def test_partitions_by_order_are_the_whole_set_in_other_orders():
    images = numbered(60, 3)
    first, second = (numbers(part) for part in cc.partition(images, 2, "order"))
    assert sorted(first) == sorted(second) == list(range(60)) and first != second


def test_partitions_depend_on_the_seed_alone():
    images = numbered(100, 5)
    same = [[numbers(p) for p in cc.partition(images, 2, "random", seed)] for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": 11}, "at most 10, the number of classes, not 11"),
        ({"parts": 0}, "parts must be a whole number from 1, not 0"),
        ({"by": "colour"}, "allowed: class, random, stratified, order"),
    ],
)
def test_bad_partitions_are_refused_in_one_line(mini, arguments, message):
    with pytest.raises(ValueError, match=message):
        cc.partition(mini.train, **arguments)


def test_an_empty_partition_is_refused():
    images = numbered(40, 4)
    some = images.take((images.labels < 2).nonzero().flatten())
    with pytest.raises(ValueError, match="partition 1 of 2 would be empty"):
        cc.partition(some, 2)


def test_validation_is_stratified_seeded_and_apart():
    images = numbered(200, 4)
    train, held_out = datasets.split_validation(images, 0.1, seed=1)
    assert held_out.counts() == [5] * 4 and not set(numbers(train)) & set(numbers(held_out))
    assert len(train) + len(held_out) == 200
    assert numbers(held_out) == numbers(datasets.split_validation(images, 0.1, seed=1)[1])
    assert numbers(held_out) != numbers(datasets.split_validation(images, 0.1, seed=2)[1])


def test_some_of_the_classes_by_name():
    half = cc.load("cifar10-mini:5-9")
    assert half.classes == ("dog", "frog", "horse", "ship", "truck") and len(half.test) == 1000
    assert cc.load("cifar10-mini:1,9").classes == ("automobile", "truck")
    assert datasets.halves("cifar10-mini") == ("cifar10-mini:0-4", "cifar10-mini:5-9")
    assert datasets.halves("cifar10-mini:0,2,4-9") == ("cifar10-mini:0,2,4,5", "cifar10-mini:6-9")
    assert cc.load(datasets.halves("cifar10-mini:0,2,4-9")[0]).classes == ("airplane", "bird", "deer", "dog")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "imagenet",
            "unknown data set 'imagenet'; allowed: cifar10-mini, cifar10, .*, svhn, imagenet-64, or a folder of class",
        ),
        ("cifar10-mini:3-12", r"different numbers in 0\.\.9"),
        ("cifar10-mini:3", "at least two classes"),
        ("cifar10-mini:1,1", "different numbers"),
        ("cifar10-mini:5-", "at least two|names no classes"),
        ("cifar10-mini:0-9999999999", r"different numbers in 0\.\.9"),
        ("cifar10-mini:0-" + "9" * 5000, r"different numbers in 0\.\.9"),
        ("", "unknown data set ''; allowed:"),
        ("@32", "unknown data set ''; allowed:"),
        (":0-4", "unknown data set ''; allowed:"),
        ("@32:0-4", "unknown data set ''; allowed:"),
        ("one\ntwo", r"unknown data set 'one\\ntwo'"),
        ("cifar10-mini\n", r"unknown data set 'cifar10-mini\\n'"),
        ("cifar10-mini\n:0-4", r"unknown data set 'cifar10-mini\\n'"),
        ("$cifar10$", r"unknown data set '\$cifar10\$'"),
        ("cifar10\0", r"unknown data set 'cifar10\\x00'"),
        ("a" * 5000, "unknown data set"),
        (None, "must be text or a path, not NoneType"),
    ],
)
def test_an_unknown_data_set_or_class_is_named_at_once(name, message):
    for refuse in (cc.load, datasets.check_name):
        with pytest.raises(ValueError, match=message) as caught:
            refuse(name)
        assert len(str(caught.value).splitlines()) == 1


def test_a_path_is_as_good_as_its_text(folder):
    data, same = cc.load(Path(folder)), cc.load(str(folder))
    assert data.name == same.name == str(folder) and data.train.fingerprint() == same.train.fingerprint()
    assert cc.load(Path("cifar10-mini:0-1")).classes == ("airplane", "automobile")
    assert datasets.is_built_in(Path("cifar10-mini")) and not datasets.is_built_in(Path(folder))


@pytest.mark.parametrize("validation", [0.999, 0.9999])
def test_a_validation_share_that_leaves_nothing_to_train_on_is_refused(validation):
    with pytest.raises(ValueError, match="would hold out all 300 images of class 'airplane'; at least one"):
        cc.load("cifar10-mini", validation=validation)
    assert min(cc.load("cifar10-mini", validation=0.998).train.counts()) == 1


def test_a_class_whose_last_image_would_go_to_validation_is_named():
    images = numbered(60, 3)
    few = images.take(torch.cat([(images.labels != 1).nonzero().flatten(), (images.labels == 1).nonzero()[0]]))
    with pytest.raises(ValueError, match="all 1 images of class 'c1'"):
        datasets.split_validation(few, 0.1)


# --- a user's folder ---


def test_a_folder_of_class_folders(folder):
    data = cc.load(str(folder))
    assert data.classes == ("ant", "bee", "zebra")
    assert len(data.train) + len(data.validation) + len(data.test) == 36
    assert min(data.train.counts()) >= 1 and min(data.validation.counts()) >= 1 and min(data.test.counts()) >= 1
    every = torch.cat([part.images for part in (data.train, data.validation, data.test)])
    grey = torch.from_numpy(np.asarray(Image.open(folder / "bee" / "00.png").convert("RGB")).copy()).permute(2, 0, 1)
    assert any(torch.equal(grey, image) for image in every)
    red_first = np.asarray(Image.open(folder / "ant" / "05.png"))[..., 0]  # the official code swaps red and blue
    assert any(torch.equal(torch.from_numpy(red_first.copy()), image[0]) for image in every)


def test_a_folder_with_one_class_is_refused(tmp_path):
    (tmp_path / "only").mkdir()
    with pytest.raises(ValueError, match="holds 1 class folder"):
        cc.load(str(tmp_path))


def test_a_folder_with_files_that_are_no_images_names_the_file(tmp_path, folder):
    import shutil

    shutil.copytree(folder, tmp_path / "set")
    (tmp_path / "set" / "bee" / "03.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"bee/03\.png is no image") as caught:
        cc.load(str(tmp_path / "set"))
    assert "\n" not in str(caught.value)


def test_images_of_several_sizes_are_refused_unless_resized(tmp_path, folder):
    import shutil

    shutil.copytree(folder, tmp_path / "set")
    Image.new("RGB", (40, 48)).save(tmp_path / "set" / "bee" / "03.png")
    with pytest.raises(ValueError, match="40x48 after 32x32"):
        cc.load(str(tmp_path / "set"))
    assert cc.load(str(tmp_path / "set"), size=36).train.size == 36
    assert cc.load(f"{tmp_path / 'set'}@36:0-1").train.images.shape[1:] == (3, 36, 36)


def test_images_need_not_be_square(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (32, 48), (i, ord(name), 0)).save(tmp_path / name / f"{i}.png")
    assert cc.load(str(tmp_path)).train.shape == (3, 48, 32)
    assert cc.load(f"{tmp_path}@32").train.shape == (3, 32, 32)


# --- prepared files ---


@pytest.fixture
def prepared(tmp_path, monkeypatch, mini):
    """A small prepared file in the documented format."""
    monkeypatch.setenv("COLT_DATA", str(tmp_path))
    tensors = {"train_images": mini.train.images[::9].clone(), "train_labels": mini.train.labels[::9].clone()}
    tensors |= {"test_images": mini.test.images[::9].clone(), "test_labels": mini.test.labels[::9].clone()}
    digest = hashlib.sha256(tensors["train_images"].numpy().tobytes() + tensors["test_images"].numpy().tobytes())
    about = {"classes": json.dumps(mini.classes), "sha256": digest.hexdigest()}
    path = tmp_path / "cifar10.safetensors"
    save_file(tensors, path, about)
    return path, tensors, about


def test_a_prepared_file_is_read_and_memory_mapped(prepared):
    path, tensors, _ = prepared
    data = cc.load("cifar10")
    assert torch.equal(data.test.images, tensors["test_images"])
    assert len(data.train) + len(data.validation) == len(tensors["train_labels"])
    held = datasets.read_prepared("cifar10")
    if Path("/proc/self/maps").exists():
        assert str(path) in Path("/proc/self/maps").read_text(), "the file is not memory-mapped"
    del held


def test_a_truncated_data_file_is_one_clear_line(prepared):
    path, _, _ = prepared
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="truncated") as caught:
        cc.load("cifar10")
    assert "\n" not in str(caught.value)


def test_a_data_file_without_a_checksum_is_refused(prepared):
    path, tensors, about = prepared
    save_file(tensors, path, {"classes": about["classes"]})
    with pytest.raises(ValueError, match="is no prepared data set"):
        cc.load("cifar10")


@pytest.mark.parametrize("key", ["train_images", "test_images"])
def test_an_altered_data_file_is_found_out(prepared, key):
    path, tensors, about = prepared
    tensors[key][0, 0, 0, 0] ^= 1
    save_file(tensors, path, about)
    with pytest.raises(ValueError, match="altered"):
        cc.load("cifar10")


def test_another_data_set_under_a_name_is_refused(prepared):
    path, tensors, about = prepared
    save_file(tensors, path, about | {"name": "cifar100"})
    with pytest.raises(ValueError, match=r"cifar10\.safetensors holds cifar100 \(10 classes\), not cifar10") as caught:
        cc.load("cifar10")
    assert "\n" not in str(caught.value)
    path.rename(path.with_name("cifar100.safetensors"))
    assert len(cc.load("cifar100").classes) == 10
    save_file(tensors, path.with_name("cifar100.safetensors"), about)  # as a file of before names were written
    with pytest.raises(ValueError, match=r"holds another data set \(10 classes\), not cifar100"):
        cc.load("cifar100")


# --- the official archives ---


class Served(http.server.SimpleHTTPRequestHandler):
    """Files over HTTP; after `cut` bytes of a file the connection ends, or is reset."""

    cut, reset = None, False

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(type(self).cut) if type(self).cut else source.read())
        if type(self).reset:  # what is still under way is lost, the other side gets an error
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A web server on the loopback interface for archives in the official layout."""
    root = tmp_path / "served"
    root.mkdir()
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    handler = type("Handler", (Served,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root)))
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def md5(content):
    return hashlib.md5(content).hexdigest()


def cifar_archive(name, root, address, mini, monkeypatch):
    """The official archive with a few images, torchvision pointed to it; return its path and the test images in it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind, key = (CIFAR10, "labels") if name == "cifar10" else (CIFAR100, "fine_labels")
    train = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
    test = ["test_batch"] if name == "cifar10" else ["test"]
    files = {}
    for i, file in enumerate(train + test):
        part = mini.test if file in test else mini.train
        index = torch.arange(i, len(part), 37)
        files[file] = pickle.dumps({"data": part.images[index].flatten(1).numpy(), key: part.labels[index].tolist()})
    meta = kind.meta["filename"]
    files[meta] = pickle.dumps({kind.meta["key"]: list(mini.classes)})
    with tarfile.open(root / kind.filename, "w:gz") as archive:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{kind.base_folder}/{file}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(kind, "url", f"{address}/{kind.filename}")
    monkeypatch.setattr(kind, "tgz_md5", md5((root / kind.filename).read_bytes()))
    monkeypatch.setattr(kind, "train_list", [[n, md5(files[n])] for n in train])
    monkeypatch.setattr(kind, "test_list", [[n, md5(files[n])] for n in test])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(files[meta])})
    found = pickle.loads(files[test[0]])
    return root / kind.filename, torch.from_numpy(found["data"]).view(-1, 3, 32, 32), found[key]


def tiny_archive(root, address, mini, monkeypatch):
    """The official archive with three classes of twelve images, one of them grey; return path, None, test labels."""
    wnids, pixels = ["n03", "n01", "n02"], iter(mini.train.images)  # the official file is not in sorted order

    def jpeg(grey=False):
        image = Image.fromarray(next(pixels).permute(1, 2, 0).numpy()).resize((64, 64))
        buffer = io.BytesIO()
        (image.convert("L") if grey else image).save(buffer, "JPEG")
        return buffer.getvalue()

    path = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(wnids) + "\n")
        for wnid in wnids:
            for i in range(12):
                name = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{i}.JPEG"
                archive.writestr(name, jpeg(grey=wnid == "n02" and i == 0))
        lines = [f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62" for i, wnid in enumerate(["n02", "n01", "n03", "n02"])]
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(lines) + "\n")
        for i in range(4):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", jpeg())
    preparing = import_module("colt_core.data.prepare")
    monkeypatch.setattr(preparing, "TINY_URL", f"{address}/{path.name}")
    monkeypatch.setattr(preparing, "TINY_MD5", md5(path.read_bytes()))
    return path, None, [1, 0, 2, 1]


@pytest.fixture(params=["cifar10", "cifar100", "tinyimagenet"])
def official(request, served, mini, monkeypatch):
    """An official archive on the server: name, path, test images (None: JPEG), test labels, the server's handler."""
    root, address, handler = served
    if request.param == "tinyimagenet":
        return request.param, *tiny_archive(root, address, mini, monkeypatch), handler
    return request.param, *cifar_archive(request.param, root, address, mini, monkeypatch), handler


def test_a_data_set_comes_through_its_official_download_and_is_prepared_once(official, mini):
    name, archive, pixels, labels, _ = official
    data = cc.load(name)
    assert data.test.labels.tolist() == labels
    if pixels is None:
        assert data.classes == ("n01", "n02", "n03") and data.train.size == 64
        assert [a + b for a, b in zip(data.train.counts(), data.validation.counts(), strict=True)] == [12] * 3
    else:
        assert torch.equal(data.test.images, pixels) and data.classes == mini.classes
    with safe_open(datasets.data_folder() / f"{name}.safetensors", "pt") as file:
        assert {"classes", "sha256"} <= set(file.metadata())
    archive.unlink()
    assert torch.equal(cc.load(name).train.images, data.train.images)


@pytest.mark.parametrize("fault", ["truncated", "altered", "interrupted", "reset", "missing"])
def test_a_faulty_download_is_one_clear_line_leaves_nothing_and_can_be_repeated(official, fault):
    name, archive, _, labels, handler = official
    whole = archive.read_bytes()
    if fault == "truncated":
        archive.write_bytes(whole[:-100])
    elif fault == "altered":
        archive.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    elif fault == "missing":
        archive.unlink()
    else:  # of a file announced whole, half arrives
        handler.cut, handler.reset = len(whole) // 2, fault == "reset"
    with pytest.raises(ValueError, match=f"{name} could not be downloaded .* put the prepared file at") as caught:
        cc.load(name)
    assert "\n" not in str(caught.value)
    assert not list(datasets.data_folder().glob("*.safetensors*"))
    handler.cut, handler.reset = None, False
    archive.write_bytes(whole)
    assert cc.load(name).test.labels.tolist() == labels, "what the faulty download left is in the way"


def test_an_interrupted_preparation_leaves_no_half_file(official, monkeypatch):
    name, _, _, labels, _ = official
    real = save_file

    def full_disk(tensors, path, *about):
        real(dict(list(tensors.items())[:1]), path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("colt_core.files.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cc.load(name)
    assert not list(datasets.data_folder().glob(f"{name}.safetensors"))
    monkeypatch.setattr("colt_core.files.save_file", real)
    assert cc.load(name).test.labels.tolist() == labels


WHOLE_TINY = """
    import json, os, threading
    from pathlib import Path
    import torch
    import colt_core as cc
    from colt_core.training import loop

    shapes = {"train_images": [30_000, 3, 64, 64], "train_labels": [30_000], "test_images": [10_000, 3, 64, 64]}
    shapes["test_labels"] = [10_000]
    path, header, place = Path(os.environ["COLT_DATA"]) / "tinyimagenet.safetensors", {}, 0
    zeros = "e54f280080a699e501bdb00eb551aca319c6405ddc3492e3b2f60d5a900081e1"  # SHA-256 of so many
    header["__metadata__"] = {"classes": json.dumps([f"n{i:03d}" for i in range(200)]), "sha256": zeros}
    for name, shape in shapes.items():
        kind, size = ("U8", 1) if name.endswith("images") else ("I64", 8)
        end = place + size * int(torch.tensor(shape).prod())
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:  # black pictures: a sparse file, so that the size costs no disk
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ("train_labels", "test_labels"):
            labels = torch.arange(shapes[name][0]) * 200 // shapes[name][0]
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(labels.numpy().tobytes())
        file.truncate(8 + len(text) + place)

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))

    before, peak, over = anonymous(), [0], threading.Event()
    def watch():
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous())
    threading.Thread(target=watch, daemon=True).start()
    data = cc.load("tinyimagenet")
    parts = cc.partition(data.train, 2)
    assert [len(part) for part in parts] == [13_500, 13_500] and len(data.validation) == 3_000
    recipe = cc.Recipe.named("small")
    for number, (batch, _) in enumerate(loop._batches(parts[1], recipe, 0, 0)):
        if number == 20:
            break
    over.set()
    print(peak[0] - before)
"""


def test_a_large_prepared_set_is_mapped_and_takes_little_memory(tmp_path):
    """490 MB of pixels, a third of TinyImageNet, loaded, verified, split and read in batches."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells what memory is a process's own")
    command = [sys.executable, "-c", textwrap.dedent(WHOLE_TINY)]
    environment = os.environ | {"COLT_DATA": str(tmp_path), "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150, f"{done.stdout} MiB beyond the mapped file"


def test_splits_and_partitions_copy_no_pixel(mini):
    parts = [mini.train, mini.validation, *cc.partition(mini.train, 3), mini.train.only([3, 1])]
    assert all(part.pixels is mini.train.pixels for part in parts)
    index = torch.tensor([4, 0, 2])
    assert torch.equal(parts[3].batch(index), parts[3].images[index])
    assert torch.equal(parts[3].take(index).images, parts[3].images[index])
    assert parts[3].to("cpu") is parts[3]


def test_prepared_pixels_are_mapped_and_not_read_into_memory(mini, tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path))
    tensors = {f"{name}_images": part.images for name, part in (("train", mini.train), ("test", mini.test))}
    tensors |= {f"{name}_labels": part.labels for name, part in (("train", mini.train), ("test", mini.test))}
    about = {
        "classes": json.dumps(mini.classes),
        "sha256": sha256_of(tensors["train_images"], tensors["test_images"]),
    }
    save_file(tensors, tmp_path / "cifar10.safetensors", about)
    parts = cc.partition(cc.load("cifar10").train, 2)
    if Path("/proc/self/maps").exists():
        assert "cifar10.safetensors" in Path("/proc/self/maps").read_text()
    assert all(part.source.path == str(tmp_path / "cifar10.safetensors") for part in parts)
