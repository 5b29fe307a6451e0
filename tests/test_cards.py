import json
import re
import shutil
import sys
from types import ModuleType

import pandas as pd
import pytest
import torch

import colt_core as cc
from colt_core.masks import by_layer
from colt_core.publish import card as cards
from colt_core.studies.records import read_records


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    """The file of a scored ticket, in its experiment's folder."""
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    about = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.3, "target": 0.5, "scores": (0.5,)}
    experiment, store = cc.Experiment(**about, recipe=recipe), tmp_path_factory.mktemp("store")
    cc.run(experiment, store)
    return sorted((store / experiment.hash).glob("*.safetensors"))[-1]


def score_of(path):
    return next(r for r in read_records(path.parent.name, path.parent.parent) if r["kind"] == "score")


def code(text):
    """The card's two pieces of Python."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_a_card_says_what_was_computed(found):
    ticket, text = cc.Ticket.load(found), cards.card(found)
    assert f"| density (prunable) | {ticket.density:.4%} |" in text
    assert f"| density (all weights) | {ticket.density_all:.4%} |" in text
    for row in by_layer(ticket.mask).reset_index().itertuples():
        assert f"| {row.layer} | {row.weights} | {row.kept} | {row.density:.4f} |" in text
    score = score_of(found)
    assert "last epoch, test set" in text
    assert f"| {score['scored_on']} | {score['accuracy']:.4f} |" in text
    assert f"| {score['train_images']} | {score['test_images']} | {score['image_epochs']} |" in text
    assert "| recipe.batch_size | 8 |" in text and "| rate | 0.3 |" in text
    assert f"| hash | {ticket.hash} |" in text and f"| parent | {ticket.provenance['parent']} |" in text
    assert torch.__version__ in text and "2212.12770" in text
    assert "## Layers" not in cards.card(found, layers=False)


def test_a_ticket_in_memory_has_the_same_card_with_its_records(found):
    ticket = cc.Ticket.load(found)
    frame = cc.run(cc.Experiment(**described(found)), found.parent.parent)
    text = cards.card(ticket, frame)
    without = lambda card: sorted(line for line in card.splitlines() if " data |" not in line)
    assert without(text) == without(cards.card(found, file="ticket.safetensors"))
    bare = cards.card(ticket)
    assert "settings are not known" in bare and "has not been scored" in bare and ticket.hash in bare


def described(path):
    about = json.loads((path.parent / "experiment.json").read_text())
    return {name: value for name, value in about.items() if name not in ("format", "data")} | {"scores": (0.5,)}


def test_a_card_tells_ways_of_scoring_apart_and_weights_that_were_made_to_fit(found):
    ticket, frame = cc.Ticket.load(found), cc.run(cc.Experiment(**described(found)), found.parent.parent)
    score = frame[frame["kind"] == "score"].iloc[:1]
    ways = [score.assign(scored_by=way) for way in (None, "kd (teacher dense)", "own head")]
    text = cards.card(ticket, pd.concat([frame[frame["kind"] != "score"], *ways]))
    assert "| kd (teacher dense) |" in text and "| own head |" in text and "a fresh or its own head" in text
    assert "It is not trained: train it." in text and "scored by" not in cards.card(found)
    dual = frame.assign(method="dual").pipe(lambda t: t[t["kind"] != "score"])
    assert "Weights that were made to fit a mask, and the mask" in cards.card(ticket, dual)


def test_a_ticket_of_nobody_has_a_card(tmp_path, network):
    path = cc.Ticket.of(network).save(tmp_path / "own.safetensors")
    assert "an unknown method" in cards.card(path) and "| density (prunable) | 100.0000% |" in cards.card(path)


def test_the_cards_own_lines_load_the_ticket(found, tmp_path, monkeypatch):
    text = (cards.push(found, tmp_path), (tmp_path / "README.md").read_text())[1]
    monkeypatch.chdir(tmp_path)
    with_core, alone = {}, {}
    exec(code(text)[0], with_core)
    exec(code(text)[1], alone)
    ticket = cc.Ticket.load(found)
    assert with_core["ticket"].hash == ticket.hash and "colt_core" not in code(text)[1]
    assert all(torch.equal(alone["mask"][name], kept) for name, kept in ticket.mask.items())
    assert alone["theta0"].keys() == ticket.theta0.keys()
    state = with_core["network"].state_dict()
    assert all(torch.equal(alone["pruned"][name], state[name]) for name in state)


def test_write_card_leaves_it_beside_the_ticket(found):
    path = cards.write_card(found)
    assert path == found.with_suffix(".md") and path.read_text() == cards.card(found)
    path.unlink()


def test_push_to_a_folder_has_ticket_card_and_records(found, tmp_path):
    where = tmp_path / "published"
    assert cards.push(found, where) == str(where)
    assert {path.name for path in where.iterdir()} == {"ticket.safetensors", "README.md", "records.jsonl"}
    assert (where / "ticket.safetensors").read_bytes() == found.read_bytes()
    records = [json.loads(line) for line in (where / "records.jsonl").read_text().splitlines()]
    assert records == read_records(found.parent.name, found.parent.parent)
    assert (where / "README.md").read_text().startswith("---\nlibrary_name: colt_core\n")


EVIL = [
    "<script>alert(1)</script>",
    "x\n---\nlibrary_name: evil\n---\n# Heading",
    "a | b | c",
    "[click](javascript:alert(1))",
    "![see](https://example.com/track.png)",
    "`code` ``` fence **bold** ~~struck~~",
    "<img src=x onerror=alert(1)>\r\n\u2028<!-- -->",
    "&lt;script&gt; \\| \\<b>",
    "\u202etxt.exe\x1b[31m",
    "| a |\n| --- |\n\n<iframe src='https://example.com'>",
]


@pytest.fixture(params=EVIL)
def foreign(request, tmp_path, network):
    """The folder of a ticket that says of itself, wherever it can, what a page must not do."""
    import mistune  # of nbconvert, which Jupyter brings

    evil = request.param
    ticket = cc.Ticket.of(network)
    about = {"experiment": "e", "round": 0, "method": evil, evil: evil, "nested": {evil: [evil]}}
    ticket = cc.Ticket({"name": evil, "classes": evil, "arguments": {evil: evil}}, ticket.theta0, ticket.mask, about)
    record = {"kind": "score", "experiment": "e", "round": 0, "dataset": evil, "scored_on": evil, "metric": evil}
    record |= {"method": evil, "network": evil, "network_args": json.dumps({evil: evil})}
    record |= {"python": evil, "device": evil}
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "experiment.json").write_text(json.dumps({**record, "official": [evil], "data": [evil] * 3}))
    (tmp_path / "e" / "records.jsonl").write_text(
        json.dumps(record | {"kind": "round"}) + "\n" + json.dumps(record) + "\n"
    )
    cards.push(ticket.save(tmp_path / "e" / "round-00.safetensors"), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    page = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url"])
    return evil, text, page(text.split("---\n", 2)[2])


def test_what_a_foreign_ticket_says_of_itself_is_text_and_nothing_else(foreign):
    from html.parser import HTMLParser

    import yaml

    evil, text, page = foreign
    own = yaml.safe_load(text.split("---\n")[1])
    assert text.startswith("---\n") and own == yaml.safe_load(cards._front_matter().split("---\n")[1])
    tags, links, said, rows = set(), set(), [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.add(tag)
            links.update(value for name, value in attributes if name in ("href", "src"))
            assert not any(name.startswith("on") for name, _ in attributes)
            rows.append(tag)

        def handle_data(self, data):
            said.append(data)

    Reader().feed(page)
    assert tags <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "a", "strong"}, tags
    assert not any(link.startswith(("javascript:", "data:")) for link in links)
    assert rows.count("h1") == 1 and rows.count("h2") == 6 and rows.count("pre") == 3
    plain = " ".join("".join(c if c.isprintable() else " " for c in evil).split())
    assert plain in " ".join("".join(said).split()), "it can be read as it was written"


def test_push_to_a_folder_that_cannot_be_written_is_one_line(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written") as caught:
        cards.push(found, tmp_path / "file" / "place")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for Hugging Face: its repositories, and what was uploaded."""

    class HfApi:
        repositories, uploaded = {}, tmp_path / "hub"

        def create_repo(self, *, repo_id, repo_type, private, exist_ok):
            if repo_id.startswith("other/"):
                raise RuntimeError("403 Forbidden\nRequest ID: 1")
            assert repo_type == "model" and exist_ok
            self.repositories[repo_id] = private
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, self.uploaded / repo_id, dirs_exist_ok=True)

    module = ModuleType("huggingface_hub")
    module.HfApi = HfApi
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return HfApi


