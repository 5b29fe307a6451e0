"""Each data set is decoded once, into a file that every process maps: folders, other libraries' sets, files."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from waiting import wait_for

import colt_core as cc
from colt_core import data as datasets
from colt_core.files import TensorWriter

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def prints(data):
    return [part.fingerprint() for part in (data.train, data.validation, data.test)]


def prepared_files(place):
    """All that lies there, hidden files among them."""
    return sorted((place / "prepared").iterdir()) if (place / "prepared").exists() else []


def refused(name, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        cc.load(name, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def pictures(root, classes=("ant", "bee"), count=8, shape=(9, 9, 3), seed=0, ending="png"):
    """A folder of class folders with random pictures."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i:02d}.{ending}")
    return root


# --- folders ---


def test_a_folder_is_decoded_once_and_mapped(tmp_path, place, monkeypatch):
    root = pictures(tmp_path / "own")
    first = cc.load(root)
    (path,) = prepared_files(place)
    assert path.name.startswith("own-") and first.train.source.path == first.test.source.path == str(path)
    monkeypatch.setattr("colt_core.data.streaming.read_picture", lambda *_: pytest.fail("a picture was decoded again"))
    assert prints(cc.load(root)) == prints(first)
    assert prints(cc.load(root, validation=0.3, seed=4)) != prints(first), "other splits are of the same file"
    code = "import sys, colt_core as cc; print([len(cc.load(sys.argv[1]).train)])"
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, env=os.environ)
    assert prepared_files(place) == [path]
    monkeypatch.undo()
    os.environ["COLT_DATA"] = str(place)
    assert cc.load(f"{root}@5").train.size == 5 and len(prepared_files(place)) == 2


def test_a_folder_that_changes_is_prepared_anew(tmp_path, place):
    root = pictures(tmp_path / "own")
    before = prints(cc.load(root))
    Image.new("RGB", (9, 9), (1, 2, 3)).save(root / "ant" / "00.png")
    assert prints(cc.load(root)) != before and len(prepared_files(place)) == 2
    datasets.forget(str(root))
    assert not prepared_files(place)


def test_what_is_no_picture_is_left_out_and_counted(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "own")
    for name, text in (
        ("notes.txt", "no picture"),
        (".DS_Store", ""),
        ("Thumbs.db", "x"),
        ("more.TXT", ""),
        ("LICENSE", ""),
    ):
        (tmp_path / "own" / "bee" / name).write_text(text)
    (tmp_path / "own" / "readme.md").write_text("beside the classes")
    shutil.copy(tmp_path / "own" / "bee" / "03.png", tmp_path / "own" / "ant" / "nameless")  # a picture all the same
    (tmp_path / "own" / "bee" / "03.png").unlink()
    data = cc.load(tmp_path / "own")
    assert data.notes == ("4 files are no pictures and left out: 1 .db, 2 .txt, 1 LICENSE",) and data.notes[0] in repr(
        data
    )
    assert len(data.train) + len(data.validation) + len(data.test) == 36
    assert cc.load(folder).notes == ()


def test_pictures_that_cannot_be_read_are_listed_whole_and_nothing_is_left(tmp_path, place):
    root = pictures(tmp_path / "own", count=20)
    for i in (3, 7, 11):
        (root / "ant" / f"{i:02d}.png").write_bytes((root / "ant" / f"{i:02d}.png").read_bytes()[:60])
    (root / "bee" / "05.png").write_text("no picture")
    told = refused(root, "4 of 40 pictures cannot be read: ")
    assert (
        all(f"{name}.png" in told for name in ("ant/03", "ant/07", "ant/11", "bee/05")) and told.count(str(root)) == 1
    )
    assert not prepared_files(place)
    for i in range(20):
        (root / "bee" / f"{i:02d}.png").write_text("")
    told = refused(root, "23 of 40 pictures cannot be read: ")
    assert told.endswith(" and 3 more") and len(told) < 1000 and not prepared_files(place)


def split_folder(root, **parts):
    for i, (name, count) in enumerate(parts.items()):
        pictures(root / name, count=count, seed=i)
    return root


