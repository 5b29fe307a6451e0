"""A ticket as an ONNX file: `export()`; written by PyTorch, checked against PyTorch on images, and timed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import Images, load
from ..data.augmentation import normalise
from ..files import write_whole
from ..settings import shown
from ..tickets import Ticket
from .runtime import check_libraries, session, write
from .speed import FORMS, check_takes, forms_of, in_words, speed

CLOSE = 1e-3  # of the largest output: other kernels sum in another order
CHECKED = 64  # images


def export(
    ticket: Ticket | nn.Module,
    path: str | Path,
    *,
    form: str = "compact",
    images: Images | None = None,
    shape: Sequence[int] | None = None,
    multiple: int = 1,
    timed: bool = True,
) -> str:
    """Write a ticket's network as an ONNX file with a free batch size, and check it.

    Parameters
    ----------
    ticket
        A ticket, whose weights are the initial ones, or a network as it stands: the trained one, to be used.
    path
        The file, which must end with ".onnx"; written whole or not at all.
    form
        "compact" (channels that were cut whole are gone), "masked" or "dense"; of a network it says nothing.
    images
        What the file's outputs are compared on with PyTorch's, 64 of them; by default the embedded test images.
    shape
        Channels, height and width, in place of images: random ones of this shape.
    multiple
        As for `compact`.
    timed
        Measure the forms in ONNX Runtime too, to say what is faster.

    Returns
    -------
    str
        What was written, how far its outputs are from PyTorch's, and what is and is not faster.

    Raises
    ------
    ValueError
        In one line: a library of the extra `export` is missing, an operator that ONNX lacks, outputs that differ, an
        unknown form, another ending, images that the network cannot take, weights that are not float32, outputs that
        are no tensor. Then no file is written.
    """
    if not isinstance(ticket, Ticket | nn.Module):
        raise ValueError(f"a ticket or a network is written, not {shown(ticket)}")
    if images is not None and not isinstance(images, Images):
        raise ValueError(f"images must be a set of images, for example dataset.test, not {shown(images)}")
    if images is not None and not len(images):
        raise ValueError("there are no images to compare the outputs on")
    if not isinstance(path, str | Path):
        raise ValueError(f"the file must be a path that ends with .onnx, not {shown(path)}")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"the file must end with .onnx, not {path.name!r}")
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; allowed: compact, masked, dense")
    check_libraries()
    [(_, network)] = forms_of(ticket, multiple, [form])
    if shape is None:
        images = load("cifar10-mini").test if images is None else images
        check_takes(network, images.shape)
        some = images.take(torch.arange(min(CHECKED, len(images))))
        pixels = normalise(some.images.cpu(), some.mean, some.std).contiguous()
    else:
        check_takes(network, shape)
        pixels = torch.randn(CHECKED, *shape, generator=torch.Generator().manual_seed(0))
    off = 0.0

    def fill(part: Path) -> None:
        nonlocal off
        off = _written(network, pixels, part)

    write_whole(path, fill)
    size = path.stat().st_size / 1e6
    kind = "images" if shape is None else "random images"
    about = f"{path.name}: {size:.2f} MB, outputs within {off:.1g} of PyTorch's on {len(pixels)} {kind}."
    if not (timed and isinstance(ticket, Ticket)):
        return about
    how: dict[str, Any] = {"runtime": "onnx", "multiple": multiple, "device": "cpu", "threads": (1,), "rounds": 5}
    table = speed(ticket, shape=pixels.shape[1:], **how)
    untrained = "Its weights are the initial ones: to bring a trained network out, give that in the ticket's place."
    return f"{about} {untrained} In ONNX Runtime, one thread: {in_words(table)}"


def _written(network: nn.Module, pixels: torch.Tensor, path: Path) -> float:
    """Write the file, and return the largest difference of outputs, a fraction of the largest output."""
    with torch.inference_mode():
        expected = network(pixels)
    if not isinstance(expected, torch.Tensor):
        raise ValueError(f"the network gives a {type(expected).__name__}; a tensor is expected: wrap the network")
    write(network, pixels[:2], path)
    [found] = session(path, 1).run(None, {"images": pixels.numpy()})
    off = float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not off < CLOSE:
        raise ValueError(f"ONNX Runtime's outputs differ from PyTorch's by {off:.2g} of the largest: nothing is kept")
    return off
