"""All tests, notebooks included, work in a fresh store and output folder: no old result can pass for a new one."""

import os
import tempfile

if "PYTEST_XDIST_WORKER" in os.environ:  # the notebooks of all of pytest's processes share one store
    _FOLDER = None
else:
    _FOLDER = tempfile.TemporaryDirectory(prefix="colt-test-")
    os.environ["COLT_STORE"] = os.path.join(_FOLDER.name, "store")
    os.environ["COLT_OUT"] = os.path.join(_FOLDER.name, "out")
os.environ.pop("MPLBACKEND", None)  # the notebooks choose their own
os.environ["PYTHONWARNINGS"] = "ignore"


def pytest_unconfigure(config):
    if _FOLDER is not None:
        _FOLDER.cleanup()