def test_the_parts_of_a_folder_go_by_their_names(tmp_path):
    data = cc.load(split_folder(tmp_path / "a", train=10, val=4, test=6))
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 8, 12)
    for name in ("val", "valid", "validation"):
        data = cc.load(split_folder(tmp_path / name, train=10, **{name: 4}))
        assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 8), "the only one is the test set"
    data = cc.load(split_folder(tmp_path / "b", train=10, test=6))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 12)
    data = cc.load(split_folder(tmp_path / "c", train=10))
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    wanted = np.asarray(Image.open(tmp_path / "a" / "val" / "bee" / "03.png"))
    assert np.array_equal(cc.load(tmp_path / "a").validation.images[7].permute(1, 2, 0), wanted)


def test_folders_that_lack_something_are_one_line(tmp_path):
    root = pictures(tmp_path / "own")
    (root / "cat").mkdir()
    refused(root, "own: class folder 'cat' holds no picture$")
    (root / "cat" / "notes.txt").write_text("")
    refused(root, r"class folder 'cat' holds no picture \(1 file\(s\) that are none\)")
    shutil.copy(root / "ant" / "00.png", root / "cat")
    refused(root, "class folder 'cat' holds fewer than three images")
    root = split_folder(tmp_path / "parts", train=4, test=3)
    shutil.rmtree(root / "test" / "bee")
    pictures(root / "test", ("cow",), 3)
    refused(root, "train/ and test/ have different class folders, 'bee' for example")


def test_copies_in_a_folder_are_counted_and_leaks_warned_of(tmp_path):
    root = split_folder(tmp_path / "own", train=6, test=3)
    for i in (1, 2):
        shutil.copy(root / "train" / "ant" / "00.png", root / "train" / "bee" / f"9{i}.png")
    shutil.copy(root / "train" / "bee" / "01.png", root / "test" / "bee" / "99.png")
    with pytest.warns(UserWarning, match="1 of 7 test images are among the training images too"):
        data = cc.load(root)
    assert data.notes[-2:] == (
        "2 of 14 training images are copies of others",
        "1 of 7 test images are among the training images too",
    )
    assert cc.load(root).notes == data.notes, "and once in a process it is warned of"


def test_a_large_set_at_another_size_is_resized_into_a_file(tmp_path, place, monkeypatch):
    arrays = RNG.integers(0, 256, (40, 9, 8, 3), dtype=np.uint8), np.arange(40) % 2
    path = cc.Dataset.of(train=arrays, seed=5).save(tmp_path / "set.safetensors")
    small = prints(cc.load(f"{path}@6"))
    assert not prepared_files(place)
    monkeypatch.setattr(import_module("colt_core.data.load"), "LARGE", 100)
    data = cc.load(f"{path}@6")
    assert prints(data) == small and data.train.source.path == str(prepared_files(place)[0])


def test_grey_pictures_of_a_folder_stay_rgb(tmp_path):
    assert cc.load(pictures(tmp_path / "grey", shape=(9, 9))).train.shape == (3, 9, 9)


MANY = """
    import sys, threading
    from pathlib import Path
    import colt_core as cc

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))

    cc.load("cifar10-mini")
    before, peak, over = anonymous(), [0], threading.Event()
    def watch():
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous())
    threading.Thread(target=watch, daemon=True).start()
    data = cc.load(sys.argv[1])
    over.set()
    counts = [len(part) for part in (data.train, data.validation, data.test)]
    print(sum(counts), data.train.pixels.numel() // 2**20, peak[0] - before)
"""


