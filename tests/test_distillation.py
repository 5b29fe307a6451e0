"""Knowledge distillation: the formula against SciPy's relative entropy, its limits, its controls, and the whole way."""

import json
import math
from copy import deepcopy

import pytest
import torch
from scipy.special import rel_entr
from torch import nn

import colt_core as cc
from colt_core import foreign, masks
from colt_core.compute import copies
from colt_core.data.augmentation import normalise
from colt_core.studies.records import read_records
from colt_core.studies.teachers import teacher, untrained
from colt_core.training import Training, objective_of


@pytest.fixture(scope="module")
def batch(few):
    images = few.train.take(torch.arange(0, 120, 5))
    return normalise(images.batch(torch.arange(len(images))), few.mean, few.std), images.labels


class Fixed(nn.Module):
    """Answers with given scores, whatever it sees."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, pixels):
        return self.scores[: len(pixels)]


def scores(count, seed, classes=10):
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


# --- the formula -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "weight"), [(5.0, 0.9), (1.0, 0.5), (4.0, 1.0)])
def test_the_loss_is_the_papers_with_the_mean_over_the_batch_alone(batch, temperature, weight):
    pixels, labels = batch
    z, t = scores(len(labels), 0), scores(len(labels), 1)
    loss, right = cc.KD(Fixed(t), temperature, weight).loss(Fixed(z), pixels, labels)
    p, q = ((s.double() / temperature).softmax(1).numpy() for s in (t, z))
    soft = rel_entr(p, q).sum() / len(labels)
    hard = nn.functional.cross_entropy(z.double(), labels).item()
    assert loss.item() == pytest.approx(weight * temperature**2 * soft + (1 - weight) * hard, rel=1e-5)
    assert int(right) == int((z.argmax(1) == labels).sum())


def test_a_constant_added_to_the_teachers_scores_changes_nothing(batch):
    pixels, labels = batch
    z, t = scores(len(labels), 0), scores(len(labels), 1)
    moved = t + torch.randn(len(t), 1, generator=torch.Generator().manual_seed(2))
    one, other = (cc.KD(Fixed(s)).loss(Fixed(z), pixels, labels)[0].item() for s in (t, moved))
    assert one == pytest.approx(other, rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(few, batch):
    pixels, labels = batch
    student = cc.build("lenet5", 10, seed=0)  # no normalisation: in training mode it answers as in evaluation
    loss, _ = cc.KD(student, weight=1.0).loss(student, pixels, labels)
    loss.backward()
    assert abs(loss.item()) < 1e-6 and max(float(p.grad.abs().max()) for p in student.parameters()) < 1e-6


def test_the_authors_mean_over_images_and_classes_is_a_classth_of_it(batch):
    pixels, labels = batch
    z, t = scores(len(labels), 0), scores(len(labels), 1)
    loss = cc.KD(Fixed(t), temperature=5.0, weight=1.0).loss(Fixed(z), pixels, labels)[0].item()
    theirs = nn.functional.kl_div((z / 5).log_softmax(1), (t / 5).softmax(1), reduction="none").mean()
    assert loss == pytest.approx(10 * 25 * theirs.item(), rel=1e-5)


def test_under_autocast_the_softened_answers_are_still_compared_in_single_precision(batch, few):
    pixels, labels = batch
    student, teacher = (cc.build("lenet5", 10, seed=seed) for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = cc.KD(teacher, weight=1.0).loss(student, pixels, labels)
        z = student(pixels)
    assert z.dtype == torch.bfloat16 and loss.dtype == torch.float32
    p, q = ((s.detach().double() / 5).softmax(1).numpy() for s in (teacher(pixels), z))
    assert loss.item() == pytest.approx(25 * rel_entr(p, q).sum() / len(labels), rel=1e-3)


def test_at_a_high_temperature_the_gradient_is_the_difference_of_centred_scores(batch):
    pixels, labels = batch
    count, student, t = len(labels), Fixed(scores(len(labels), 0)), scores(len(labels), 1)
    cc.KD(Fixed(t), temperature=1e3, weight=1.0).loss(student, pixels, labels)[0].backward()
    z = student.scores.detach()
    limit = ((z - z.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))) / (count * 10)
    assert (student.scores.grad - limit).abs().max() < 5e-3 * limit.abs().max()


def test_without_weight_it_is_cross_entropy_to_the_bit(few):
    recipe = cc.Recipe.named("mini").changed(epochs=2, batch_size=24)
    taught = cc.KD(cc.build("conv3", 10, seed=9, width=4), weight=0.0)
    plain, distilled = (cc.build("conv3", 10, seed=0, width=4) for _ in "12")
    one = cc.train(plain, few.train, recipe, validation=few.validation, device="cpu")
    two = cc.train(distilled, few.train, recipe, validation=few.validation, device="cpu", objective=taught)
    assert all(torch.equal(value, distilled.state_dict()[name]) for name, value in plain.state_dict().items())
    assert one.epochs == two.epochs
    named = cc.KD(weight=0.0)
    assert named.taught(lambda called: pytest.fail(f"{called} was trained"), few.train) is named
    named.check(plain, few.train)


def test_the_teacher_stays_as_it_is_and_masked_weights_stay_zero(few, recipe):
    teacher = cc.build("resnet20", 10, seed=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = cc.KD(teacher)
    network = cc.build("conv3", 10, seed=0, width=4)
    weights = dict(network.named_parameters())
    mask = masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.5)
    history = cc.train(network, few.train, recipe, mask=mask, device="cpu", objective=objective)
    assert math.isfinite(history.epochs[-1]["loss"])
    assert not any(network.get_parameter(name)[~kept].any() for name, kept in mask.items())
    for one in (teacher, objective.teachers[0]):
        assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


# --- the controls ------------------------------------------------------------------------------------------------


def test_smoothing_keeps_the_labels_probability_and_spreads_the_rest_evenly(batch):
    pixels, labels = batch
    t = scores(len(labels), 1)
    found = cc.KD(Fixed(t), temperature=2.0, soft="smoothed")._answers(Fixed(t), pixels, labels).exp()
    p = (t / 2).softmax(1)
    assert torch.allclose(found.sum(1), torch.ones(len(t)), atol=1e-5)
    rows = torch.arange(len(t))
    assert torch.allclose(found[rows, labels], p[rows, labels], atol=1e-6)
    others = found[nn.functional.one_hot(labels, 10) == 0].view(len(t), 9)
    assert torch.allclose(others, others[:, :1].expand_as(others))


def test_even_answers_know_nothing_of_an_image_and_are_as_sure_as_the_teacher_is_on_average(batch):
    pixels, labels = batch
    t = scores(len(labels), 1)
    found = cc.KD(Fixed(t), temperature=2.0, soft="even").targets(pixels, labels)
    of_label = (t / 2).softmax(1)[torch.arange(len(t)), labels].mean()
    expected = torch.full_like(found, (1 - of_label) / 9).scatter(1, labels[:, None], float(of_label))
    assert torch.allclose(found, expected, atol=1e-6)


def test_what_teaches_costs_a_forward_pass_an_image_and_its_training_is_planned_once(folder, tmp_path):
    base = {"dataset": str(folder), "network_args": {"width": 4}, "rate": 0.5, "target": 0.5, "scores": None}
    base["recipe"] = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    plain, taught = cc.Experiment(**base), cc.Experiment(**base, objective={"name": "kd"})
    costs = [list(cc.rounds(job, tmp_path, device="cpu"))[-1].cost for job in (plain, taught)]
    assert costs[0].images == costs[1].images and costs[1].flops / costs[0].flops == pytest.approx(4 / 3, rel=0.02)
    how = {"objective": {"name": "kd"}}
    jobs = [plain.changed(scores=(0.5,), **more) for more in ({}, {"scoring": how}, {"scoring": how | {"head": "own"}})]
    one, two, three = (cc.plan(jobs[:n], tmp_path, "cpu", anew=True).image_epochs[0] for n in (1, 2, 3))
    images = len(cc.load(str(folder)).train)
    assert (two - one, three - two) == (2 * images, images), "a score and its teacher; another score, the same teacher"
    itself = plain.changed(scores=(0.5,), scoring={"objective": {"name": "kd", "teacher": "self"}})
    assert cc.plan(itself, tmp_path, "cpu", anew=True).image_epochs[0] == one + images


def test_shuffled_answers_are_those_to_other_images_of_the_class(batch):
    pixels, _ = batch
    labels = torch.tensor([3, 1, 3, 3, 0, 1] * 4)
    t = scores(len(labels), 1)
    teacher = cc.KD(Fixed(t), temperature=1.0, soft="shuffled")
    found, plain = teacher._answers(Fixed(t), pixels, labels), t.log_softmax(1)
    place = [int((plain - row).abs().sum(1).argmin()) for row in found]
    assert sorted(place) == list(range(len(labels))) and all(i != j for i, j in enumerate(place))
    assert torch.equal(labels[place], labels)


def test_teachers_of_their_own_classes_teach_those_alone(batch):
    pixels, labels = batch
    z, low, high = scores(len(labels), 0), scores(24, 1, 4), scores(24, 2, 6)
    tasks = [[0, 1, 2, 3], [9, 8, 7, 6, 5, 4]]
    loss, _ = cc.KD([Fixed(low), Fixed(high)], 3.0, 1.0, tasks=tasks).loss(Fixed(z), pixels, labels)
    total = 0.0
    for t, classes in ((low, tasks[0]), (high, tasks[1])):
        mine = torch.isin(labels, torch.tensor(classes))
        p, q = (t[: int(mine.sum())] / 3).softmax(1), (z[mine][:, classes] / 3).softmax(1)
        total += rel_entr(p.double().numpy(), q.double().numpy()).sum()
    assert loss.item() == pytest.approx(9 * total / len(labels), rel=1e-4)
    told = cc.KD([Fixed(low), Fixed(high)], 3.0, 1.0, tasks=tasks).targets(pixels, labels)
    assert told.shape == (len(labels), 10) and torch.allclose(told.sum(1), torch.ones(len(labels)))
    for classes in tasks:  # a batch without images of the other task
        some = torch.isin(labels, torch.tensor(classes))
        alone = cc.KD([Fixed(low), Fixed(high)], 3.0, 1.0, tasks=tasks).targets(pixels[some], labels[some])
        assert torch.equal(alone, told[some])
    first = torch.isin(labels, torch.tensor(tasks[0]))
    assert (
        torch.allclose(told[first][:, tasks[0]], (low[: int(first.sum())] / 3).softmax(1))
        and not told[first][:, 4:].any()
    )


def test_a_partitions_copy_is_taught_its_own_classes(few, batch):
    pixels, _ = batch
    whole = cc.build("conv3", 10, seed=1, width=4)
    second = cc.partition(few.train, 2)[1]
    fitted = cc.KD(whole, names=few.train.classes).fitted(second)
    told, full = fitted.teachers[0](pixels), whole.eval()(pixels)
    assert torch.equal(told, full[:, 5:]) and fitted.names == second.classes
    about = {"name": "kd", **fitted.settings()}
    before = json.dumps(about)
    again = objective_of(about, fitted.tensors())
    assert json.dumps(about) == before, "a description stays one"
    assert torch.equal(again.teachers[0](pixels), told)
    with pytest.raises(ValueError, match="the teacher does not know the class"):
        cc.KD(whole, names=[f"class {i}" for i in range(10)]).fitted(second)


# --- the whole way -----------------------------------------------------------------------------------------------


def test_a_dense_teacher_is_trained_once_and_looked_up(folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": recipe, "rate": 0.4, "target": 0.5}
    plain = cc.Experiment(**base, scores=(0.4,))
    taught = plain.changed(scoring={"objective": {"name": "kd", "temperature": 4}})
    assert taught.hash == plain.hash, "the ticket is the same: only its score is another"
    frame = cc.study([plain, taught], store=tmp_path, device="cpu", workers=1)
    values = frame[frame["kind"] == "score"].groupby("scored_by", dropna=False)["accuracy"].first()
    assert len(values) == 2
    store, data = cc.open_store(tmp_path), cc.load(str(folder))
    count = len(list((tmp_path / "trainings").glob("*.safetensors")))
    one = teacher("dense", taught, data, store, "cpu", 1)
    assert len(list((tmp_path / "trainings").glob("*.safetensors"))) == count, "it was kept"
    found = list(cc.rounds(plain, tmp_path, device="cpu"))[1].ticket
    by_hand = cc.evaluate(found, data, recipe, plain.seed, device="cpu", objective=cc.KD(one, temperature=4))
    score = next(r for r in read_records(plain, tmp_path) if r["kind"] == "score" and r.get("scored_by"))
    assert by_hand.value == score["accuracy"] and by_hand.validation_value == score["validation_accuracy"]


@pytest.mark.parametrize("called", ["resnet20", "dense"])
def test_a_teacher_of_grey_images_takes_their_one_channel(few, recipe, called):
    grey = [
        cc.Images(own.pixels[:, :1], own.labels, own.classes, rows=own.rows)
        for own in (few.train, few.validation, few.test)
    ]
    job = cc.Experiment(network_args={"width": 4, "channels": 1}, recipe=recipe)
    network = untrained(called, job, cc.Dataset("grey", *grey))
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_copies_that_are_taught_while_a_ticket_is_found_are_the_same_in_workers(folder, tmp_path):
    recipe = cc.Recipe.named("mini").changed(epochs=1, batch_size=8)
    base = {"dataset": str(folder), "network_args": {"width": 4}, "recipe": recipe, "rate": 0.4, "target": 0.5}
    job = cc.Experiment(**base, scores=None, objective={"name": "kd", "weight": 0.8})
    plain = cc.Experiment(**base, scores=None)
    cc.run(job, tmp_path / "here", device="cpu")
    cc.study([job, job.changed(seed=1)], tmp_path / "there", device="cpu", workers=2)
    here, there = ([r.ticket.hash for r in cc.rounds(job, tmp_path / name, device="cpu")] for name in ("here", "there"))
    other = [r.ticket.hash for r in cc.rounds(plain, tmp_path / "plain", device="cpu")]
    assert here == there and here != other and job.hash != plain.hash
    assert cc.plan([job.changed(seed=2)], tmp_path, "cpu").experiments == 1, "how fast it is can be measured untaught"


def test_a_teacher_that_was_changed_teaches_as_it_is_and_is_not_taken_for_the_one_it_was(few, recipe, monkeypatch):
    plain, changed, unnamed = (cc.build("conv3", 10, 1, width=4) for _ in range(3))
    changed.average = nn.AdaptiveMaxPool2d(1)
    del vars(unnamed)["architecture"]
    student = cc.build("conv3", 10, 0, width=4)
    keys = [Training(few.train, recipe, objective=cc.KD(one)).key(student) for one in (plain, changed, unnamed)]
    assert len(set(keys)) == 3
    monkeypatch.setattr(copies, "_in_workers", lambda *_: pytest.fail("a worker could not build this teacher"))
    for one in (changed, unnamed):
        found = [deepcopy(student), deepcopy(student)]
        copies._say_once.cache_clear()
        with pytest.warns(UserWarning, match="train one after the other in this process"):
            cc.train_copies(found, [few.train] * 2, recipe, workers=2, device="cpu", objective=cc.KD(one))


def test_code_of_a_source_or_a_teacher_is_trusted_and_told_apart_as_a_networks_is(tmp_path, monkeypatch):
    file = tmp_path / "borrowed.py"
    file.write_text("import colt_core as cc\ndef two(classes=10): return cc.build('resnet20', classes, 0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kd = {"name": "kd", "teacher": "borrowed:two"}
    ways = [
        {"network": "resnet32", "method": "elastic", "options": {"source": "borrowed:two"}},
        {"objective": kd},
        {"scoring": {"objective": kd}},
    ]
    before = [cc.Experiment(**way) for way in ways]
    assert [sorted(one.code or {}) for one in before] == [["source"], ["teacher"], []], "scores have keys of their own"
    foreign._trusted.clear()
    monkeypatch.setattr(foreign, "imported", lambda *_, **__: pytest.fail("imported"))
    for one in before:
        about = one.model_dump(mode="json") | {"scoring": one.scoring.model_dump() if one.scoring else None}
        with pytest.raises(ValueError, match="'borrowed:two' is named by a file and is not imported unless you allow"):
            cc.Experiment.from_description(about)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    file.write_text(file.read_text() + "# edited\n")
    assert [cc.Experiment(**way).hash == one.hash for way, one in zip(ways, before, strict=True)] == [
        False,
        False,
        True,
    ]
    with pytest.raises(ValueError, match="the code of its source is"):
        before[0].check_code()


def test_mistakes_are_told_in_one_line(few, folder, tmp_path):
    student, whole = (cc.build("conv3", classes, seed=0, width=4) for classes in (10, 7))
    for make, told in (
        (lambda: cc.KD(whole, weight=1.2), "weight must lie in 0..1, not 1.2"),
        (lambda: cc.KD(whole, temperature=0), "temperature must be above 0 and at most 1e.06, not 0"),
        (lambda: cc.KD(whole, temperature="5"), "temperature must be a number, not '5'"),
        (lambda: cc.KD(whole, weight=None), "weight must be a number, not None"),
        (lambda: cc.KD(whole, soft="hard"), "unknown soft targets 'hard'; allowed: teacher, smoothed, even, shuffled"),
        (lambda: cc.KD([whole, whole]), "KD takes one teacher, not 2"),
        (lambda: cc.KD([whole], tasks=[[0], [1]]), "a teacher for each of 2 tasks, not 1"),
        (lambda: cc.KD(whole).check(student, few.train), "the teacher has 7 outputs, and is to teach 10 classes"),
        (
            lambda: cc.KD([whole], tasks=[[*range(7)]]).check(student, few.train),
            "not the images' 10 classes",
        ),
        (
            lambda: cc.train(student, few.train, cc.Recipe.named("mini"), objective=cc.KD()),
            "'dense' is not trained yet",
        ),
        (lambda: cc.KD([whole], tasks=[0, 1]), r"tasks must be the classes of each teacher, .* not \[0, 1\]"),
        (
            lambda: cc.Experiment(scoring={"objective": {"name": "kd", "tasks": [[0], [1]]}}),
            "tasks are for teachers that are there",
        ),
        (
            lambda: cc.Experiment(scoring={"objective": {"name": "kd", "temperature": -1}}),
            "temperature must be above 0",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            make()
    job = cc.Experiment(dataset=str(folder), network_args={"width": 4}, objective={"name": "kd", "teacher": "self"})
    with pytest.raises(ValueError, match="its own teacher when it is scored"):
        cc.run(job, tmp_path, device="cpu")


def test_a_ticket_and_its_file_teach_as_their_network_does(few, batch, recipe, tmp_path):
    pixels, labels = batch
    network, student = (cc.build("resnet20", 10, seed=seed) for seed in (1, 0))
    cc.train(network, few.train, recipe, device="cpu")
    weights = dict(network.named_parameters())
    ticket = cc.Ticket.of(network, masks.magnitude(weights, masks.dense(weights, cc.prunable(network)), 0.5))
    path = ticket.save(tmp_path / "one.safetensors")
    expected = cc.KD(ticket.model().eval()).targets(pixels, labels)
    for one in (ticket, path, str(path), [ticket]):
        taught = cc.KD(one)
        taught.check(student, few.train)
        assert torch.equal(taught.targets(pixels, labels), expected) and not taught.teachers[0].training
    again = objective_of({"name": "kd", **cc.KD(path).settings()}, cc.KD(path).tensors())
    assert torch.equal(again.targets(pixels, labels), expected), "as a worker process has it"


class Pair(nn.Module):
    """Gives its scores twice."""

    def __init__(self):
        super().__init__()
        self.inner = cc.build("conv3", 10, seed=0, width=4)

    def forward(self, pixels):
        return (self.inner(pixels),) * 2


class Wide(nn.Module):
    """Seven scores of which no linear layer tells."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(3, 7, 3)

    def forward(self, pixels):
        return self.inner(pixels).mean((2, 3))


