"""A user's pictures: every mode rightly, every damage in one line, every change seen."""

import io
import os
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import colt_core as cc
from colt_core import data as datasets
from colt_core.data import folder as folders
from colt_core.data.pictures import decode

COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]


def read(path):
    """The pixels of one picture, [H, W, 3]."""
    return decode(1, [Path(path)])[0].permute(1, 2, 0).numpy()


def saved(picture, path, **options):
    picture.save(path, **options)
    return path


def refusal(path):
    """The line in which a picture is refused; it names the file."""
    with pytest.raises(ValueError) as caught:
        decode(1, [Path(path)])
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    return str(caught.value)


# --- modes ---


@pytest.mark.parametrize("ending", ["png", "tif", "jp2", "pgm"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path, ending):
    wide = (GREY.astype(np.uint16) << 8) + np.arange(256, dtype=np.uint16).reshape(16, 16)
    options = {"irreversible": False} if ending == "jp2" else {}
    pixels = read(saved(Image.fromarray(wide), tmp_path / f"a.{ending}", **options))
    assert np.array_equal(pixels, np.rint(wide / 257).astype(np.uint8)[..., None].repeat(3, 2))


def test_grey_of_16_bits_in_32_is_scaled_too(tmp_path):
    wide = GREY.astype(np.int32) * 257
    assert np.array_equal(read(saved(Image.fromarray(wide), tmp_path / "a.tif"))[..., 0], GREY)


@pytest.mark.parametrize(("low", "high"), [(-1, 400), (0, 65_536), (0, 200)])
def test_32_bits_that_tell_no_white_are_refused(tmp_path, low, high):
    values = np.linspace(low, high, 256).astype(np.int32).reshape(16, 16)
    assert f"{low}..{high}" in refusal(saved(Image.fromarray(values), tmp_path / "a.tif"))


def test_floating_point_pictures_are_scaled_from_0_to_1(tmp_path):
    values = GREY.astype(np.float32) / 255
    assert np.array_equal(read(saved(Image.fromarray(values), tmp_path / "a.tif"))[..., 0], GREY)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0, 1.5), (0, 255), (0, np.nan), (0, np.inf)])
def test_floating_point_pictures_of_another_range_are_refused(tmp_path, low, high):
    values = np.array([[low, high]] * 2, dtype=np.float32)
    assert "allowed: 0..1" in refusal(saved(Image.fromarray(values), tmp_path / "a.tif"))


def tiff(values, bits, photometric):
    """A TIFF file of one strip, as some cameras and scanners write it and Pillow does not."""
    height, width = values.shape
    packed = values.astype("<u2").tobytes()
    if bits == 12:
        text = "".join(f"{value:012b}" for value in values.flatten())
        packed = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(packed)))
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + table + bytes(4)


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_what_is_white_is_read_from_the_file(tmp_path, bits, photometric):
    white = 2**bits - 1
    values = np.rint(GREY / 255 * white).astype(np.int64)
    (tmp_path / "a.tif").write_bytes(tiff(values if photometric else white - values, bits, photometric))
    assert np.array_equal(read(tmp_path / "a.tif")[..., 0], GREY)


def test_transparency_is_left_out_and_warns_of_nothing(tmp_path):
    colours = Image.fromarray(COLOURS)
    clear = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    solid, grey = colours.copy(), Image.fromarray(GREY)
    solid.putalpha(clear)
    grey.putalpha(clear)
    palette = colours.quantize(32)
    few = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read(saved(solid, tmp_path / "rgba.png")), COLOURS)
    assert np.array_equal(read(saved(grey, tmp_path / "la.png")), GREY[..., None].repeat(3, 2))
    assert np.array_equal(read(saved(palette, tmp_path / "p.png", transparency=bytes(range(32)))), few)
    assert np.array_equal(read(saved(palette, tmp_path / "one.png", transparency=3)), few)
    assert np.array_equal(read(saved(palette, tmp_path / "p.gif", transparency=3)), few)


def test_one_bit_inks_and_brightness_with_colour_become_rgb(tmp_path):
    colours = Image.fromarray(COLOURS)
    bits = colours.convert("1")
    assert np.array_equal(read(saved(bits, tmp_path / "1.png"))[..., 1], np.asarray(bits) * np.uint8(255))
    inks = Image.fromarray(np.dstack([255 - COLOURS, np.zeros_like(GREY)]), "CMYK")
    assert np.array_equal(read(saved(inks, tmp_path / "cmyk.tif")), COLOURS)
    apart = np.abs(read(saved(colours.convert("YCbCr"), tmp_path / "ycc.tif")).astype(int) - COLOURS)
    assert apart.max() <= 3, "but for rounding"


