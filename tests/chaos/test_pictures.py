"""Damaged pictures of every format that Pillow can write here: each loads whole, or is refused in one line.

COLT_CHAOS_SEED chooses other damages, COLT_CHAOS_CASES more of them.
"""

import gc
import io
import itertools
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

import colt_core as cc

SEED = os.environ.get("COLT_CHAOS_SEED", "0")

CASES = int(os.environ.get("COLT_CHAOS_CASES", "200"))

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")

VARIANTS = {
    "TIFF": [{"compression": c} for c in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4")],
    "WEBP": [{"lossless": True}, {}],
    "JPEG": [{}, {"progressive": True}],
    "TGA": [{}, {"compression": "tga_rle"}],
    "DDS": [{}, {"pixel_format": "DXT1"}, {"pixel_format": "DXT5"}],
}

pytestmark = pytest.mark.chaos


def pictures():
    """Each format in each mode and variant that can be written and read back: (what it is, its bytes)."""
    Image.init()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for kind in sorted(Image.SAVE):
        modes = ("RGB",) if kind == "ICNS" else MODES  # it writes the picture at ten sizes, which takes long
        for mode, options in itertools.product(modes, VARIANTS.get(kind, [{}])):
            file = io.BytesIO()
            try:
                picture = colours.convert("L").convert(mode) if mode[0] in "IF" else colours.convert(mode)
                picture.save(file, kind, **options)
                with Image.open(io.BytesIO(file.getvalue())) as back:
                    back.load()
            except Exception:  # not every format has every mode, and some can only be written
                continue
            yield f"{kind} {mode} {options}", file.getvalue()


def damaged(content, rng):
    """Flip bits, cut, or insert bytes, in one to four places; every second place in the header."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, min(len(content), rng.choice([64, len(content)]))))
        how = rng.choice(["flip", "flip", "overwrite", "insert", "remove", "cut"])
        if how == "flip" and content:
            content[place] ^= 1 << rng.randrange(8)
        elif how == "overwrite":
            content[place : place + 4] = rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4)])
        elif how == "insert":
            content[place:place] = rng.randbytes(rng.randint(1, 16))
        elif how == "remove":
            del content[place : place + rng.randint(1, 16)]
        elif how == "cut":
            del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


@pytest.fixture
def own(tmp_path):
    """A folder of two classes of three pictures, the last of which is to be damaged."""
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (16, 16), (i, 40 * i, 200)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def load(folder):
    """Load a folder in which the last picture may be damaged: return the line in which it is refused, if it is."""
    try:
        data = cc.load(folder)
    except ValueError as problem:
        line = str(problem)
        assert len(line.splitlines()) == 1 and str(folder / "z" / "2.png") in line, line
        return line
    parts = (data.train, data.validation, data.test)
    assert [part.counts() for part in parts] == [[1, 1]] * 3
    assert all(part.images.shape == (2, 3, 16, 16) and part.images.dtype == torch.uint8 for part in parts)
    return None


@pytest.mark.filterwarnings("error")
def test_a_damaged_picture_is_loaded_whole_or_refused_in_one_line(own):
    samples, refused = list(pictures()), 0
    assert len({kind.split()[0] for kind, _ in samples}) > 15
    for number in range(CASES):
        rng = random.Random(f"{SEED}/{number}")
        kind, content = rng.choice(samples)
        (own / "z" / "2.png").write_bytes(damaged(content, rng))
        try:
            refused += load(own) is not None
        except Exception as problem:
            found = f"{type(problem).__name__}: {problem}"
            pytest.fail(f"COLT_CHAOS_SEED={SEED}, case {number}, {kind}: {found}")
    gc.collect()  # a file that was left open would warn now
    assert CASES // 4 < refused < CASES, f"COLT_CHAOS_SEED={SEED}: {refused} of {CASES} refused"