def test_thousands_of_pictures_are_prepared_in_little_memory(tmp_path, place):
    """At 160 pixels they are 307 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells what memory is a process's own")
    for label in range(10):
        (tmp_path / "many" / str(label)).mkdir(parents=True)
        for i in range(400):
            with open(tmp_path / "many" / str(label) / f"{i}.png", "wb") as file:
                file.write(png(label, i % 251, i // 251))
    command = [sys.executable, "-c", textwrap.dedent(MANY), f"{tmp_path / 'many'}@160"]
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, size, grown = map(int, done.stdout.split())
    assert (count, size) == (4_000, 292) and grown < 120, f"{grown} MiB for {size} MiB of pixels"
    assert "image/s" not in done.stderr, "a bar where there is no terminal"


def png(*colour):
    """A PNG file of 8x8 pixels of one colour; Pillow takes longer."""
    chunk = lambda kind, text: struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    head, rows = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0), (b"\0" + bytes(colour) * 8) * 8
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def test_a_tensor_file_is_filled_piece_by_piece(tmp_path):
    from safetensors.torch import load_file

    shapes = {"a": (torch.uint8, (5, 3)), "b": (torch.int64, (2,)), "c": (torch.bool, (3,)), "d": (torch.uint8, (0, 7))}
    wanted = {
        "a": torch.arange(15).view(5, 3).byte(),
        "b": torch.tensor([-1, 2**60]),
        "c": torch.tensor([True, False, True]),
    }
    wanted["d"] = torch.empty(0, 7, dtype=torch.uint8)
    writer = TensorWriter(tmp_path / "t.safetensors", shapes)
    for name in ("c", "b"):
        writer.append(name, wanted[name])
    writer.append("a", wanted["a"][:2])
    with pytest.raises(ValueError, match="a has fewer rows than were announced"):
        writer.finish({})
    with pytest.raises(ValueError, match="a has more rows than were announced"):
        writer.append("a", wanted["a"])
    writer.append("a", wanted["a"][2:])
    with pytest.raises(ValueError, match="the metadata need .* bytes"):
        writer.finish({"long": "x" * 2**17})
    writer.finish({"name": "it", "long": "x" * 2**15})
    found = load_file(tmp_path / "t.safetensors")
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


SLOW = """
    import sys, time, colt_core as cc
    from colt_core.data import streaming
    real = streaming.read_picture
    def slow(*arguments):
        time.sleep(float(sys.argv[2]))
        return real(*arguments)
    streaming.read_picture = slow
    data = cc.load(sys.argv[1])
    print(data.train.fingerprint())
"""


def started(root, seconds):
    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(root), str(seconds)]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(tmp_path, place):
    root = pictures(tmp_path / "own", count=60)
    process = started(root, 0.1)
    wait_for(lambda: list((place / "prepared").glob(".*.part/*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list((place / "prepared").glob("*.safetensors")) and datasets.prepared().empty
    (left,) = (place / "prepared").glob(".*.part/*")
    shutil.copy(left, tmp_path / "half.safetensors")
    refused(tmp_path / "half.safetensors", "half.safetensors cannot be read")
    data = cc.load(root)
    (path,) = prepared_files(place)
    assert data.train.source.path == str(path), "what the killed process left is swept away"


def test_two_processes_that_prepare_at_once_make_one_file(tmp_path, place):
    root = pictures(tmp_path / "own", count=30)
    both = [started(root, 0.02) for _ in range(2)]
    told = [process.communicate()[0] for process in both]
    assert told[0] == told[1] == f"{cc.load(root).train.fingerprint()}\n" and len(prepared_files(place)) == 1


def test_an_error_of_the_disk_is_one_line_and_leaves_nothing(tmp_path, place, monkeypatch):
    root = pictures(tmp_path / "own")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("colt_core.files.TensorWriter.append", full)
        with pytest.raises(OSError, match="cannot be written .No space left on device.; nothing was changed") as caught:
            cc.load(root)
    assert len(str(caught.value).splitlines()) == 1 and not prepared_files(place)
    assert len(cc.load(root).classes) == 2


def test_a_prepared_file_that_was_altered_is_found_out(tmp_path, place):
    root = pictures(tmp_path / "own")
    cc.load(root)
    (path,) = prepared_files(place)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(root, "is altered: its checksum differs; delete it to prepare it anew")


def test_what_is_prepared_is_shown_and_can_be_forgotten(tmp_path, place):
    assert datasets.prepared().empty
    root = pictures(tmp_path / "own")
    cc.load(root)
    cc.load(f"{root}@64")
    named = cc.Dataset.of(
        train=(RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2), name="mine"
    ).named()
    table = datasets.prepared()
    assert list(table.columns) == ["name", "MB", "images", "classes", "made", "used", "file"]
    assert set(table["name"]) == {str(root), f"{root}@64", named}
    row = table[table["name"] == f"{root}@64"].iloc[0]
    assert (row["images"], row["classes"]) == (16, 2) and row["MB"] == round(Path(row["file"]).stat().st_size / 1e6, 1)
    assert row["used"] >= row["made"]
    datasets.forget(f"{root}@64")
    datasets.forget(table[table["name"] == named].iloc[0]["file"])
    assert list(datasets.prepared()["name"]) == [str(root)]
    with pytest.raises(ValueError, match="no prepared data set is called 'nothing'"):
        datasets.forget("nothing")


# --- torchvision ---


def idx(path, values):
    """An array in the format of MNIST's files."""
    head = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + values.tobytes())