# --- damage ---


def png(width, height, pixels=b""):
    """A PNG file that announces so many pixels."""
    chunk = lambda kind, text: struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("edge", [10_000, 40_000])
def test_a_decompression_bomb_is_refused(tmp_path, edge):
    """Pillow only warns of the first, and calls the second an error."""
    (tmp_path / "a.png").write_bytes(png(edge, edge))
    assert "decompression bomb" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["avif", "bmp", "dds", "gif", "jp2", "jpg", "png", "ppm", "qoi", "tif", "webp"])
def test_a_truncated_picture_is_refused_wherever_it_ends(tmp_path, ending):
    whole = saved(Image.fromarray(COLOURS), tmp_path / f"a.{ending}").read_bytes()
    expected = read(tmp_path / f"a.{ending}")
    for length in range(0, len(whole), 1 if ending == "jp2" else 9):  # of jp2, Pillow misses one length among hundreds
        (tmp_path / f"a.{ending}").write_bytes(whole[:length])
        try:
            found = decode(1, [tmp_path / f"a.{ending}"])[0].permute(1, 2, 0).numpy()
        except ValueError as problem:
            assert f"a.{ending} is no image that can be read" in str(problem) and "\n" not in str(problem)
        else:
            assert np.array_equal(found, expected), f"{length} of {len(whole)} bytes are another picture"


def test_a_palette_that_is_missing_is_missed(tmp_path):
    path = saved(Image.fromarray(COLOURS).quantize(64), tmp_path / "a.pcx")
    assert read(path).std(2).any()
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refusal(path)


KINDS = [SyntaxError, struct.error, ZeroDivisionError, OverflowError, MemoryError, KeyError, IndexError, TypeError]


@pytest.mark.parametrize("kind", [*KINDS, NotImplementedError, EOFError, zlib.error, RecursionError, AssertionError])
def test_whatever_pillow_lets_through_becomes_one_line(tmp_path, monkeypatch, kind):
    def stumble(*_):
        raise kind("first\nsecond")

    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stumble)
    assert "is no image that can be read (" in refusal(path)


def test_a_file_with_a_strange_name_is_told_in_one_line(tmp_path):
    (tmp_path / "a\nb.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\\nb\.png' is no image"):
        decode(1, [tmp_path / "a\nb.png"])


# --- changes ---