def test_push_to_hugging_face_creates_and_updates_a_repository(found, hub):
    assert cards.push(found, "hf://me/colt-conv3", private=True) == "https://huggingface.co/me/colt-conv3"
    cards.push(found, "hf://me/colt-conv3", private=True)
    assert hub.repositories == {"me/colt-conv3": True}
    names = {path.name for path in (hub.uploaded / "me/colt-conv3").iterdir()}
    assert names == {"ticket.safetensors", "README.md", "records.jsonl"}


@pytest.mark.parametrize(
    ("destination", "kind", "message"),
    [
        ("hf://me", ValueError, "a Hugging Face repository is hf://user/name, not 'hf://me'"),
        ("s3://bucket/x", ValueError, "pushed to a folder or to hf://user/name, not to 's3://bucket/x'"),
        ("hf://other/x", OSError, r"hf://other/x cannot be written \(403 Forbidden\)$"),
    ],
)
def test_a_bad_destination_is_one_clear_line(found, hub, destination, kind, message):
    with pytest.raises(kind, match=message):
        cards.push(found, destination)


def test_without_its_library_hugging_face_is_one_clear_line(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        cards.push(found, "hf://me/x")


def test_a_card_warns_of_a_ticket_that_means_nothing(folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    about = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": recipe, "parts": 3, "target": 0.3}
    experiment = cc.Experiment(**about)
    planned = str(cc.plan(experiment, tmp_path, device="cpu"))
    assert "warning:" in planned and "3 of 3 copies have a single class to learn" in planned
    cc.run(experiment, tmp_path, device="cpu")
    text = cc.publish.card.card(tmp_path / experiment.hash / "round-01.safetensors")
    assert "## Warnings" in text and "Copy 0 has a single class to learn." in text and "means nothing" in text
    assert "3 of 3" in str(cc.plan(experiment, tmp_path, device="cpu"))  # of what is done, too
