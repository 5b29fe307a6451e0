"""The promises of the repository itself: set-up files agree, notebooks keep their rules, nothing names a machine."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import colt_core as cc

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


# --- set-up ---


def test_environment_pyproject_and_readme_agree():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert environment["channels"] == ["conda-forge"]
    assert python == f"python{PROJECT['requires-python']}" and pip == ["-e .[test]"]
    readme = (ROOT / "README.md").read_text()
    for promised in ("make run", "make test", "make lab", "conda env create -f environment.yml"):
        assert promised in readme
    assert f"conda activate {environment['name']}" in readme
    assert PROJECT["requires-python"].removeprefix(">=") in readme
    assert (
        f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in (ROOT / "tools" / "setup.sh").read_text()
    )


def test_the_readmes_answer_is_the_one_that_notebook_00_computed():
    cells = lambda text: [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    computed = cells((ROOT / "figures" / "00_answer.md").read_text())
    shown = cells((ROOT / "README.md").read_text())
    numbers = [row for row in computed if not set(row[0]) <= set(":-")]
    assert len(numbers) > 3 and all(row in shown for row in numbers), "copy figures/00_answer.md into the README"


def test_the_frame_is_among_the_dependencies():
    names = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    assert {"torch", "torchvision", "jupyterlab", "ipywidgets", "matplotlib", "seaborn", "papermill", "nbval"} <= names


def test_make_alone_lists_the_targets():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"  {target} " in listed for target in ("run", "test", "lab", "app", "figures"))


def stand_in(tmp_path, body):
    """A stand-in for python3 that answers as a machine with a certain lack would."""
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('case "$2" in *exit*) exit 1;; *) echo 3.9;; esac', "Python 3.11 or newer is needed, .* is 3.9"),
        ('case "$2" in *ensurepip*) exit 1;; *exit*) exit 0;; *) echo 3.12;; esac', "install the package python3-venv"),
    ],
    ids=["old Python", "no venv"],
)
def test_a_machine_that_lacks_something_gets_one_clear_line(tmp_path, body, message):
    command = ["sh", str(ROOT / "tools" / "setup.sh"), stand_in(tmp_path, body), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and re.search(message, done.stderr) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_a_machine_without_python_gets_one_clear_line(tmp_path):
    command = ["sh", str(ROOT / "tools" / "setup.sh"), "no-such-python", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: there is no no-such-python")


# --- the package ---


def test_importing_the_core_is_light():
    code = """
import time, torch, numpy, safetensors.torch, pydantic, tqdm
start = time.perf_counter()
import colt_core, sys
heavy = {"torchvision", "matplotlib", "pandas", "seaborn", "scipy", "papermill", "IPython", "yaml"} & set(sys.modules)
print(time.perf_counter() - start, *heavy)
"""
    run = lambda: subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    seconds, *heavy = run()
    assert not heavy
    assert float(seconds) < 2 or float(run()[0]) < 2


def test_a_training_does_not_import_the_compiler():
    """Two seconds in every process that trains, kernels and workers alike."""
    code = """
import colt_core as cc, sys, torch
few = cc.load("cifar10-mini").train.take(torch.arange(64))
network = cc.build("conv3", width=4)
cc.train(network, few, cc.Recipe.named("mini"), device="cpu", validation=few)
cc.models.forward_flops(network)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_modules_import_only_modules_above_them():
    order = ["settings", "seeding", "files", "store", "worker", "data", "augmentation", "masks", "models", "training"]
    order += ["trainings", "copies", "early_bird", "tickets", "methods", "lanes", "experiments", "runs", "cluster"]
    order += ["planning", "saved", "live", "report", "plots", "widgets", "cards", "trackers", "workbook", "cli"]
    for path in sorted((ROOT / "colt_core").rglob("*.py")):
        folder = path.parent.name
        own = folder if folder in ("methods", "plots", "widgets") else path.stem
        if own == "__init__":
            continue
        for node in ast.parse(path.read_text()).body:  # imports inside functions are deferred on purpose
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                for name in (n.split(".")[0] for n in names if n):
                    inside = node.level == 1 and own == folder
                    assert inside or order.index(name) < order.index(own), f"{path.name} imports {name}"


def test_methods_do_not_import_each_other():
    for path in (ROOT / "colt_core" / "methods").glob("[!_]*.py"):
        imported = set(re.findall(r"^from \.(\w+) import", path.read_text(), re.MULTILINE))
        assert imported <= {"cycles"}, path.name


# --- the notebooks ---


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in code]
    assert len(notebook.cells) <= 30
    assert all(len(cell.source.splitlines()) <= 15 for cell in code)
    assert sum("parameters" in t for t in tags) == 1 and "parameters" in tags[0]
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert sum("nbval-check-output" in t for t in tags) >= 2
    assert not any("injected-parameters" in t for t in tags) and "papermill" not in notebook.metadata
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "renew with: make figures"
    assert any("image/png" in o.get("data", {}) for cell in code for o in cell.outputs), "no picture in the outputs"
    for cell, own in zip(code, tags, strict=True):
        shows = [o for o in cell.outputs if o.output_type in ("display_data", "execute_result")]
        assert not (shows and "nbval-ignore-output" not in own), "figures and tables differ between machines"
        assert not any("widget" in kind for o in shows for kind in o.data)
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs)
        for node in ast.walk(ast.parse(cell.source)):
            assert not (isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 8)


def test_the_spine_is_there_and_its_figures_are_committed():
    from colt_core.workbook import APP, AUDIT, SPINE, START

    assert [p.stem for p in NOTEBOOKS] == [START, *SPINE, AUDIT, APP]
    for name in (START, *SPINE, AUDIT):
        saved = re.findall(r'"(\d\d_\w+)"\s*,', (ROOT / "notebooks" / f"{name}.ipynb").read_text().replace('\\"', '"'))
        figures = [n for n in saved if (ROOT / "figures" / f"{n}.png").exists()]
        assert figures, f"{name} has no committed figure"
        assert all((ROOT / "figures" / f"{n}.csv").exists() for n in figures)


# --- what is committed ---


def test_nothing_committed_names_a_machine():
    here = re.compile(
        "|".join([r"/root/\w", r"/home/\w", r"/Users/\w", "files" + r"\.pythonhosted", r"pypi\." + "org"])
    )
    for path in tracked():
        if path.suffix in (".webp", ".png", ".safetensors") or path == Path(__file__):
            continue
        found = here.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_repository_stays_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    assert sum(s for p, s in sizes.items() if "assets" in p.parts) < 10e6
    assert max(s for p, s in sizes.items() if "assets" not in p.parts) < 3e6


def test_temporary_files_are_ignored():
    for name in ("runs/x.jsonl", ".venv/x", "colt_core/.t.safetensors.1.part"):
        done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
        if done.returncode == 128:
            pytest.skip("not a git checkout")
        assert done.returncode == 0, name


def test_each_sparsity_of_the_reference_runs_is_scored_on_another_ticket():
    """A mean over sparsities would count one ticket twice."""
    store = ROOT / "results" / "world" / "store"
    table = cc.report.at_sparsities(cc.report.load(store), cc.Study.named("world").levels)
    tickets = table[(table["finder"] == "colt") & (table["dataset"] == table["scored_on"])]
    found = tickets.groupby(["dataset", "seed"])["sparsity"].nunique()
    assert len(found) == 9 and (found == 3).all()
