"""Picture files to pixels: what Pillow reads becomes uint8 RGB, or a refusal of one line that names the file."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..settings import first_line

RESIZE = "to resize all, add a size to the data set's name, for example pictures@32, or say size=32"

NO_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG")  # what Pillow recognises, and cannot read by itself

LARGEST = 4096  # pixels along an edge that pictures are resized to

BITS, PHOTOMETRIC = 258, 262  # the numbers of TIFF's tags BitsPerSample and PhotometricInterpretation


class Unreadable(ValueError):
    """A file that is no picture that can be read; `reason` is why, in a few words."""

    def __init__(self, path: str, reason: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} is no image that can be read{f' ({reason})' if reason else ''}")


class NotGrey(Exception):
    """A picture has colours where one channel was asked for."""


def shown(path: object) -> str:
    """Return a path as it can stand in a line of text: as it is, or escaped where it holds what cannot be printed."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def check_size(size: object) -> int:
    """Return an edge in pixels, a number or its digits; raise a `ValueError` unless it lies in 1..4096."""
    text = "" if isinstance(size, bool) else str(size)
    if not text.isdecimal() or len(text) > len(str(LARGEST)) or not 1 <= int(text) <= LARGEST:
        raise ValueError(f"the size of images must be a whole number of pixels in 1..{LARGEST}, not {size!r}")
    return int(text)


def decode(count: int, files: Iterable[Any], size: int | None = None) -> torch.Tensor:
    """Decode picture files.

    Grey pictures of more than eight bits are scaled to eight, floating-point ones of 0..1 to 0..255. Transparency is
    left out, as torchvision's `ImageFolder` does; of several frames the first one counts.

    Parameters
    ----------
    count
        The number of files.
    files
        Paths, or open binary files that have a name.
    size
        Bring every picture to this square: its short side is resized, then the centre is cut out; None: all must be of
        one size.

    Returns
    -------
    torch.Tensor
        uint8 [count, 3, H, W], RGB.

    Raises
    ------
    ValueError
        For a file that is damaged, truncated, too large (a decompression bomb), or of another size than the first.
    """
    pixels = torch.empty(0, dtype=torch.uint8)
    with reading():
        for i, file in enumerate(files):
            path = shown(file if isinstance(file, Path) else file.name)
            one = read_picture(file, path, size)
            pixels = _room(count, one.shape[1], one.shape[2]) if i == 0 else pixels
            check_shape(path, one.shape, pixels.shape[1:])
            pixels[i] = one
    return pixels


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return images, uint8 [N, C, H, W], resized as a folder's pictures are; the same tensor where they fit already."""
    if images.shape[2:] == (size, size):
        return images
    pixels = _room(len(images), size, size, images.shape[1])
    for i, image in enumerate(images):
        pixels[i] = fitted(image, size)
    return pixels


def fitted(image: torch.Tensor, size: int | None) -> torch.Tensor:
    """Return one image, uint8 [C, H, W] with 1 or 3 channels, at a size; None: as it is."""
    from PIL import Image

    if size is None or image.shape[1:] == (size, size):
        return image
    array = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    return _tensor(_fit(Image.fromarray(array.contiguous().numpy()), size))


def pixels_of(picture: Any, size: int | None = None, channels: int = 3) -> torch.Tensor:
    """Return an open picture as uint8 [channels, H, W].

    Parameters
    ----------
    picture
        A picture of Pillow's.
    size
        The square that it is brought to: its short side is resized to `size`, then the centre is cut out.
    channels
        3 (RGB) or 1.

    Raises
    ------
    NotGrey
        If it has colours, and one channel is asked for.
    """
    if channels == 1:
        if not is_grey(picture):
            raise NotGrey
        picture = _rgb(picture).getchannel(0)
    else:
        picture = _rgb(picture)
    return _tensor(_fit(picture, size) if size else picture)


def is_grey(picture: Any) -> bool:
    """Tell whether a picture's mode has no colours: black and white, or one number a pixel."""
    return picture.mode in ("1", "L", "LA") or picture.mode[0] in "IF"


@cache
def endings() -> frozenset[str]:
    """Return the endings of the names of picture files that Pillow reads, in small letters: ".png", ..."""
    from PIL import Image

    Image.init()
    found = Image.registered_extensions().items()
    return frozenset({e for e, kind in found if kind in Image.OPEN and kind not in NO_PICTURES} | {".mpo"})


def is_picture(path: str) -> bool:
    """Tell by its content whether Pillow knows a file as a picture; it may be damaged all the same."""
    from PIL import Image

    try:
        with open(path, "rb") as stream, Image.open(stream) as opened:
            return opened.format not in NO_PICTURES
    except Exception:  # whatever a plugin stumbles over in a file of another kind
        return False


