import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import yaml
from safetensors.torch import save_file
from waiting import PATIENCE

import colt_core as cc
from colt_core import workbook

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "unknown preset 'huge'; allowed: mini, official, paper, small, world"),
        (["--data", "mnist"], "unknown data set 'mnist'; allowed: cifar10-mini"),
        (["--seeds", "0,x"], "seeds must be whole numbers from 0, for example 0,1,2, not 'x'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_writes_nothing(arguments, message, tmp_path, capsys):
    assert workbook.main(["--notebooks", str(NOTEBOOKS), "--out", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and not said.out
    assert not list(tmp_path.iterdir())


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "colt_core.workbook", "--out", str(tmp_path), "--seeds", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and done.stderr.startswith("error: seeds must be whole numbers")


def test_a_folders_name_may_hold_spaces(tmp_path, monkeypatch):
    (tmp_path / "pics #2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert workbook.data_sets("pics #2") == ["pics #2"]
    assert workbook.data_sets("pics #2; cifar10;") == ["pics #2", "cifar10"]
    for text in (" cifar10  cifar100 ", "cifar10;cifar100", "cifar10; cifar100"):
        assert workbook.data_sets(text) == ["cifar10", "cifar100"]
    assert workbook.data_sets("") == workbook.data_sets(" ; ") == []


def test_an_interrupt_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workbook, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert workbook.main(["--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.startswith("stopped; what was finished is kept")


def test_papermill_cannot_pass_a_parameter_that_the_notebook_does_not_know(tmp_path):
    import papermill

    source, target = NOTEBOOKS / "01_data_splitting.ipynb", tmp_path / "out.ipynb"
    quiet = {"progress_bar": False, "cwd": str(NOTEBOOKS)}
    with pytest.raises(
        papermill.PapermillExecutionError, match=r"unknown parameter presett; allowed: preset, seed, data"
    ):
        papermill.execute_notebook(source, target, {"presett": "mini"}, **quiet)


def test_a_notebook_that_fails_is_one_line(tmp_path):
    problem = workbook.execute(NOTEBOOKS / "01_data_splitting.ipynb", tmp_path / "o.ipynb", {"preset": "huge"}, 100)
    assert problem.endswith(
        "ValueError: unknown preset 'huge'; allowed: mini, official, paper, small, world, or a YAML or JSON file"
    )
    assert (tmp_path / "o.ipynb").exists()


def test_a_cell_that_takes_too_long_is_one_line(tmp_path):
    cell = nbformat.v4.new_code_cell("import time; time.sleep(60)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "slow.ipynb")
    problem = workbook.execute(tmp_path / "slow.ipynb", tmp_path / "o.ipynb", {}, 2)
    assert "\n" not in problem and "Timeout" in problem


@pytest.fixture
def tiny(tmp_path, monkeypatch, mini):
    """A few images as a prepared TinyImageNet: 64 pixels, four classes."""
    monkeypatch.setenv("COLT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    tensors = {}
    for part, images in (("train", mini.train), ("test", mini.test)):
        few = torch.cat([(images.labels == label).nonzero().flatten()[:40] for label in range(4)])
        tensors[f"{part}_images"] = images.images[few].repeat_interleave(2, 2).repeat_interleave(2, 3)
        tensors[f"{part}_labels"] = images.labels[few].clone()
    digest = hashlib.sha256(tensors["train_images"].numpy().tobytes() + tensors["test_images"].numpy().tobytes())
    about = {"name": "tinyimagenet", "classes": json.dumps(["n01", "n02", "n03", "n04"]), "sha256": digest.hexdigest()}
    save_file(tensors, tmp_path / "data" / "tinyimagenet.safetensors", about)
    return tensors


def test_a_batch_of_data_sets_and_seeds_is_run_headless_and_brought_together(tmp_path, monkeypatch, capsys, tiny):
    """The last notebook of the spine on a smaller study: two data sets, one of 64 pixels, one table."""
    content = yaml.safe_load((Path(cc.__file__).parent / "studies" / "ready" / "mini.yaml").read_text())
    content["base"] |= {"network_args": {"width": 4}, "rate": 0.4, "target": 0.5, "scores": [0.5]}
    content["methods"] = {"dense": {"scores": []}, "colt": {}, "matched": {}, "imp": {"rate": 0.4}, "random": {}}
    content["base"]["recipe"] = {
        "epochs": 1,
        "batch_size": 32,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "rotation": 0,
    }
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(content))
    for name in ("COLT_STORE", "COLT_OUT"):
        monkeypatch.setenv(name, str(tmp_path / "store"))
    monkeypatch.setenv("COLT_WORKERS", "1")  # starting more processes takes longer than these trainings
    monkeypatch.setattr(workbook, "SPINE", ("05_tables",))
    names = ["cifar10-mini:0-3", "tinyimagenet"]
    assert workbook.run(str(study), [0], names, NOTEBOOKS, tmp_path / "out") == 0
    printed, out = capsys.readouterr().out, tmp_path / "out" / "tiny" / "seeds-0"  # the study has others
    table = (out / "main_table.md").read_text()
    assert all(name in table for name in names) and table.count("| conv3") == 10
    told = (out / "tinyimagenet" / "05_tables.ipynb").read_text()
    assert "tinyimagenet (144 training images)" in told, "how much of the data set was at hand"
    assert table.strip() in printed and printed.count("done in") == 2
    assert len(list(out.glob("*/05_tables.ipynb"))) == len(list(out.glob("*/05_tables.png"))) == 2
    assert all(str(path.name) in printed for path in out.rglob("*.png"))


def test_cleaned_notebooks_hold_nothing_of_the_run():
    cell = {"cell_type": "code", "metadata": {"papermill": {"duration": 1}, "tags": ["parameters"]}, "outputs": []}
    text = json.dumps({"cells": [cell], "metadata": {"papermill": {"input_path": "/secret"}}, "nbformat": 4})
    cleaned = workbook.clean(text)
    assert "papermill" not in cleaned and "secret" not in cleaned and "parameters" in cleaned


def test_another_seed_has_a_folder_of_its_own_for_its_figures(monkeypatch, tmp_path):
    """They overwrote those of the usual seed."""
    shell = SimpleNamespace(user_ns={"In": [], "preset": "mini", "seed": 0, "seeds": []})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(workbook, "_OUT", str(tmp_path))
    monkeypatch.setenv("COLT_OUT", "")
    monkeypatch.delenv(workbook.PLACED, raising=False)
    for name, value, folder in (
        ("seed", 0, ""),
        ("seed", 3, "seed-3"),
        ("seed", 0, ""),
        ("seeds", [1, 2], "seeds-1-2"),
    ):
        shell.user_ns[name] = value
        workbook.check_parameters("preset", name)
        assert Path(os.environ["COLT_OUT"]) == tmp_path / folder
    monkeypatch.setenv(workbook.PLACED, "1")
    monkeypatch.setenv("COLT_OUT", "elsewhere")
    workbook.check_parameters("preset", "seeds")
    assert os.environ["COLT_OUT"] == "elsewhere"