def fashion(place, name="FashionMNIST"):
    """Small files of FashionMNIST where torchvision looks for them; return pixels and labels of train and test."""
    found = {}
    for part, short, count in (("train", "train", 60), ("test", "t10k", 30)):
        found[part] = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)
        raw = place / "downloads" / name / "raw"
        idx(raw / f"{short}-images-idx3-ubyte", found[part][0])
        idx(raw / f"{short}-labels-idx1-ubyte", found[part][1])
    return found


def test_fashion_mnist_has_one_channel(place):
    wanted = fashion(place)
    data = cc.load("fashion-mnist")
    assert data.train.shape == (1, 28, 28) and data.classes[0] == "T-shirt/top" and len(data.classes) == 10
    assert np.array_equal(data.test.images[:, 0], wanted["test"][0])
    train = np.sort(torch.cat([data.train.images, data.validation.images])[:, 0].flatten(1).numpy(), axis=None)
    assert np.array_equal(train, np.sort(wanted["train"][0], axis=None))
    assert data.train.source.path == str(place / "fashion-mnist.safetensors")
    assert cc.load("fashion-mnist@14:0-4").train.shape == (1, 14, 14)


def test_svhn_comes_from_its_official_files(place, monkeypatch):
    from scipy.io import savemat

    (place / "downloads").mkdir(parents=True)
    pixels = {"train": RNG.integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)}
    pixels["test"] = RNG.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    for part, values in pixels.items():
        labels = np.arange(values.shape[3]) % 10 + 1  # 10 is the digit zero
        savemat(place / "downloads" / f"{part}_32x32.mat", {"X": values, "y": labels[:, None]})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", lambda *_: None)
    data = cc.load("svhn")
    assert data.classes == tuple("0123456789") and data.test.labels.tolist()[8:11] == [9, 0, 1]
    assert np.array_equal(data.test.images[3].permute(1, 2, 0), pixels["test"][..., 3])


def test_a_class_of_torchvision_by_its_name(place):
    wanted = fashion(place)
    data = cc.load("torchvision:FashionMNIST")
    assert data.train.shape == (1, 28, 28) and data.classes[9] == "Ankle boot"
    assert (
        np.array_equal(data.test.images[:, 0], wanted["test"][0])
        and data.test.labels.tolist() == wanted["test"][1].tolist()
    )
    assert [path.name[:25] for path in prepared_files(place)] == ["torchvision-FashionMNIST-"]
    shutil.rmtree(place / "downloads")
    assert prints(cc.load("torchvision:FashionMNIST")) == prints(data), "it is decoded once"
    assert cc.load("torchvision:FashionMNIST:0,3").classes == ("T-shirt/top", "Dress")


def test_a_set_of_torchvision_without_splits_is_cut(place, monkeypatch):
    from torchvision import datasets as official

    real = official.FakeData.__init__
    monkeypatch.setattr(official.FakeData, "__init__", lambda self: real(self, 60, (3, 20, 30), 3))
    data = cc.load("torchvision:FakeData@16:0-1")
    assert data.train.shape == (3, 16, 16) and data.classes == ("0", "1") and len(data.test) > 5
    source, every = official.FakeData(), torch.cat([p.images for p in (data.train, data.validation, data.test)])
    from colt_core.data.pictures import pixels_of

    picture = next(source[i][0] for i in range(60) if int(source[i][1]) == 1)
    assert any(torch.equal(pixels_of(picture, 16), one) for one in every)