@pytest.fixture
def own(folder, tmp_path):
    """A copy of the folder of pictures, with a folder, a hidden folder and a link in it."""
    shutil.copytree(folder, tmp_path / "own")
    for name in ("more", ".hidden", "ant-eaters"):
        (tmp_path / "own" / "ant" / name).mkdir()
        shutil.copy(folder / "ant" / "03.png", tmp_path / "own" / "ant" / name / "50.png")
    (tmp_path / "own" / "ant" / ".secret.png").write_text("left out")
    (tmp_path / "own" / "ant" / "60.png").symlink_to(folder / "ant" / "04.png")
    (tmp_path / "own" / "ant" / "nothing.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "own" / "ant" / "linked").symlink_to(folder / "bee")
    return tmp_path / "own"


def test_the_files_of_a_class_are_those_of_rglob(own):
    wanted = [p for p in (own / "ant").rglob("*") if p.is_file() and not p.name.startswith(".")]
    assert sorted(Path(entry.path) for entry in folders._files(own / "ant")) == sorted(wanted) and len(wanted) == 16


@pytest.mark.filterwarnings("ignore:.*test images are among the training images too")
def test_a_stamp_changes_with_each_change_of_a_folder_and_with_nothing_else(own, folder):
    picture, told = own / "bee" / "03.png", [datasets.stamp(str(own))]

    def changed():
        told.append(datasets.stamp(str(own)))
        return len(set(told)) == len(told)

    cc.load(str(own))
    (own / "notes.txt").write_text("no picture")
    (own / "bee" / "notes.txt").write_text("no picture")
    (own / "bee" / ".hidden").write_text("none either")
    assert datasets.stamp(own) == datasets.stamp(f"{own}@16:0-1") == told[0]
    shutil.copy(folder / "bee" / "04.png", picture)
    assert changed(), "other pixels"
    os.utime(picture, ns=(0, picture.stat().st_mtime_ns + 1))
    assert changed(), "another time"
    picture.rename(own / "bee" / "99.png")
    assert changed(), "another name"
    (own / "bee" / "99.png").rename(own / "zebra" / "99.png")
    assert changed(), "another class"
    (own / "zebra" / "99.png").unlink()
    assert changed(), "a picture less"
    (own / "cat").mkdir()
    assert changed(), "a class more"


def test_a_stamp_sees_a_file_that_comes_with_the_old_time_and_size(own):
    picture = own / "bee" / "03.png"
    before, old = datasets.stamp(own), picture.stat()
    time.sleep(0.02)  # file systems count in ticks
    picture.write_bytes(bytes(old.st_size))
    os.utime(picture, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert datasets.stamp(own) != before


def test_a_stamp_of_train_and_test_speaks_of_both(folder, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(folder, tmp_path / "own" / part)
    before = datasets.stamp(tmp_path / "own")
    (tmp_path / "own" / "test" / "bee" / "00.png").unlink()
    assert datasets.stamp(tmp_path / "own") != before


def test_the_folders_of_splits_are_known_in_any_case_and_are_no_classes(folder, tmp_path):
    for part in ("Train", "TEST"):
        shutil.copytree(folder, tmp_path / part)
    for path in (tmp_path / "TEST").rglob("*.png"):
        Image.open(path).rotate(90).save(path)
    found = cc.load(tmp_path)
    assert found.classes == ("ant", "bee", "zebra") and len(found.test) == 36
    (tmp_path / "Train").rename(tmp_path / "training")
    with pytest.raises(ValueError, match="the folders TEST, training are no classes: call the training set's train"):
        cc.load(tmp_path)


def test_a_stamp_opens_no_picture(own, monkeypatch):
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(io, "open", None)
    assert len(datasets.stamp(own)) == 64


def test_stamps_of_the_built_in_sets_speak_of_their_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COLT_DATA", str(tmp_path))
    assert datasets.stamp("cifar10-mini") == datasets.stamp("cifar10-mini:0-4") == "cifar10-mini"
    told = [datasets.stamp("cifar10")]
    for content in (b"one", b"three"):
        (tmp_path / "cifar10.safetensors").write_bytes(content)
        told.append(datasets.stamp("cifar10"))
    os.utime(tmp_path / "cifar10.safetensors", ns=(0, 1))
    assert len({*told, datasets.stamp("cifar10")}) == 4
    with pytest.raises(ValueError, match="unknown data set"):
        datasets.stamp("cifar11")


def test_a_folder_that_cannot_be_read_is_one_line(own, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    for read_it in (datasets.stamp, cc.load):
        with pytest.raises(ValueError, match=r"own(/ant)? cannot be read \(Permission denied\)"):
            read_it(str(own))


# --- another size ---


def test_a_built_in_set_at_another_size_is_resized_as_pictures_are(mini, tmp_path):
    small = cc.load("cifar10-mini@16")
    assert small.name == "cifar10-mini@16" and small.test.images.shape == (2000, 3, 16, 16)
    for i in range(3):
        picture = Image.fromarray(mini.test.images[i].permute(1, 2, 0).numpy())
        path = saved(picture, tmp_path / f"{i}.png")
        assert torch.equal(decode(1, [path], 16)[0], small.test.images[i])
    assert torch.equal(cc.load("cifar10-mini", size=16).test.images, small.test.images)
    assert datasets.halves("cifar10-mini@16")[0] == "cifar10-mini@16:0-4"


def test_a_built_in_set_at_its_own_size_is_the_same_data(mini):
    assert cc.load("cifar10-mini@32").train.fingerprint() == mini.train.fingerprint()


@pytest.mark.parametrize("size", [0, -1, 4097, 10**30, 2.5, True, "", "x"])
def test_a_size_that_no_image_has_is_refused(size):
    with pytest.raises(ValueError, match=r"whole number of pixels in 1\.\.4096"):
        cc.load("cifar10-mini", size=size)


@pytest.mark.parametrize("size", ["0", "4097", "9" * 5000])
def test_a_size_in_a_name_that_no_image_has_is_refused_without_reading(size):
    with pytest.raises(ValueError, match=r"whole number of pixels in 1\.\.4096"):
        datasets.check_name(f"cifar10-mini@{size}")


def test_more_pixels_than_memory_are_one_line(monkeypatch, tmp_path):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121]\nDefaultCPUAllocator: can't allocate memory")

    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png")
    real = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **rest: real(0) if shape == (0,) else full())
    with pytest.raises(ValueError, match="2 images of 16x16 pixels need .* GB of memory"):
        decode(2, [path, path])