def test_what_cannot_teach_is_refused_before_any_training(few, recipe, tmp_path):
    student = cc.build("conv3", 10, seed=0, width=4)
    (tmp_path / "none.safetensors").write_bytes(b"no ticket")
    for make, told in (
        (lambda: cc.KD(3), "a teacher must be a network, a ticket, its file .* or a name, not 3"),
        (lambda: cc.KD(tmp_path / "none.safetensors"), "none.safetensors is no ticket or is truncated"),
        (lambda: cc.KD(str(tmp_path / "other.safetensors")), "there is no ticket at .*other.safetensors"),
        (lambda: cc.KD(Pair()).check(student, few.train), "the teacher: Pair gives a tuple; a tensor"),
        (
            lambda: cc.KD(Wide()).check(student, few.train),
            r"the teacher: Wide gives \[2, 7\] .*; \[2, 10\] is expected",
        ),
        (
            lambda: cc.train(student, few.train, recipe, objective=cc.KD(cc.build("conv3", 10, width=4, channels=1))),
            "the teacher: conv3 cannot take images of 32 x 32 pixels",
        ),
        (
            lambda: cc.imp(student, few.train, recipe, objective=cc.KD(cc.build("autoencoder", 10, width=4))),
            "the teacher: autoencoder gives images back",
        ),
        (
            lambda: cc.Experiment(objective={"name": "kd", "teacher": "runs/a.safetensors"}),
            "must be dense, self or the name of a network, not 'runs/a.safetensors'",
        ),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=told) as problem:
            make()
        assert "\n" not in str(problem.value)


def test_ways_of_scoring_that_differ_in_a_setting_are_told_apart(folder):
    base = {"dataset": str(folder), "network_args": {"width": 4}, "scores": (0.4,)}
    ways = [{"name": "kd"}, {"name": "kd", "soft": "smoothed"}, {"name": "kd", "teacher": "self"}]
    study = cc.Study(name="x", title="x", base=base, methods={
        str(i): {"method": "colt", "scoring": {"objective": way}} for i, way in enumerate(ways)
    })  # fmt: skip
    experiments = study.experiments([0])
    assert [str(one.scoring) for one in experiments] == ["kd", "kd (soft smoothed)", "kd (teacher self)"]
    assert len({one.hash for one in experiments}) == 1