class Splits:
    """A stand-in for a class of torchvision's with named splits."""

    parts = {"train": 20, "val": 6, "test": 8}
    classes = ["ant", "bee"]

    def __init__(self, root, split="train", transform=None, download=False):
        if split not in self.parts:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {tuple(self.parts)}.")
        assert download and Path(root).name == "downloads"
        rng = np.random.default_rng(list(self.parts).index(split))
        self.pictures = rng.integers(0, 256, (self.parts[split], 7, 5, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return Image.fromarray(self.pictures[i]), i % 2


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        ({"train": 20, "val": 6, "test": 8}, (20, 6, 8)),
        ({"train": 20, "test": 8}, (18, 2, 8)),
        ({"train": 20, "val": 6}, (18, 2, 6)),
        ({"trainval": 20, "test": 8}, (18, 2, 8)),
        ({"train": 20}, (14, 2, 4)),
    ],
)
def test_the_splits_of_torchvision_are_found(monkeypatch, parts, counts):
    from torchvision import datasets as official

    monkeypatch.setattr(official, "DTD", type("DTD", (Splits,), {"parts": parts}))
    data = cc.load("torchvision:DTD")
    assert (len(data.train), len(data.validation), len(data.test)) == counts and data.train.shape == (3, 7, 5)


def test_torchvision_failures_are_one_line(place, monkeypatch):
    from torchvision import datasets as official

    refused("torchvision:Flowers", "torchvision.datasets has no data set 'Flowers'")
    refused("torchvision:ImageFolder", "no data set 'ImageFolder'")
    with pytest.raises(ValueError, match="no data set 'Flowers'"):
        cc.Experiment(dataset="torchvision:Flowers")

    def offline(*_, **__):
        raise OSError("<urlopen error no route>\nmore")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    monkeypatch.setattr(official.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    told = refused("torchvision:MNIST", "MNIST could not be downloaded or read")
    assert str(place / "downloads") in told
    refused("svhn", "svhn could not be downloaded")
    refused("torchvision:EMNIST", "Dataset.of|split train")
    monkeypatch.setattr(official, "DTD", type("DTD", (Splits,), {"__getitem__": lambda self, i: ("text", 1)}))
    refused("torchvision:DTD", "image 0 of train is of type str, not an image")
    assert not list(place.glob("prepared/*"))


# --- the library datasets ---


@pytest.fixture
def hub():
    return pytest.importorskip("datasets")


def hub_set(hub, count, seed, names=("ant", "bee"), hidden=False, **columns):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(count)]
    labels = [-1 if hidden else i % len(names) for i in range(count)]
    features = hub.Features(
        {"picture": hub.Image(), "kind": hub.ClassLabel(names=list(names)), "id": hub.Value("int64")}
    )
    return hub.Dataset.from_dict({"picture": images, "kind": labels, "id": list(range(count))}, features=features)


def test_an_object_of_the_library_datasets_is_taken_as_it_is(hub):
    given, test = (hub_set(hub, n, n).rename_columns({"picture": "img", "kind": "label"}) for n in (20, 6))
    data = cc.Dataset.of(given, test)
    assert data.classes == ("ant", "bee") and data.train.shape == (3, 6, 8) and len(data.test) == 6
    assert torch.equal(data.test.images[0], torch.from_numpy(np.array(test[0]["img"])).permute(2, 0, 1))
    with pytest.raises(ValueError, match="train must be .* not DatasetDict: give its splits one by one"):
        cc.Dataset.of(hub.DatasetDict({"train": given}))


def test_parquet_files_of_the_library_datasets(hub, tmp_path, place):
    parts = {"train": hub_set(hub, 20, 0), "validation": hub_set(hub, 6, 1), "test": hub_set(hub, 8, 2)}
    (tmp_path / "set").mkdir()
    for name, part in parts.items():
        part.to_parquet(tmp_path / "set" / f"{name}-00000-of-00001.parquet")
    data = cc.load(f"hf:{tmp_path / 'set'}")
    assert data.classes == ("ant", "bee") and data.train.shape == (3, 6, 8)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 8)
    for name, part in parts.items():
        wanted = np.stack([np.asarray(row["picture"]) for row in part])
        assert np.array_equal(getattr(data, name).images.permute(0, 2, 3, 1), wanted)
        assert getattr(data, name).labels.tolist() == part["kind"]
    before = datasets.stamp(f"hf:{tmp_path / 'set'}")
    (tmp_path / "set" / "validation-00000-of-00001.parquet").unlink()
    assert datasets.stamp(f"hf:{tmp_path / 'set'}") != before
    assert len(cc.load(f"hf:{tmp_path / 'set'}@4:0-1").validation) == 2


