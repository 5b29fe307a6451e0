"""Small real objects that the tests share: a few embedded images, a narrow conv3, a one-epoch recipe."""

import pytest
import torch
from hypothesis import HealthCheck, settings
from waiting import Held

import colt_core as cc

# How long an example takes, or is thought out, says how busy the machine is and nothing of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


# Whose subject is processes beside each other. All others train in their own process: starting more takes longer.
BESIDE = ["test_cli", "test_cluster", "test_copies", "test_kills", "test_live", "test_nursery", "test_resume"]
BESIDE += ["test_seams", "test_widgets"]


@pytest.fixture(scope="module", autouse=True)
def alone(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.split(".")[-1] not in BESIDE:
            patch.setenv("COLT_WORKERS", "1")
        yield


@pytest.fixture(scope="session")
def mini():
    return cc.load("cifar10-mini")


@pytest.fixture(scope="session")
def few(mini):
    """Ten classes, 12 training, 4 validation and 10 test images of each."""
    pick = lambda images, n: images.take(torch.cat([(images.labels == c).nonzero().flatten()[:n] for c in range(10)]))
    return cc.Dataset("few", pick(mini.train, 12), pick(mini.validation, 4), pick(mini.test, 10))


@pytest.fixture
def network():
    return cc.build("conv3", 10, seed=0, width=4)


@pytest.fixture(scope="session")
def recipe():
    return cc.Recipe.named("mini").changed(epochs=1, batch_size=24)


@pytest.fixture(scope="session")
def parts(few):
    return cc.partition(few.train, 2)


@pytest.fixture
def options():
    return {"device": "cpu"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory, mini):
    """A user's folder of class folders: three classes of real images as PNG files, 12 of each, one of them grey."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(("zebra", "ant", "bee")):
        (root / name).mkdir()
        index = (mini.train.labels == label).nonzero().flatten()[:12]
        for i, pixels in enumerate(mini.train.images[index]):
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            (picture.convert("L") if name == "bee" and i == 0 else picture).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture
def hold():
    """Claim a training or a score of a store, so that nobody does it until it is let go; at the end all are."""
    held = []

    def claim(store, name):
        held.append(Held(store, name))
        return held[-1]

    yield claim
    for one in held:
        one.let_go()
