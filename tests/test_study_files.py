"""What a study's file may hold, what is refused in one line before anything is computed, and what `study` takes."""

import os
import sys

import pytest
import yaml

import colt_core as cc
from colt_core.studies.reading import MOST_BYTES, STUDIES, read_text
from colt_core.studies.study import Study

HEAD = "title: t\nbase: {}\nmethods: {colt: {}}\n"
LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title: t\nbase: {seed: 3}\nmethods: {colt: {}}", "base: seed belongs in `seeds`"),
        ("title: t\nbase: {}\nmethods: {colt: {seed: 3}}", "methods: seed belongs in `seeds`"),
        ("title: t\nbase: {method: imp}\nmethods: {colt: {}}", "base: method belongs in `methods`"),
        (HEAD + "pieces: [{name: a, base: {seed: 3}}]", "base: seed belongs in `seeds`"),
        ("title: t\nbase:\n  rate: 0.3\n  rate: 0.2\nmethods: {colt: {}}", "line 4: the key 'rate' stands there twice"),
        ("title: t\nbase: {}\nbase: {}\nmethods: {colt: {}}", "line 3: the key 'base' stands there twice"),
        ('{"title": "t",\n "base": {},\n "base": {}, "methods": {"colt": {}}}', "line 3: the key 'base' stands there"),
        (LAUGHS + HEAD, "more than 10,000 values"),
        ("title: &t [*t]\nbase: {}\nmethods: {colt: {}}", "nested too deeply"),
        (HEAD + f"grid: {'[' * 40}{']' * 40}", "nested too deeply"),
        (HEAD + f"grid: {'[' * 9000}", "nested too deeply"),
        (HEAD + f"# {'x' * MOST_BYTES}", "is larger than 100,000 bytes"),
        (HEAD + "seeds: [010]", "line 4: '010' is no decimal number"),
        (HEAD + "seeds: [1_0]", "line 4: '1_0' is no decimal number"),
        (HEAD + "seeds: [1:30]", "line 4: '1:30' is no decimal number"),
        (HEAD + "1: 2", "keys must be text, not 1"),
        (HEAD + "grid: [1]", "grid"),
        (HEAD + "grid: {parts: 3}", "grid"),
        (HEAD + "pieces: [{name: a, base: [1]}]", "base of the piece 'a' must be a mapping, not \\[1\\]"),
        (HEAD + "pieces: [{name: a, pieces: [{name: b}]}]", "unknown key 'pieces'; allowed: name, title"),
        ("title: t\nbase: {network_args: {born: 2020-01-01}}\nmethods: {colt: {}}", "base: must be JSON"),
        ("title: t\nbase: {}\nmethods: {colt: {method: [imp]}}", "method must be text"),
        ("title: 2020-13-45\nbase: {}\nmethods: {colt: {}}", "is no YAML"),
        (f"title: {'9' * 5000}\nbase: {{}}\nmethods: {{colt: {{}}}}", "study.yaml is no YAML"),
        (HEAD + f"seeds: {list(range(999))}\ngrid: {{rate: {[0.1] * 99}}}", "98,901 experiments are too many"),
        (HEAD + "name: ../../escaped", "'../../escaped' is no name"),
        (HEAD + 'name: "a\\nb"', r"'a\\nb' is no name"),
        (HEAD + 'name: "a\\0b"', "is no name"),
        (HEAD + "name: a/b", "'a/b' is no name"),
        (HEAD + "name: .hidden", "'.hidden' is no name: letters, digits, - _ and . are allowed"),
        (HEAD + "name: a$HOME", "is no name"),
        (HEAD + "name: ''", "is no name"),
        (HEAD + f"name: {'a' * 101}", "is no name"),
        (HEAD + "pieces: [{name: ../up}]", "'../up' is no name"),
        (HEAD + "pieces: [{name: a/b}]", "'a/b' is no name"),
    ],
)
def test_a_study_file_with_a_mistake_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Study.named(str(path))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000