def test_image_folders_and_saved_sets_of_the_library_datasets(hub, tmp_path):
    root = pictures(tmp_path / "folder" / "train", count=10).parent
    data = cc.load(f"hf:{root}")
    assert data.classes == ("ant", "bee") and len(data.test) == 4
    assert {p.tobytes() for p in every(data)} == {p.tobytes() for p in every(cc.load(tmp_path / "folder"))}
    both = hub.DatasetDict({"train": hub_set(hub, 20, 0), "test": hub_set(hub, 8, 1, hidden=True)})
    both.save_to_disk(tmp_path / "saved")
    data = cc.load(f"hf:{tmp_path / 'saved'}")
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4), "labels of the test set are hidden"


def test_damaged_and_grey_pictures_of_the_library_datasets(hub, tmp_path, place):
    root = pictures(tmp_path / "grey" / "train", count=10, shape=(6, 8)).parent
    assert cc.load(f"hf:{root}").train.shape == (1, 6, 8)
    for name in ("ant/03", "bee/07"):
        (root / "train" / f"{name}.png").write_bytes((root / "train" / f"{name}.png").read_bytes()[:50])
    before = prepared_files(place)
    refused(f"hf:{root}", "2 of 20 pictures cannot be read: image 3 of train .*, image 17 of train ")
    assert prepared_files(place) == before


def every(data):
    return torch.cat([part.images for part in (data.train, data.validation, data.test)]).numpy()