@contextmanager
def reading() -> Iterator[None]:
    """Let Pillow warn of nothing while many pictures are read, but refuse a decompression bomb."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what else Pillow warns of is metadata, which moves no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _room(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    try:
        return torch.empty((count, channels, height, width), dtype=torch.uint8)
    except RuntimeError:
        need = f"{channels * count * height * width / 1e9:.0f} GB of memory"
        raise ValueError(f"{count} images of {width}x{height} pixels need {need}; {RESIZE}") from None


def check_shape(path: str, one: Sequence[int], before: Sequence[int]) -> None:
    """Raise a `ValueError` where a picture has another height or width, [C, H, W], than those before it."""
    if tuple(one) != tuple(before):
        found = f"{one[2]}x{one[1]} after {before[2]}x{before[1]}"
        raise ValueError(f"{path} has another size than those before it ({found}); {RESIZE}")


def _tensor(picture: Any) -> torch.Tensor:
    """Return a picture's pixels, uint8 [C, H, W]."""
    import numpy as np

    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _fit(picture: Any, size: int) -> Any:
    """Resize a picture's short side, then cut out the centre: sizes and places are rounded as torchvision does."""
    width, height = picture.size
    short = min(width, height)
    wide, high = (size if edge == short else int(size * edge / short) for edge in (width, height))
    picture = picture.resize((wide, high))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return picture if wide == high else picture.crop((left, top, left + size, top + size))


def read_picture(file: Any, path: str, size: int | None) -> torch.Tensor:
    """Return one file's pixels, uint8 [3, H, W], at a size if asked.

    Parameters
    ----------
    file
        A path, or an open binary file.
    path
        What it is called in errors.
    size
        As for `decode`.

    Raises
    ------
    Unreadable
        For a file that is damaged, truncated, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Opened here, because Pillow maps files that it opens itself, and some of its readers leave them open.
        with open(file, "rb") if isinstance(file, Path) else file as stream, Image.open(stream) as opened:
            pixels = pixels_of(opened, size)
            if _lacks_its_end(opened, stream):
                raise ValueError("image file is truncated")
        return pixels
    except UnidentifiedImageError:
        raise Unreadable(path) from None
    except Exception as problem:  # Pillow lets through whatever its readers stumble over: struct.error, IndexError, ...
        raise Unreadable(path, first_line(problem)) from None


def _rgb(picture: Any) -> Any:
    """Return an open picture of any mode as an RGB picture."""
    from PIL import Image

    picture.load()
    if min(picture.size) < 1:
        raise ValueError("it has no pixels")
    if picture.mode[0] in "IF":  # one number a pixel, of more than eight bits: Pillow itself would cut it off at 255
        picture = Image.fromarray(_eight_bits(picture))
    return picture.convert("RGB")


def _eight_bits(picture: Any) -> Any:
    """Return a picture of modes I, I;16 or F as a uint8 array [H, W], its values scaled from 0..white to 0..255.

    References
    ----------
    PNG specification (third edition), section 13.12, sample depth rescaling: the nearest value of the linear equation.
    """
    import numpy as np

    values, tags = np.asarray(picture).astype(np.float64), getattr(picture, "tag_v2", {})
    white, low, high = _white(picture, tags), values.min(), values.max()
    if not (low >= 0 and high <= white):
        raise ValueError(f"its values lie in {low:.6g}..{high:.6g}; allowed: 0..{white:.6g}")
    if picture.mode == "I" and picture.format not in ("PPM", "PNG") and 0 < high <= 255:
        raise ValueError(
            f"its values, of 32 bits, lie in 0..{high:.6g}: save it with 8 or 16 bits, to tell what is white"
        )
    values = white - values if tags.get(PHOTOMETRIC) == 0 else values  # Pillow minds "white is zero" up to 8 bits only
    return np.rint(values * 255 / white).astype(np.uint8)


def _white(picture: Any, tags: Any) -> float:
    """Return the number that stands for white: 1 of floating-point numbers, else the largest of the file's bits."""
    if picture.mode == "F":
        return 1.0
    return 65535.0 if picture.mode == "I" else 2.0 ** tags.get(BITS, (16,))[0] - 1


def _lacks_its_end(picture: Any, stream: Any) -> bool:
    """Tell whether a file is truncated where Pillow does not notice; everywhere else it raises an error itself."""
    if picture.format not in ("PCX", "JPEG2000"):
        return False
    stream.seek(0)
    content = stream.read()
    if picture.format == "JPEG2000":  # no data after its beginning may look like the marker at its end
        return b"\xff\xd9" not in content[content.rfind(b"\xff\x93") :]
    # The palette of 256 colours comes last; without it Pillow takes the colours' numbers for grey.
    return picture.mode == "L" and content[68] != 2 and content[-769] != 12
