"""All tests, notebooks included, work in a fresh store and output folder: no old result can pass for a new one."""

import os
import tempfile

import nbval.kernel
from traitlets import default

if "PYTEST_XDIST_WORKER" in os.environ:  # the notebooks of all of pytest's processes share one store
    _FOLDER = None
else:
    _FOLDER = tempfile.TemporaryDirectory(prefix="colt-test-")
    os.environ["COLT_STORE"] = os.path.join(_FOLDER.name, "store")
    os.environ["COLT_OUT"] = os.path.join(_FOLDER.name, "out")
os.environ.pop("MPLBACKEND", None)  # the notebooks choose their own
os.environ["PYTHONWARNINGS"] = "ignore"

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


# The longest first, so that pytest's two processes end together: the browser beside the notebooks that train most, of
# which others look up what they need. What is not named comes afterwards, in its usual order.
LONG = ["test_browser.py", "06_controls.ipynb", "04_transfer.ipynb", "test_resume.py", "test_copies.py"]
LONG += ["test_widgets.py", "test_experiments.py", "test_workbook.py", "05_tables.ipynb", "02_cycles.ipynb"]
LONG += ["test_live.py", "test_cluster.py", "test_keep_results.py"]


def pytest_collection_modifyitems(items):
    for cell in (item.cell for item in items if hasattr(item, "cell")):
        _take_two_seeds(cell)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _take_two_seeds(cell):
    """Set a notebook's parameter as papermill would, after the cell that has them, and what it says of it in outputs.

    Two seeds are enough for means and intervals, and of all that the tests take a third less.
    """
    if "parameters" in cell.metadata.get("tags", ()) and "seeds = []" in cell.source:
        cell.source += "\nseeds = [0, 1]"
    for output in (output for output in cell.get("outputs", ()) if "text" in output):
        output.text = output.text.replace("seeds [0, 1, 2]", "seeds [0, 1]")


def pytest_unconfigure(config):
    if _FOLDER is not None:
        _FOLDER.cleanup()
