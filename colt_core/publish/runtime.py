"""ONNX Runtime: networks written as ONNX files by PyTorch, and sessions that run them."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..files import scratch
from ..settings import first_line

if TYPE_CHECKING:
    import onnxruntime

NEEDED = ("onnx", "onnxscript", "onnxruntime")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
LACKING = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


def check_libraries() -> None:
    """Raise a `ValueError`, in one line, where a library of the extra `export` is missing."""
    from importlib.util import find_spec

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"ONNX files need {', '.join(missing)}: pip install 'colt-workbook[export]'")


def session_of(network: nn.Module, images: torch.Tensor, threads: int) -> Callable[[], object]:
    """Return what passes images through a network in ONNX Runtime."""
    check_libraries()
    path = scratch() / f"{id(network)}.onnx"
    try:
        write(network, images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1), path)
        opened = session(path, threads)
    finally:
        path.unlink(missing_ok=True)
    given = {"images": images.numpy()}
    return lambda: opened.run(None, given)


def session(path: Path, threads: int) -> "onnxruntime.InferenceSession":
    """Open an ONNX file on the CPU, with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def write(network: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write a network as an ONNX file with a free batch size; `images`: two or more, for their shape.

    Raises
    ------
    ValueError
        In one line, where it cannot be exported: why, or which operator ONNX lacks.
    """
    how: dict[str, Any] = {"input_names": ["images"], "output_names": ["scores"], "dynamo": True, "verbose": False}
    free = ({0: torch.export.Dim("batch")},)
    network = network.cpu().to(memory_format=torch.contiguous_format).eval()
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(network, (images,), str(path), dynamic_shapes=free, external_data=False, **how)
    except Exception as problem:  # of an operator that ONNX lacks, or a forward pass that cannot be exported
        raise ValueError(f"the network cannot be written as ONNX: {_why(problem)}") from None


def _why(problem: BaseException) -> str:
    """Return in a line what an export failed of: the exporter's own words are a page of advice, in colours."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    text = COLOURS.sub("", str(problem)).strip()
    lacking = LACKING.search(text)
    return f"ONNX has no operator {lacking[1]}" if lacking else first_line(text or type(problem).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress, warnings and, of exports that fail, whole programs from the page."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
