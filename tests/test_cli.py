import json
import os
import re
import signal
import subprocess
import sys

import pytest
import toys
import yaml
from waiting import PATIENCE, wait_for

import colt_core as cc
from colt_core.cli import main
from colt_core.files import is_alive
from colt_core.publish import speed
from colt_core.studies.typed import READERS, typed


@pytest.fixture
def study_file(folder, tmp_path):
    content = {
        "title": "pictures",
        "base": {
            "dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.7, "scores": [0.5],
            "recipe": cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json"),
        },
        "methods": {
            "dense": {"scores": []}, "colt": {}, "matched": {},
            "smallest": {"method": "consensus", "pooling": "smallest"},
        },
        "grid": {"parts": [2, 3]},
        "seeds": [0],
    }  # fmt: skip
    path = tmp_path / "pictures.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


WILD = {"optimizer": "sgd", "learning_rate": 1e30, "warmup": 0}


def test_a_study_from_plan_to_tables(study_file, tmp_path, capsys):
    place = ["--store", str(tmp_path / "store"), "--device", "cpu"]
    assert main(["plan", str(study_file), *place, "--workers", "1"]) == 0
    assert "7 experiments" in capsys.readouterr().out, "dense knows no partitions: one, and three methods by two"
    assert main(["status", str(study_file), *place[:2]]) == 0
    shown = capsys.readouterr().out
    assert "0 done, 0 running, 0 begun, 7 waiting" in shown
    arms = [line.split()[0] for line in shown.splitlines() if "waiting 0" in line]
    assert sorted(set(arms)) == sorted(cc.Study.named(str(study_file)).methods), "as the study calls them"
    assert main(["study", str(study_file), *place, "--workers", "1", "--methods", "colt,dense", "--seeds", "0"]) == 0
    assert "3 experiments done" in capsys.readouterr().out
    assert main(["study", str(study_file), *place, "--workers", "2"]) == 0
    assert "7 experiments done" in capsys.readouterr().out
    assert main(["status", str(study_file), *place[:2]]) == 0
    assert "7 done, 0 running, 0 begun, 0 waiting" in capsys.readouterr().out
    assert main(["plan", str(study_file), *place]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert main(["table", str(study_file), "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "COLT (parts 3)" in shown and "| dense" in shown
    hashes = [e.hash for e in cc.Study.named(str(study_file)).experiments()]
    assert not any(name in shown for name in hashes)
    assert "80% sparse" not in shown and "50% sparse" in shown  # the study's own level, and no other
    numbers = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", shown)
    assert numbers and all(len(one.replace(".", "").lstrip("0")) <= 3 for one in numbers)
    assert main(["table", str(study_file), "--store", str(tmp_path / "store"), "--full"]) == 0
    assert any(name in capsys.readouterr().out for name in hashes)
    assert main(["status", "--store", str(tmp_path / "store")]) == 0  # no study: what the store holds
    listed = capsys.readouterr().out
    assert all(name in listed for name in hashes) and max(map(len, listed.splitlines())) < 100
    assert "scored on" in " ".join(listed.split()) and "7 done" in listed
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".csv", ".md", ".tex"}
    assert main(["table", "--store", str(tmp_path / "store"), "--format", "latex"]) == 0
    assert r"\begin{tabular}" in capsys.readouterr().out


def test_one_experiment_its_card_and_its_push(folder, tmp_path, capsys):
    recipe = json.dumps(cc.Recipe.named("mini").changed(epochs=1, batch_size=8).model_dump(mode="json"))
    how = [
        "--dataset",
        str(folder),
        "--network-args",
        "{width: 4}",
        "--rate",
        "0.3",
        "--target",
        "0.5",
        "--recipe",
        recipe,
    ]
    store = tmp_path / "store"
    assert main(["run", *how, "--scores", "[0.3]", "--store", str(store), "--device", "cpu"]) == 0
    assert "accuracy" in capsys.readouterr().out
    ticket = next(store.glob("*/round-01.safetensors"))
    assert main(["card", str(ticket)]) == 0
    assert ticket.with_suffix(".md").exists() or list(ticket.parent.glob("round-01*.md"))
    assert main(["push", str(ticket), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "huge"], "unknown preset 'huge'; allowed: mini, official, paper, small, world"),
        (["study", "mini", "--methods", "magic"], "mini has no method 'magic'; allowed: dense, colt"),
        (["study", "mini", "--seeds", "a"], "seeds must be whole numbers"),
        (["study", "mini", "--workers", "0"], "workers must be a whole number from 1, not 0"),
        (["plan", "mini", "--workers", "-2"], "workers must be a whole number from 1, not -2"),
        (["study", "mini", "--minutes", "0"], "minutes must be positive, not 0"),
        (["study", "paper", "--piece", "vgg"], "paper has no piece 'vgg'; allowed: conv3, resnet18-short"),
        (["plan", "mini", "--methods", "colt", "--transfer"], "give one"),
        (["study", "mini", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "--method", "magic"], "unknown method 'magic'"),
        (["run", "--network-args", "{"], "--network-args is no YAML"),
        (["run", "--network-args", "16"], "--network-args must be a mapping, for example {width: 16}, not '16'"),
        (["run", "--network-args", "{width: 1, width: 2}"], "--network-args, line 1: the key 'width' stands"),
        (["run", "--network-args", "{width: 010}"], "'010' is no decimal number"),
        (["run", "--seed", "0x10"], "--seed must be a whole number, not '0x10'"),
        (["run", "--seed", "1_0"], "--seed must be a whole number, not '1_0'"),
        (["run", "--seed", "1.0"], "--seed must be a whole number, not '1.0'"),
        (["run", "--parts", "true"], "--parts must be a whole number, not 'true'"),
        (["run", "--rate", "nan"], "--rate must be a number, not 'nan'"),
        (["run", "--rate", "0,3"], "--rate must be a number, not '0,3'"),
        (["run", "--target", "1:30.5"], "--target must be a number, not '1:30.5'"),
        (["run", "--scores", "[0.5, x]"], "--scores must be numbers, for example 0.5,0.9, or none, not 'x'"),
        (["run", "--dataset", "pics #2"], "unknown data set 'pics #2'"),
        (["run", "--dataset", "null"], "unknown data set 'null'"),
        (["run", "--recipe", "1"], "unknown recipe '1'"),
        (["run", "--official", "best"], "official"),
        (["run", "--threads", "1_0"], "argument --threads: must be a whole number, not '1_0'"),
        (["study", "mini", "--workers", "2.5"], "argument --workers: must be a whole number, not '2.5'"),
        (["study", "mini", "--minutes", "nan"], "argument --minutes: must be a number, not 'nan'"),
        (["study", "mini", "--minuets", "3"], "unrecognized arguments: --minuets 3; see colt study --help"),
        (["studie"], "invalid choice: 'studie'"),
        (["study"], "the following arguments are required: study; see colt study --help"),
        (["run", "--parts", "99"], "parts must be at most 10"),
        (["run", "--track", "paper:x"], "track must be tensorboard:FOLDER"),
        (["plan", "mini", "--store", "nowhere://x"], "cannot be opened"),
        (["table", "--store", "STORE"], "there are no scores in"),
        (["status", "--store", "STORE", "--seeds", "1"], "--seeds chooses among a study's experiments: name the study"),
        (["table", "--store", "STORE", "--methods", "imp"], "--methods chooses among a study's experiments"),
        (["card", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
    assert main([a.replace("STORE", str(tmp_path)) for a in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and message in shown.err and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("dataset", "pics #2", "pics #2"), ("dataset", " a: b", " a: b"), ("score_on", "no", "no"),
        ("seed", "010", 10), ("parts", "3", 3), ("rate", "1e-1", 0.1), ("target", ".5", 0.5),
        ("scores", "[0.5, .9]", (0.5, 0.9)), ("scores", "0.5,0.9", (0.5, 0.9)), ("scores", "none", None),
        ("scores", "[]", ()), ("official", "best-epoch, all-counted", ("best-epoch", "all-counted")),
        ("network_args", "{width: 16}", {"width": 16}), ("options", '{"pooling": "mean"}', {"pooling": "mean"}),
        ("recipe", "small", "small"), ("recipe", "{epochs: 3, gamma: 3e-1}", {"epochs": 3, "gamma": 0.3}),
        ("objective", "toys:SquaredError", "toys:SquaredError"), ("early_bird", "{}", {}),
        ("densities", "0.5 .25", (0.5, 0.25)), ("finding", "{epochs: 1.5}", {"epochs": 1.5}),
    ],
)  # fmt: skip
def test_a_value_on_the_command_line_is_read_by_the_fields_kind(name, text, value):
    assert typed(name, text) == value and type(typed(name, text)) is type(value)


def test_every_field_has_a_kind():
    assert list(READERS) == [name for name in cc.Experiment.model_fields if name != "code"], "which is filled in"


def test_a_data_set_with_an_odd_name_is_trained_on_by_a_network_from_this_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pics #2").symlink_to(folder)
    (tmp_path / "pics").mkdir()
    (tmp_path / "in_this_folder.py").write_text(
        "import colt_core as cc\n\ndef net(classes):\n    return cc.build('conv3', classes, width=4)\n"
    )
    monkeypatch.chdir(tmp_path)
    how = ["--method", "dense", "--scores", "none", "--device", "cpu", "--store", "own #1"]
    how += ["--network", "in_this_folder:net"]
    assert main(["run", "--dataset", "pics #2", *how]) == 0
    about = json.loads(next((tmp_path / "own #1").glob("*/experiment.json")).read_text())
    assert (about["dataset"], about["network"]) == ("pics #2", "in_this_folder:net")


# --- how it ends ---


def started(*arguments, **how):
    """Start the command, so that an interrupt reaches it wherever the tests themselves were started."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"from colt_core.cli import main; sys.exit(main({list(arguments)!r}))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(signal.SIGTERM, 143, "1"), (signal.SIGTERM, 143, "2"), (signal.SIGTERM, 143, "run"), (signal.SIGINT, 130, "2")],
)
def test_a_signal_ends_it_in_one_line_and_leaves_no_claim_and_no_worker(
    study_file, tmp_path, monkeypatch, number, status, workers
):
    content = yaml.safe_load(study_file.read_text())
    content["base"]["recipe"] |= {"epochs": 10**6}
    study_file.write_text(yaml.safe_dump(content))
    store, recipe = tmp_path / "store", json.dumps(content["base"]["recipe"])
    command = ["study", str(study_file), "--workers", workers]
    if workers == "run":
        command = ["run", "--dataset", content["base"]["dataset"], "--network-args", "{width: 4}", "--recipe", recipe]
    monkeypatch.setenv("COLT_WORKERS", "1" if workers == "1" else "2")  # 1: everything in the process itself
    process = started(*command, "--store", str(store), "--device", "cpu")
    place = cc.open_store(store)
    claims = lambda: [str(path.relative_to(store).with_suffix("")) for path in store.glob("*/*.claim")]
    at_work = lambda: [holder["pid"] for holder in map(place.holder, claims()) if holder]
    # An epoch of a training is in the store: its process is in the midst of the next.
    wait_for(lambda: list(store.glob("trainings/*.epoch*")) or process.poll() is not None)
    pids = {process.pid, *at_work()}
    process.send_signal(number)
    error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == status, error
    assert len(error.splitlines()) == 1 and "what was finished is kept: the same command goes on" in error, error
    wait_for(lambda: not any(is_alive(str(pid)) for pid in pids))
    assert not at_work() and (workers != "1" or not claims())  # those of a worker are void, for it is dead


def test_a_closed_pipe_ends_it_quietly(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = started("status", "mini", "--store", str(tmp_path), stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=PATIENCE)[1] == "" and process.returncode == 141


def test_a_study_says_what_failed_and_what_records_warn_of(study_file, tmp_path, capsys):
    content = yaml.safe_load(study_file.read_text())
    content["methods"] = {"dense": {"scores": []}, "colt": {"recipe": content["base"]["recipe"] | WILD}}
    content["grid"] = {}
    study_file.write_text(yaml.safe_dump(content))
    place = ["--store", str(tmp_path / "store")]
    assert main(["study", str(study_file), *place, "--device", "cpu", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "pictures: 1 experiments done: 2 rounds, 1 scores in " in printed
    assert "seed 0: training diverged in epoch 0: the loss is " in printed
    assert main(["status", str(study_file), *place]) == 0
    assert "1 done, 1 failed, 0 running, 0 begun, 0 waiting" in capsys.readouterr().out


def test_a_damaged_run_is_named_and_the_table_has_the_others(study_file, tmp_path, capsys):
    content = yaml.safe_load(study_file.read_text())
    content |= {"grid": {}, "methods": {"dense": {"scores": []}}, "seeds": [0, 1]}
    study_file.write_text(yaml.safe_dump(content))
    place = ["--store", str(tmp_path / "store")]
    assert main(["study", str(study_file), *place, "--device", "cpu", "--workers", "1"]) == 0
    records = sorted((tmp_path / "store").glob("*/records.jsonl"))
    records[0].write_text("nonsense\n")
    capsys.readouterr()
    for command in (["table", str(study_file)], ["table"]):
        assert main([*command, *place]) == 0
        said = capsys.readouterr()
        assert said.err == f"warning: left out: {records[0]}, line 1, is no record: restore it, or remove its folder\n"
        assert "dense" in said.out


# An interrupt may fall between the opening of a file and its `with`: Python then closes it and warns of that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_study_in_pieces_of_minutes_ends_as_one_in_one_go(study_file, tmp_path, capsys, hold):
    """Every piece has a time limit; between two of them only records and tickets are carried over."""
    content = yaml.safe_load(study_file.read_text())
    content["base"]["recipe"] |= {"epochs": 6}
    content |= {"grid": {}, "seeds": [0], "methods": {"dense": {"scores": []}, "colt": {}, "matched": {}}}
    study_file.write_text(yaml.safe_dump(content))
    command = ["study", str(study_file), "--device", "cpu", "--workers", "1"]
    assert main([*command, "--store", str(tmp_path / "whole")]) == 0
    score = next((tmp_path / "whole" / "scores").glob("*.json")).stem
    gate = hold(tmp_path / "pieces", f"scores/{score}")  # the first piece cannot end before its time is over
    assert "experiments done" in capsys.readouterr().out
    pieces, said = 0, ""
    while "experiments done" not in said:
        limit = ["--minutes", str(0.005 * 2**pieces), "--store", str(tmp_path / "pieces")]
        assert main([*command, *limit]) == 0
        said, pieces = capsys.readouterr().out, pieces + 1
        assert "experiments done" in said or "the same command goes on" in said
        gate.let_go()
        # A killed worker may have left a `.part`, which is swept when its number is no process's.
        for file in [*(tmp_path / "pieces").glob("trainings/[!.]*"), *(tmp_path / "pieces").glob("scores/*.json")]:
            file.unlink()
    assert pieces > 1
    tickets = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").glob("*/round-*")}
    assert len(tickets) > 5
    for name, content in tickets.items():
        assert (tmp_path / "pieces" / name).read_bytes() == content
    kept = ["experiment", "scored_on", "round", "accuracy", "density"]
    tables = [cc.report.load(tmp_path / name).sort_values(kept)[kept] for name in ("pieces", "whole")]
    assert tables[0].reset_index(drop=True).equals(tables[1].reset_index(drop=True))


def test_a_script_without_a_main_guard_runs_studies_and_minutes_end_one_in_the_background(study_file, tmp_path):
    """A shell lets what it starts in the background of a script ignore interrupts."""
    content = yaml.safe_load(study_file.read_text())
    jobs = [cc.Experiment(**content["base"] | {"method": name, "scores": ()}) for name in ("colt", "dense")]
    content["base"] |= {"recipe": content["base"]["recipe"] | {"epochs": 10**6}}
    study_file.write_text(yaml.safe_dump(content))
    command = ["study", str(study_file), "--store", str(tmp_path), "--device", "cpu", "--workers", "2"]
    code = f"""if True:
        import json, signal, sys
        import colt_core as cc
        from colt_core.cli import main
        jobs = [cc.Experiment(**job) for job in json.loads({json.dumps([j.model_dump(mode="json") for j in jobs])!r})]
        print("rows", len(cc.study(jobs, {str(tmp_path)!r}, workers=2)))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(main({[*command, "--minutes", "0.02"]!r}))
    """
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and not done.stderr, done.stderr
    first, second = done.stdout.splitlines()
    assert int(first.split()[1]) > 4 and second.startswith("stopped after 0.02 minutes")


def test_the_transfers_of_a_study_in_pieces_are_those_that_its_pieces_name(capsys):
    from colt_core import cli, commands

    def asked(*arguments):
        return commands._pieces(cli._parser().parse_args(["status", "paper", *arguments]))

    transfers = {name: len(several) for name, several in asked("--transfer") if several}
    assert transfers == {"conv3": 42, "transfer": 14}
    assert {name: len(several) for name, several in asked("--piece", "conv3")} == {"conv3": 36 + 42}
    assert main(["status", "paper", "--piece", "resnet18-short", "--methods", "union"]) == 2
    assert "paper has no method 'union'; allowed: dense, colt, imp, matched" in capsys.readouterr().err
    assert main(["plan", "paper", "--piece", "resnet18", "--transfer"]) == 2
    assert "paper has no transfers" in capsys.readouterr().err


def test_a_ticket_of_grey_images_is_measured_and_written_in_its_shape(tmp_path, capsys, monkeypatch):
    path = str(cc.Ticket.of(cc.build("conv3", 10, seed=0, width=4, channels=1)).save(tmp_path / "grey.safetensors"))
    assert main(["speed", path]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: conv3 cannot take images of 32 x 32 pixels") and told.count("\n") == 1
    monkeypatch.setattr("colt_core.publish.onnx.export", lambda *_, **how: how["shape"])
    assert main(["export", path, str(tmp_path / "grey.onnx"), "--shape", "1,28,28"]) == 0
    assert capsys.readouterr().out == "[1, 28, 28]\n"
    assert main(["export", path, str(tmp_path / "grey.onnx"), "--shape", "28,28"]) == 2
    assert "--shape must be channels, height and width, for example 3,32,32, not 28,28" in capsys.readouterr().err


def test_a_saved_ticket_is_measured_and_written_from_the_command_line(tmp_path, capsys, monkeypatch):
    network = cc.build("conv3", 10, seed=0, width=4)
    mask = cc.Ticket.of(network).mask
    mask["conv2.weight"][:4] = False
    path = str(cc.Ticket.of(network, mask).save(tmp_path / "small.safetensors"))
    quick, tables = {"batches": (1,), "threads": (1,), "rounds": 1, "seconds": 1e-3}, []
    timed, forms = speed.speed, speed.forms_of

    def quickly(*given, **how):
        tables.append(timed(*given, **how | quick))
        return tables[-1]

    monkeypatch.setattr(speed, "speed", quickly)
    assert main(["speed", path, "--device", "cpu"]) == 0
    table, words = capsys.readouterr().out.rstrip().rsplit("\n", 1)
    assert [line.split()[0] for line in table.splitlines()] == ["form", "dense", "masked", "compact"]
    assert words.startswith("masked: ") and "compact: " in words
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(speed, "forms_of", lambda *given: forms(*given)[2:])  # each is written anew: one is enough
    monkeypatch.setattr("colt_core.publish.onnx.speed", quickly)
    assert main(["export", path, str(tmp_path / "small.onnx")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("small.onnx: ") and "In ONNX Runtime, one thread: compact: " in told
    assert set(tables[-1]["runtime"]) == {"onnx"} and (tables[-1]["latency"] > 0).all()
    assert (tmp_path / "small.onnx").stat().st_size > 1000


def test_a_ticket_of_code_in_this_folder_is_measured_where_it_is_trusted(tmp_path, capsys, monkeypatch):
    (tmp_path / "narrow_mine.py").write_text(
        "from torch import nn\n\n\ndef small(num_classes):\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as there:
        there.syspath_prepend(str(tmp_path))
        cc.Ticket.of(cc.build("narrow_mine:small", 3)).save("mine.safetensors")
    sys.modules.pop("narrow_mine")
    monkeypatch.setattr("colt_core.foreign._trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    quick, timed = {"batches": (1,), "threads": (1,), "rounds": 1, "seconds": 1e-3}, speed.speed
    monkeypatch.setattr(speed, "speed", lambda *given, **how: timed(*given, **how | quick))
    command = ["speed", "mine.safetensors", "--shape", "3,4,4", "--device", "cpu"]
    assert main(command) == 2
    assert "'narrow_mine:small' is named by a file: --trust imports it" in capsys.readouterr().err
    assert main([*command, "--trust"]) == 0
    assert "masked: " in capsys.readouterr().out
    sys.modules.pop("narrow_mine")


def test_a_table_without_a_study_has_the_sparsities_that_its_runs_were_scored_at(folder, tmp_path, capsys):
    fields = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": {"epochs": 1}, "rate": 0.3}
    cc.run(cc.Experiment(**fields, target=0.4, scores=(0.3,)), tmp_path, "cpu")
    assert main(["table", "--store", str(tmp_path), "--full", "--format", "csv"]) == 0
    header, row = capsys.readouterr().out.split("## accuracy-")[1].split("\n\n")[1].splitlines()
    at = re.fullmatch(r".*,(\d+)% sparse", header)
    assert 30 <= int(at[1]) < 50 and float(row.rsplit(",", 1)[1].split()[0]) > 0


def test_levels_that_no_round_reaches_are_told(folder, tmp_path, capsys):
    how = ["run", "--dataset", str(folder), "--network-args", "{width: 4}", "--recipe", "{epochs: 1}", "--rate", "0.3"]
    how += ["--target", "0.3", "--device", "cpu", "--store", str(tmp_path)]
    assert main([*how, "--scores", "[0.9]"]) == 0
    told = capsys.readouterr().out
    reached = re.search(r"\nnot scored at 0.9: the last round has a sparsity of (0.3\d*); see target\n", told)
    assert "density" not in told and 0.3 <= float(reached[1]) < 0.4
    assert main([*how, "--scores", "[0.3]"]) == 0 and "not scored" not in capsys.readouterr().out
    assert main(["status", "--store", str(tmp_path)]) == 0
    [experiment] = [path.name for path in tmp_path.iterdir() if len(path.name) == 16]
    assert experiment in capsys.readouterr().out  # whole, though there is but one row


def test_help_shows_every_command_with_examples(capsys):
    shown = subprocess.run(
        [sys.executable, "-m", "colt_core.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"  {name} " in shown.stdout for name in ("run", "study", "table", "card", "push", "speed", "export"))
    assert "colt study mini" in shown.stdout
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])
    one = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in one for name in cc.Experiment.model_fields if name != "code")


def test_help_says_what_every_option_does(capsys):
    for command in ("run", "study", "status", "plan", "table", "push", "speed", "export"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = re.findall(r"^  (--[\w-]+)(?: [\w{},]+)?(.*)\n( {10,}\S)?", capsys.readouterr().out, re.MULTILINE)
        assert options and not [name for name, text, more in options if not text.strip() and not more]


def test_a_status_goes_past_a_damaged_run(study_file, tmp_path, capsys):
    store = tmp_path / "store"
    assert main(["study", str(study_file), "--store", str(store), "--device", "cpu"]) == 0
    capsys.readouterr()
    runs = sorted(path.parent for path in store.glob("*/records.jsonl"))
    lines = (runs[0] / "records.jsonl").read_text().splitlines()
    (runs[0] / "records.jsonl").write_text("\n".join([lines[0].replace("1", "2", 1), *lines[1:]]) + "\n")
    assert main(["status", str(study_file), "--store", str(store)]) == 0
    told = capsys.readouterr()
    assert f"warning: {store}/{runs[0].name}/records.jsonl, line 1, has been altered" in told.err
    assert len(runs) > 1 and all(run.name in told.out for run in runs[1:]) and runs[0].name not in told.out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs", "cannot be made: TypeError: needs() missing 1 required positional argument: 'n'"),
        ("lacks", "cannot be made: KeyError: 'x' (in lacks, line 2)"),
        ("typo", "gives 'trian'; allowed: train, test, classes"),
        ("empty", "gives 'classes', and no train"),
    ],
)
def test_a_mistake_in_a_data_set_of_ones_own_is_one_line(tmp_path, monkeypatch, capsys, name, message):
    code = "def needs(n): return 1\ndef lacks(): return {}['x']\ndef typo(): return {'trian': 1}\n"
    (tmp_path / "ownsets.py").write_text(code + "def empty(): return {'classes': ['a', 'b']}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["run", "--dataset", f"ownsets:{name}", "--store", str(tmp_path / "s"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"ownsets:{name}' {message}" in error


def test_what_is_no_experiment_network_or_number_of_threads_is_one_line(folder, tmp_path, monkeypatch):
    wrong = [
        (lambda: cc.run({"method": "dense"}), "an Experiment is run, .* not "),
        (lambda: next(cc.rounds("colt")), "an Experiment is run, .* not 'colt'"),
        (lambda: cc.run(cc.Experiment(method="dense"), tmp_path, "cpu", threads=0), "threads must be .* not 0"),
        (lambda: cc.anatomy("conv3"), "network must be a torch.nn.Module, .* not 'conv3'"),
        (lambda: cc.compact(cc.Ticket.of(cc.build("conv3"))), r"of a ticket: ticket.compact\(\)"),
        (lambda: cc.Study(title="t", base={}, methods=["colt"]), "methods must be a mapping, not "),
        (lambda: cc.Study(title="t", base={}, methods={"colt": {}}, seeds=[]), "seeds must name at least 1, not "),
        (lambda: cc.Study(title="t", base={}), "methods is missing"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message) as told:
            call()
        assert "\n" not in str(told.value)
    monkeypatch.setattr(toys, "FALLS", cc.Method("mine", "mine", lambda s: {}["x"], cc.Look("mine")), raising=False)
    fields = {"dataset": str(folder), "network": "conv3", "network_args": {"width": 4}, "recipe": {"epochs": 1}}
    with pytest.raises(ValueError, match=r"the method mine cannot begin: KeyError: 'x' \(in <lambda>, line \d+\)"):
        cc.run(cc.Experiment(**fields, method="toys:FALLS"), tmp_path, "cpu")
