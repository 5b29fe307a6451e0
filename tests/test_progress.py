"""The one bar: where it is shown, what it says, and that it is not where nobody looks."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import colt_core as cc
from colt_core import progress
from colt_core.compute.pool import environment
from colt_core.studies import watching


class Told(progress.Bar):
    """A bar that remembers what it was told."""

    shows = True
    said: list = []

    def say(self, text, share):
        self.said.append((text, share))


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(progress, "_kind", lambda wanted: progress.Bar if wanted is False else Told)
    monkeypatch.setattr(Told, "said", [])
    return Told.said


def test_a_bar_is_where_somebody_looks_and_nowhere_else(monkeypatch):
    monkeypatch.delenv(progress.SWITCH, raising=False)
    asked = {"metadata": {}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: asked), execution_count=1)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert progress._kind(None) is progress.Bar  # nbclient, papermill, nbval, nbconvert
    asked["metadata"] = {"cellId": "1", "recordTiming": True}  # as JupyterLab asks
    assert progress._kind(None) is progress._Widget and progress._kind(False) is progress.Bar
    monkeypatch.setenv(progress.SWITCH, "0")
    assert progress._kind(None) is progress.Bar
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    monkeypatch.delenv(progress.SWITCH)
    assert progress._kind(None) is progress.Bar  # a pipe
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert progress._kind(None) is progress._Line


def test_a_headless_run_has_the_same_outputs_as_without():
    import nbformat
    from nbclient import NotebookClient

    code = (
        "from colt_core import progress\nprogress.WAIT = 0\nwith progress.bar() as bar:\n    bar.say('now', 0.5)\n1 + 1"
    )
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)
    NotebookClient(notebook, resources={"metadata": {"path": str(Path(cc.__file__).parent.parent)}}).execute()
    assert [output.output_type for output in notebook.cells[0].outputs] == ["execute_result"]


def test_within_a_bar_there_is_no_other(told):
    with progress.bar() as outer, progress.bar() as inner:
        assert outer.shows and not inner.shows
    with progress.bar() as again:
        assert again.shows
    assert environment()[progress.SWITCH] == "0"  # of a worker


def test_a_line_says_what_runs_and_is_gone_at_the_end(monkeypatch):
    monkeypatch.setattr(progress, "WAIT", 0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.bar(True) as line:
        line.say("round 3, 41 % dense", 0.25)
    assert "25% |###" in sys.stderr.getvalue() and "round 3, 41 % dense" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().rpartition("dense")[2].strip() == ""


def test_a_study_says_which_experiments_run_how_far_they_are_and_how_many_are_done(told, folder, tmp_path, monkeypatch):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.5, "recipe": recipe}
    jobs = [cc.Experiment(method=name, scores=(0.5,), **fields) for name in ("colt", "imp")]
    store = cc.open_store(tmp_path)
    board = watching._Board(jobs, store, Told())
    seen = []

    def look(record):
        with store.claim(f"{record['experiment']}/experiment"):
            board.tell()
        seen.append(board.shares[0])

    cc.run(jobs[0], tmp_path, "cpu", callback=look, progress=False)
    assert seen == sorted(seen) and 0 < seen[-2] < 1
    texts = [text for text, _ in told]
    assert any(f"colt {folder} seed 0, round 1, " in text and "% dense" in text for text in texts)
    board.tell()
    assert told[-1][0].startswith("1 of 2 done") and 0.3 < told[-1][1] < 0.9
    cc.run(jobs[1], tmp_path, "cpu", progress=False)
    board.tell()
    assert told[-1] == ("2 of 2 done", 1.0)


def test_what_is_left_is_told_at_the_pace_so_far():
    assert progress.left(10, 0.5) == "10 s left" and progress.left(600, 0.25) == "30 min left"
    assert progress.left(10, 0.5, waited=4) == "6 s left"
    assert progress.left(1, 0.5) == "" and progress.left(100, 0.001) == ""