def test_what_a_study_writes_in_yaml_is_read_as_it_is_meant(tmp_path):
    """Anchors say a thing once; 3e-3 is a number, as in Python and JSON."""
    content = "title: t\nbase: {recipe: &short {epochs: 1, learning_rate: 3e-3, weight_decay: 1E-4}}\n"
    content += "methods: {colt: {}, imp: {recipe: *short, rate: 2e-1}}"
    (tmp_path / "an own study (2).yaml").write_text(content)
    study = Study.named(str(tmp_path / "an own study (2).yaml"))
    assert study.name == "an_own_study_2_" and study.experiment("imp").rate == 0.2
    short = {"epochs": 1, "learning_rate": 0.003, "weight_decay": 0.0001}
    assert study.title == "t"
    assert study.base["recipe"] == study.methods["imp"]["recipe"] == short


OWN = """import colt_core as cc

def net(classes, width=4):
    return cc.build("conv3", classes, width=width)
"""


@pytest.fixture
def places():
    """Leave import paths and modules as they were."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_study_needs_no_title_a_method_no_changes_and_a_grid_takes_options_of_ones_own(tmp_path):
    content = "base: {}\nmethods:\n  imp:\n  'toys:FILTERS': {}\ngrid: {least: [2, 3]}\n"
    (tmp_path / "filters.yaml").write_text(content)
    study = Study.named(str(tmp_path / "filters.yaml"))
    assert study.title == "filters" and study.experiment("imp").rate == 0.2
    assert [(e.method, e.options.get("least")) for e in study.experiments()] == [
        ("imp", None), ("toys:FILTERS", 2), ("toys:FILTERS", 3)
    ]  # fmt: skip


def test_an_option_that_an_arm_gives_itself_stays_however_it_is_written():
    plain, nested = {"pooling": "smallest"}, {"options": {"pooling": "smallest"}}
    for own in (plain, nested):
        arms = {"smallest": {"method": "consensus", **own}, "consensus": {}}
        study = Study(name="s", title="s", base={}, methods=arms, grid={"pooling": ["mean"]})
        assert [e.options["pooling"] for e in study.experiments()] == ["smallest", "mean"]
        study = Study(name="s", title="s", base={"pooling": "mean"}, methods={"smallest": arms["smallest"]})
        assert [e.options["pooling"] for e in study.experiments()] == ["smallest"]


def test_code_beside_a_study_is_found_wherever_the_study_is_read_and_hides_nothing(folder, tmp_path, places):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "beside_it.py").write_text(OWN)
    (tmp_path / "studies" / "json.py").write_text("raise RuntimeError('hides Python's own')")
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json")
    base = {"dataset": str(folder), "network": "beside_it:net", "rate": 0.3, "target": 0.3, "recipe": recipe}
    content = {"title": "json:dumps is no module that this names", "base": base, "methods": {"colt": {}}}
    path = tmp_path / "studies" / "own.yaml"
    path.write_text(yaml.safe_dump(content | {"seeds": [0, 1]}))
    study = Study.named(str(path))
    assert sys.path[-1] == str((tmp_path / "studies").resolve()) and study.base["network"] == "beside_it:net"
    frame = cc.study(study.experiments(), tmp_path / "store", device="cpu", workers=2)  # other processes find it too
    assert set(frame["seed"]) == {0, 1} and set(frame["network"]) == {"beside_it:net"}
    assert Study.named(str(path)) == study and sys.path.count(sys.path[-1]) == 1


def test_code_beside_a_study_that_has_the_name_of_other_code_is_refused_in_one_line(tmp_path, places):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nets.py").write_text(OWN)
        (tmp_path / name / "json.py").write_text(OWN)
    before = list(sys.path)
    (tmp_path / "one" / "s.yaml").write_text("title: t\nbase: {network: 'json:net'}\nmethods: {colt: {}}\n")
    with pytest.raises(ValueError, match="json would be imported from .*json.__init__.py, not from .*json.py: rename"):
        Study.named(str(tmp_path / "one" / "s.yaml"))
    assert sys.path == before
    for name in ("one", "other"):
        (tmp_path / name / "s.yaml").write_text("title: t\nbase: {network: 'nets:net'}\nmethods: {colt: {}}\n")
    Study.named(str(tmp_path / "one" / "s.yaml"))
    with pytest.raises(ValueError, match="nets would be imported from .*one.nets.py, not from .*other.nets.py: rename"):
        Study.named(str(tmp_path / "other" / "s.yaml"))


def test_a_path_that_is_no_file_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zeros.yaml").symlink_to("/dev/zero")
    for name in ("folder.yaml", "pipe.yaml", "zeros.yaml", "missing.yaml", "a\0b.yaml", "x" * 5000 + ".yaml"):
        with pytest.raises(ValueError, match="there is no study file") as caught:
            Study.named(str(tmp_path / name))
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "study.yaml").write_text(HEAD)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=r"study\.yaml cannot be read \(Permission denied\)"):
        read_text(tmp_path / "study.yaml")


# --- what is never reached ---


def changed(tmp_path, **update):
    content = yaml.safe_load((STUDIES / "mini.yaml").read_text())
    content["base"] |= update.pop("base", {})
    path = tmp_path / "lower.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (content | update).items() if v is not None}))
    return str(path)


def test_scores_beyond_every_target_are_refused_when_a_study_is_read(tmp_path):
    with pytest.raises(ValueError, match="a score at 0.8 lies beyond the target 0.5: no round comes to it") as caught:
        Study.named(changed(tmp_path, base={"target": 0.5}))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="a score at 0.9 lies beyond the target 0.5"):
        Study.named(changed(tmp_path, base={"target": 0.5, "scores": [0.4]}, transfer={"scores": [0.9]}))
    with pytest.raises(ValueError, match="a score at 0.8 lies beyond the target 0.6"):
        Study.named(changed(tmp_path, transfer={"target": 0.6, "scores": [0.4, 0.8]}))
    with pytest.raises(ValueError, match="a score at 0.4 lies beyond the target 0.3"):
        Study.named("mini").changed(base={"target": 0.3, "scores": [0.4]}, transfer=None).carried_scores  # noqa: B018


def test_a_study_that_stops_early_has_the_levels_that_are_reached(tmp_path):
    study = Study.named(changed(tmp_path, base={"target": 0.5, "scores": []}, transfer=None))
    assert study.levels == study.carried_scores == [0.5]
    study = Study.named(changed(tmp_path, base={"target": 0.85, "scores": []}, transfer=None))
    assert study.levels == [0.8, 0.85]
    # One arm counts all weights, so that more of the prunable ones go than its target says.
    official = Study.named("official")
    assert official.levels == [0.86, 0.92] and official.carried_scores == [0.86]


# --- study() ---


def test_study_takes_one_experiment_as_a_list_of_one(folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    one = cc.Experiment(dataset=str(folder), method="dense", network_args={"width": 4}, recipe=recipe)
    frame = cc.study(one, tmp_path, workers=1)
    assert set(frame["experiment"]) == {one.hash} and frame.equals(cc.study([one], tmp_path))
    assert frame.equals(cc.study(iter((one,)), tmp_path))


@pytest.mark.parametrize("wrong", [5, [5], "mini", [cc.Experiment(), "colt"], [Study.named("mini")], {"rate": 1}])
def test_study_refuses_what_is_no_experiment_in_one_line(wrong, tmp_path):
    with pytest.raises(ValueError, match="experiments are taken, or a Study, not ") as caught:
        cc.study(wrong, tmp_path)
    assert len(str(caught.value).splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_study_of_nothing_is_an_empty_frame_with_the_usual_columns(tmp_path):
    frame = cc.study([], tmp_path)
    assert not len(frame) and {"kind", "experiment", "dataset", "method", "round", "density", "accuracy"} <= set(frame)
    assert frame.to_dict("records") == []
