"""Picture files to pixels: what Pillow reads becomes uint8 RGB, or a refusal of one line that names the file."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..settings import first_line

RESIZE = "to resize all, add a size to the data set's name, for example pictures@32"

LARGEST = 4096  # pixels along an edge that pictures are resized to

BITS, PHOTOMETRIC = 258, 262  # the numbers of TIFF's tags BitsPerSample and PhotometricInterpretation


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
        Resize every picture to this square; None: all must be squares of one size.

    Returns
    -------
    torch.Tensor
        uint8 [count, 3, H, W], RGB.

    Raises
    ------
    ValueError
        For a file that is damaged, truncated, too large (a decompression bomb), or of another size than the first.
    """
    from PIL import Image

    pixels = torch.empty(0, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what else Pillow warns of is metadata, which moves no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i, file in enumerate(files):
            path = shown(file if isinstance(file, Path) else file.name)
            one = _read(file, path, size)
            pixels = _room(count, one.shape[1], one.shape[2]) if i == 0 else pixels
            _check_shape(path, one, pixels)
            pixels[i] = one
    return pixels


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return images, uint8 [N, 3, H, W], resized as a folder's pictures are; the same tensor where they fit already."""
    from PIL import Image

    if images.shape[2:] == (size, size):
        return images
    pixels = _room(len(images), size, size)
    for i, image in enumerate(images):
        pixels[i] = _tensor(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size)))
    return pixels


def _room(count: int, height: int, width: int) -> torch.Tensor:
    try:
        return torch.empty((count, 3, height, width), dtype=torch.uint8)
    except RuntimeError:
        need = f"{3 * count * height * width / 1e9:.0f} GB of memory"
        raise ValueError(f"{count} images of {width}x{height} pixels need {need}; {RESIZE}") from None


def _check_shape(path: str, one: torch.Tensor, pixels: torch.Tensor) -> None:
    if one.shape != pixels.shape[1:]:
        found = f"{one.shape[2]}x{one.shape[1]} after {pixels.shape[3]}x{pixels.shape[2]}"
        raise ValueError(f"{path} has another size than those before it ({found}); {RESIZE}")
    if one.shape[1] != one.shape[2]:
        raise ValueError(f"{path} is not square ({one.shape[2]}x{one.shape[1]}); {RESIZE}")


def _tensor(picture: Any) -> torch.Tensor:
    """Return a picture's pixels, uint8 [3, H, W]."""
    import numpy as np

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _read(file: Any, path: str, size: int | None) -> torch.Tensor:
    """Return one file's pixels, uint8 [3, H, W], resized if asked."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Opened here, because Pillow maps files that it opens itself, and some of its readers leave them open.
        with open(file, "rb") if isinstance(file, Path) else file as stream, Image.open(stream) as opened:
            picture = _rgb(opened)
            if _lacks_its_end(opened, stream):
                raise ValueError("image file is truncated")
        return _tensor(picture.resize((size, size)) if size else picture)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image that can be read") from None
    except Exception as problem:  # Pillow lets through whatever its readers stumble over: struct.error, IndexError, ...
        raise ValueError(f"{path} is no image that can be read ({first_line(problem)})") from None


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
