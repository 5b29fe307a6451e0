"""The wheel, outside the repository: what it holds, and that its first cell is all that a notebook needs."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import papermill
import pytest

import colt_core as cc
from colt_core import cli, workbook

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "colt_core", "notebooks", "figures", "results")
READ = ("small", "world", "official")


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without the network in a folder that leaves the repository alone."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than 77: pip install -U setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), "."], cwd=source, check=True, capture_output=True)
    return next(out.glob("colt_workbook-*.whl"))


def test_the_wheel_holds_what_a_user_needs_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (("notebooks", "*.ipynb"), ("figures", "*.png"), ("figures", "*.csv")):
        assert {f"colt_core/book/{folder}/{path.name}" for path in (ROOT / folder).glob(pattern)} <= names
    assert {f"colt_core/studies/ready/{path.name}" for path in workbook.STUDIES.glob("*.yaml")} <= names
    for study in READ:
        for path in (ROOT / "results" / study / "store").glob("*/records.jsonl"):
            assert f"colt_core/book/{path.relative_to(ROOT)}" in names
    assert {name.split("/")[0] for name in names} == {"colt_core", f"colt_workbook-{cc.__version__}.dist-info"}
    stored = {name.split("/")[3] for name in names if "/store/" in name}
    decided = {path.parent.name for path in (ROOT / "results").glob("*/decided.csv")}
    assert stored == {*READ, *decided}, "the records of other studies would make it larger"
    tickets = {name.split("/")[3] for name in names if name.endswith(".safetensors")}
    assert tickets <= set(READ), "the tickets of other studies would make it several times as large"
    assert wheel.stat().st_size < 50e6


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A virtual environment that has our dependencies, borrowed from this one, but not this project."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root / "venv", symlinks=True)
    borrowed = root / "borrowed"
    borrowed.mkdir()
    for path in map(Path, dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))):
        for entry in path.iterdir():
            if entry.suffix != ".pth" and not re.search("colt_(workbook|core)", entry.name):
                (borrowed / entry.name).symlink_to(entry)
    python = root / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    Path(site.strip(), "borrowed.pth").write_text(f"{borrowed}\n")
    return python


def test_the_first_cell_installs_and_the_second_finds_all_it_needs(wheel, bare, tmp_path):
    """As on Colab: the notebook alone, in a Python without this project; the wheel's folder stands for the index."""
    lines = ["from IPython.core.interactiveshell import InteractiveShell", "shell = InteractiveShell.instance()"]
    for cell in code_cells(ROOT / "notebooks" / "01_data_splitting.ipynb")[:2]:
        lines.append(f"shell.run_cell({cell.source!r}).raise_error()")
    lines += ["import colt_core as cc", "from colt_core import cli", "print('FROM', cc.__file__)"]
    lines += ["print('STORE', cc.workbook.reference())", "cli.main(['notebooks', 'w'])"]
    lines += ["import json", "said = cc.report.predictions(cc.workbook.reference())"]
    lines += ["gained = cc.report.answered_gains(cc.workbook.reference())"]
    lines += ["print('SAID', json.dumps([said['verdict'].tolist(), sorted(set(gained['study']))]))"]
    (tmp_path / "as_colab.py").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLT_STORE")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "IPYTHONDIR": str(tmp_path / "ipython")}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    before = subprocess.run([bare, "-c", "import colt_core"], cwd=tmp_path, env=environment, capture_output=True)
    assert before.returncode, "the bare environment has the project already: nothing would be tested"
    done = subprocess.run([bare, "as_colab.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    prefix = re.escape(str(bare.parent.parent))
    assert re.search(rf"FROM {prefix}/.*colt_core/__init__\.py", done.stdout)
    records = Path(re.search(rf"STORE ({prefix}/.*colt_core/book/results)", done.stdout)[1]) / "small" / "store"
    tickets = {path.parent.name for path in records.glob("*/round-01.safetensors")}
    assert tickets, "notebook 00 shows COLT's tickets"
    assert all(json.loads((records / t / "experiment.json").read_text())["method"] == "colt" for t in tickets)
    said, gained = (report(ROOT / "results") for report in (cc.report.predictions, cc.report.answered_gains))
    told = json.loads(re.search("SAID (.*)", done.stdout)[1])
    assert told == [said["verdict"].tolist(), sorted(set(gained["study"]))], "what is decided is not told here"
    assert len(said)
    assert (bare.parent / "colt").exists()
    for path in NOTEBOOKS:
        assert (tmp_path / "w" / "notebooks" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_reads_nothing_of_the_repository(path):
    assert not [cell.source for cell in code_cells(path) if "../" in cell.source], "there is none on Colab"


def test_colt_notebooks_writes_them_out_and_never_over_anything(tmp_path, capsys):
    assert cli.main(["notebooks", str(tmp_path / "book")]) == 0
    assert str(tmp_path / "book" / "notebooks") in capsys.readouterr().out
    names = {path.relative_to(tmp_path / "book").as_posix() for path in (tmp_path / "book").rglob("*")}
    assert {
        "notebooks/00_start_here.ipynb",
        "figures/00_recovered.csv",
        "studies/mini.yaml",
        "results/PLAN.md",
    } <= names
    assert not [name for name in names if "/store" in name], "the records stay where they are"
    edited = tmp_path / "book" / "notebooks" / "00_start_here.ipynb"
    edited.write_text("mine")
    assert cli.main(["notebooks", str(tmp_path / "book")]) == 2
    assert "not empty" in capsys.readouterr().err and edited.read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert cli.main(["notebooks", str(tmp_path / "file" / "below")]) == 2  # and nothing is left beside it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book", "file"]


def test_the_reference_runs_are_the_workbooks_own_or_those_that_are_named(tmp_path):
    assert workbook.reference("") == ROOT / "results" and workbook.reference(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere: give the one that holds <study>/store"):
        workbook.reference(tmp_path / "nowhere")


# --- start in one click ---


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_opens_on_colab_and_says_what_its_parameters_are(path):
    notebook = nbformat.read(path, as_version=4)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    spec = importlib.util.spec_from_file_location("repository", ROOT / "tools" / "repository.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    badge = tool.badge(project["urls"]["Repository"], path.stem)
    assert badge in notebook.cells[0].source.splitlines(), "renew with: python tools/repository.py"
    assert notebook.metadata["accelerator"] == "GPU"
    first = code_cells(path)[0].source
    assert f'"install --quiet {project["name"]}"' in first and 'find_spec("colt_core")' in first
    found = papermill.inspect_notebook(str(path))
    assert found and all(p["inferred_type_name"] != "None" and p["help"] for p in found.values())
    values = {}
    exec(first, values)  # where the project is installed, the first cell does nothing else than this
    for name, about in found.items():
        kind = about["inferred_type_name"]
        assert isinstance(values[name], {"str": str, "int": int, "float": float}.get(kind, list)), (
            f"{name} is no {kind}"
        )


def test_the_container_and_the_binder_take_cpu_wheels_and_this_project():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    binder = (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
    assert "whl/cpu" in container["postCreateCommand"] and "-e '.[" in container["postCreateCommand"]
    assert any("whl/cpu" in line for line in binder) and "-e ." in binder
    least = tuple(
        map(int, re.findall(r"\d+", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]))
    )
    runtime = (ROOT / ".binder" / "runtime.txt").read_text().strip()
    assert tuple(map(int, runtime.removeprefix("python-").split("."))) >= least