def test_failures_of_the_library_datasets_are_one_line(hub, tmp_path, monkeypatch, place):
    (tmp_path / "empty").mkdir()
    refused(f"hf:{tmp_path / 'empty'}", "cannot be loaded")
    (tmp_path / "table").mkdir()
    hub.Dataset.from_dict({"a": [1, 2], "b": ["x", "y"]}).to_parquet(tmp_path / "table" / "train.parquet")
    refused(
        f"hf:{tmp_path / 'table'}", r"one column of type Image and one of type ClassLabel are needed, not a \(Value\)"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no\nroute")))
    refused("hf:someone/something", "hf:someone/something cannot be loaded: ConnectionError: no")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("hf:someone/something", r"needs the library datasets: pip install 'colt-workbook\[data\]'")
    assert not prepared_files(place)


# --- a function, a file ---

MODULE = """
import numpy as np
import colt_core as cc

pixels = np.random.default_rng({seed}).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
labels = np.arange(40) % 2

def whole():
    return cc.Dataset.of(train=(pixels, labels), seed=3, validation=0.2)

def mapping():
    return {{"train": (pixels, labels), "classes": ["ant", "bee"]}}

def pair():
    return (pixels, labels), (pixels[:6] ^ 1, labels[:6])

def number():
    return 3

def broken():
    raise RuntimeError("first\\nsecond")
"""


def test_a_function_of_a_users_own(tmp_path, monkeypatch, place):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_sets.py").write_text(MODULE.format(seed=0))
    import own_sets

    assert prints(cc.load("own_sets:whole")) == prints(own_sets.whole()), "with its own splits"
    data = cc.load("own_sets:mapping@4")
    assert data.classes == ("ant", "bee") and data.train.shape == (3, 4, 4) and data.train.source.path
    assert len(cc.load("own_sets:pair").test) == 6
    before = datasets.stamp("own_sets:whole")
    with monkeypatch.context() as patch:
        patch.setattr(own_sets, "whole", lambda: pytest.fail("it was called again"))
        cc.load("own_sets:whole")
    old = prints(cc.load("own_sets:mapping"))
    (tmp_path / "own_sets.py").write_text(MODULE.format(seed=1) + "# edited\n")
    assert datasets.stamp("own_sets:whole") != before and prints(cc.load("own_sets:mapping")) != old
    assert prints(cc.load("own_sets:mapping@6")) == prints(cc.load("own_sets:mapping"))
    with pytest.raises(ValueError, match="first"):  # a user's own error keeps its words and its place
        cc.load("own_sets:broken")
    assert all(path.suffix == ".safetensors" for path in prepared_files(place))
    refused("own_sets:number", "must give a Dataset, or the arguments of Dataset.of as a mapping, not int")
    refused("own_sets:nothing", "cannot be imported: own_sets has no nothing")
    refused("own_setz:whole", "cannot be imported: No module named 'own_setz'")
    with pytest.raises(ValueError, match="cannot be imported: No module named 'own_setz'"):
        cc.Experiment(dataset="own_setz:whole")


ARRAYS = {
    "train_images": RNG.integers(0, 256, (40, 7, 6, 3), dtype=np.uint8),
    "train_labels": (np.arange(40) % 4)[:, None],
    "test_images": RNG.integers(0, 256, (12, 7, 6, 3), dtype=np.uint8),
    "test_labels": (np.arange(12) % 4)[:, None].astype(np.uint8),
}


@pytest.mark.parametrize("kind", ["npz", "npz, compressed", "npz, keras", "safetensors"])
def test_files_of_arrays(tmp_path, kind):
    from safetensors.numpy import save_file

    path = tmp_path / f"set.{kind[:11].split(',')[0]}"
    names = dict(zip(ARRAYS, ("x_train", "y_train", "x_test", "y_test"), strict=True)) if "keras" in kind else {}
    arrays = {names.get(name, name): value for name, value in ARRAYS.items()}
    write = {"npz, compressed": np.savez_compressed, "safetensors": lambda to, **values: save_file(values, to)}
    write.get(kind, np.savez)(path, **arrays)
    data = cc.load(path)
    of = cc.Dataset.of(
        train=(ARRAYS["train_images"], ARRAYS["train_labels"]), test=(ARRAYS["test_images"], ARRAYS["test_labels"])
    )
    assert prints(data) == prints(of) and data.classes == ("0", "1", "2", "3") and data.train.source.path
    assert cc.load(f"{path}@5:1,2").train.shape == (3, 5, 5)


def test_files_of_arrays_with_a_validation_split(tmp_path):
    held_out = {"val_images": ARRAYS["test_images"] ^ 1, "val_labels": ARRAYS["test_labels"]}
    np.savez(tmp_path / "a.npz", **ARRAYS, **held_out)
    data = cc.load(tmp_path / "a.npz")
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 12, 12)
    some = {name: value for name, value in ARRAYS.items() if "train" in name}
    np.savez(tmp_path / "b.npz", **some, **held_out)
    assert len(cc.load(tmp_path / "b.npz").test) == 12
    np.savez(tmp_path / "c.npz", **some)
    assert len(cc.load(tmp_path / "c.npz").test) == 8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": ARRAYS["train_images"]}, "must hold train_images and train_labels, .* it holds images"),
        ({"train_images": ARRAYS["train_images"]}, "train: the labels are missing"),
        (ARRAYS | {"train_labels": np.arange(39)}, "train has 40 images and 39 labels"),
        (ARRAYS | {"train_images": ARRAYS["train_images"] / 255}, r"must be uint8, 0\.\.255, not float64"),
        (ARRAYS | {"train_labels": np.array([None] * 40)}, "cannot be read"),
    ],
)
def test_files_that_lack_something_are_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    assert str(tmp_path / "set.npz") in refused(tmp_path / "set.npz", message)
    (tmp_path / "set.npz").write_bytes(b"PK no archive")
    refused(tmp_path / "set.npz", "cannot be read")


def test_what_is_loaded_by_any_name_goes_into_an_experiment(tmp_path, recipe):
    np.savez(tmp_path / "set.npz", **ARRAYS)
    settings = {"network_args": {"width": 4}, "rate": 0.5, "target": 0.4, "recipe": recipe.changed(batch_size=4)}
    experiment = cc.Experiment(dataset=f"{tmp_path / 'set.npz'}@32", scores=(0.4,), **settings)
    frame = cc.run(experiment, tmp_path / "runs", device="cpu")
    assert frame["accuracy"].notna().sum() == 1
    assert json.loads(json.dumps(experiment.labels()))["dataset"] == experiment.dataset
