"""All tests, notebooks included, work in a fresh store and output folder: no old result can pass for a new one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import nbval.kernel
from traitlets import default

# What tests write lies in memory where there is room: a disk would take a tenth of their time.
_MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 4 << 30:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

if "PYTEST_XDIST_WORKER" in os.environ:  # the notebooks of all of pytest's processes share one store
    _FOLDER = None
else:
    _FOLDER = tempfile.TemporaryDirectory(prefix="colt-test-")
    os.environ["COLT_STORE"] = os.path.join(_FOLDER.name, "store")
    os.environ["COLT_OUT"] = os.path.join(_FOLDER.name, "out")

_DATA = None
if "COLT_DATA" not in os.environ:  # what tests prepare is not kept; what lies prepared is read where it is
    _DATA = tempfile.TemporaryDirectory(prefix="colt-data-")
    os.environ["COLT_DATA"] = _DATA.name
    _KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "colt"
    for _file in _KEPT.glob("*.safetensors"):
        (Path(_DATA.name) / _file.name).symlink_to(_file)
# Several processes of tests, each with a thread a core, and their workers, would wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MPLBACKEND", None)  # the notebooks choose their own
os.environ["PYTHONWARNINGS"] = "ignore"

_KERNELS = None
if _FOLDER is not None and hasattr(socket, "send_fds"):  # kernels are forked, see tests/warm.py
    _WARM, _PLACE = Path(__file__).parent / "tests" / "warm.py", os.path.join(_FOLDER.name, "kernels.socket")
    _KERNELS = subprocess.Popen([sys.executable, _WARM, "serve", _PLACE], stdin=subprocess.PIPE, start_new_session=True)
    _SPECIFICATION = Path(_FOLDER.name) / "kernels" / "python3" / "kernel.json"
    _SPECIFICATION.parent.mkdir(parents=True)
    _START = [sys.executable, "-S", "-E", str(_WARM), _PLACE, "-f", "{connection_file}"]
    _SPECIFICATION.write_text(json.dumps({"argv": _START, "display_name": "Python 3", "language": "python"}))
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [_FOLDER.name, os.environ.get("JUPYTER_PATH")]))

if os.name == "posix":

    class _Sockets(nbval.kernel.KernelManager):
        """Kernels over sockets that are files: a TCP port is chosen seconds before the kernel binds it, and another
        of pytest's processes may take it in between ("Kernel died before replying to kernel_info").
        """

        @default("transport")
        def _transport(self):
            return "ipc"

        @default("ip")
        def _place(self):
            return tempfile.mkdtemp(prefix="colt-kernel-", dir=os.path.dirname(os.environ["COLT_STORE"])) + "/socket"

    nbval.kernel.KernelManager = _Sockets


# The longest first, so that pytest's processes end together: the browser beside the notebooks that train most, of
# which others look up what they need. What is not named comes afterwards, in its usual order.
LONG = ["test_browser.py", "test_site.py", "06_controls.ipynb", "04_transfer.ipynb", "test_kills.py", "test_copies.py"]
LONG += ["14_beyond_colt.ipynb", "11_elastic.ipynb", "08_dual_ticket.ipynb", "12_generative.ipynb"]
LONG += [
    "07_kd_ticket.ipynb",
    "test_widgets.py",
    "test_experiments.py",
    "test_variants.py",
    "test_workbook.py",
    "05_tables.ipynb",
]
LONG += ["02_cycles.ipynb", "test_resume.py", "test_live.py", "test_cluster.py"]
LONG += ["test_keep_results.py", "15_your_own.ipynb", "test_own_networks.py"]


SIDE = 8  # pixels of the images that notebooks train on here
LARGER = {"12_generative.ipynb": "cifar10-mini@16:0-3"}  # its encoder halves an image four times


def pytest_collection_modifyitems(items):
    notebooks = [item for item in items if hasattr(item, "cell")]
    preset = _some_of_mini() if notebooks else ""
    for item in notebooks:
        if "01_" not in item.path.name:  # trains nothing, and looks at all ten classes
            _put_preset(item.cell, preset, item.path.name)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _some_of_mini():
    """Write the study `mini` with two of its three seeds, half of its epochs, four of its ten classes, small images.

    That is a small part of the work, and enough for means, tests and intervals. Returns the path.
    """
    import yaml

    import colt_core as cc

    content = yaml.safe_load((Path(cc.__file__).parent / "studies" / "ready" / "mini.yaml").read_text())
    content["base"]["recipe"] = cc.Recipe.named("mini").changed(epochs=1, batch_size=128).model_dump(mode="json")
    content["base"]["dataset"] = f"cifar10-mini@{SIDE}:0-3"
    content["transfer"]["among"] = [f"cifar10-mini@{SIDE}:0-4", f"cifar10-mini@{SIDE}:5-9"]
    content["seeds"] = [0, 1]
    path = Path(os.environ["COLT_STORE"]).parent / "mini.yaml"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        yaml.safe_dump(content, file, sort_keys=False)
    os.replace(file.name, path)  # each of pytest's processes does it, with the same bytes
    return str(path)


def _put_preset(cell, preset, notebook):
    """Set the parameter as papermill would, after the cell that has them, and what it changes in outputs that count."""
    if "parameters" in cell.metadata.get("tags", ()) and "preset: str = " in cell.source:
        cell.source += f"\npreset, data = {preset!r}, {LARGER.get(notebook, '')!r}"
        cell.source = cell.source.replace("seconds: float = 0.1", "seconds: float = 0.01")
        # Several notebooks run at once: workers of their own would only take turns with each other.
        cell.source += "\nimport os\n\nos.environ['COLT_WORKERS'] = '1'"
    for output in (output for output in cell.get("outputs", ()) if "text" in output):
        output.text = (
            output.text.replace("seeds [0, 1, 2]", "seeds [0, 1]")
            .replace("rewind 0 against 56", "rewind 0 against 3")
            .replace("takes 56 steps", "takes 3 steps")
            .replace("parts 2 against 5", "parts 2 against 4")
            .replace("cifar10-mini:", f"cifar10-mini@{SIDE}:")
            .replace("training images of 32 x 32", f"training images of {SIDE} x {SIDE}")
        )


def pytest_unconfigure(config):
    if _KERNELS is not None:
        _KERNELS.communicate()
    for folder in (_FOLDER, _DATA):
        if folder is not None:
            folder.cleanup()
