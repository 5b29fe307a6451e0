"""Give images back: reconstruction by mean squared error, and the VAE's evidence lower bound (1312.6114)."""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Self

import torch
from torch import nn

from .. import models
from ..data import Images, channel_statistics
from ..data.augmentation import normalise, original
from ..files import Tensors, sha256_of
from ..seeding import generator
from ..settings import plain_number, shown
from .distillation import again, described_network
from .objective import CROSS_ENTROPY, Objective, accuracy
from .recipe import Recipe

ACTIVE = 0.01  # a latent number is active where the posterior's mean varies more than this over images (1509.00519)
_COLOURS: dict[str, float] = {}  # by the images' fingerprint
_ORIGINALS: dict[tuple[str, str], float] = {}  # a judge's accuracy, by its weights and the images' fingerprint


def exact(values: torch.Tensor) -> torch.Tensor:
    """Return values in float64, which MPS has not: from there they are brought to the CPU first."""
    return (values.cpu() if values.device.type == "mps" else values).double()


class Judged(Objective):
    """An objective that looks at pixels as they are, in [0, 1], and may have a judge: a classifier of the same images.

    Parameters
    ----------
    judge
        A trained classifier; or the name of a network that an experiment is to train once, by cross-entropy in the same
        recipe, and look up afterwards ("conv3"). "": none.
    mean, std
        How the pixels were normalised, a value a channel: `fitted` fills them in.

    Raises
    ------
    ValueError
        For a judge that is neither.
    """

    def __init__(self, judge: str | nn.Module = "", mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> None:
        if not isinstance(judge, str | nn.Module):
            raise ValueError(f"judge must be a network or a network's name, not {shown(judge)}")
        self.wanted = judge if isinstance(judge, str) else ""
        self.judge = None if isinstance(judge, str) else deepcopy(judge).eval().requires_grad_(False)
        self.mean, self.std = tuple(mean), tuple(std)

    def taught(self, made: Any, images: Images) -> Self:
        """Return it with its judge trained, where that was only named."""
        return self._changed(judge=made(self.wanted)) if self.wanted else self

    def fitted(self, images: Images) -> Self:
        """Return it for images that are normalised in this way."""
        return self if (self.mean, self.std) == (images.mean, images.std) else self._changed(images.mean, images.std)

    def _changed(self, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), judge: Any = None) -> Self:
        told = {name: value for name, value in self.settings().items() if name not in ("judge", "mean", "std")}
        return type(self)(judge=judge or self.judge or self.wanted, mean=mean or self.mean, std=std or self.std, **told)

    def settings(self) -> dict[str, Any]:
        """Return its judge, and how pixels are normalised where that is known."""
        judged = described_network(self.judge) if self.judge is not None else self.wanted
        told: dict[str, Any] = {"judge": judged} if judged else {}
        return told | ({"mean": list(self.mean), "std": list(self.std)} if self.mean else {})

    def networks(self) -> list[nn.Module]:
        """Return the judge."""
        return [] if self.judge is None else [self.judge]

    def tensors(self) -> Tensors:
        """Return the judge's state dict."""
        return {} if self.judge is None else {name: v.cpu() for name, v in self.judge.state_dict().items()}

    @classmethod
    def rebuilt(cls, settings: Mapping[str, Any], tensors: Tensors) -> Self:
        """Make it anew, with its judge."""
        about = dict(settings)
        if isinstance(about.get("judge"), Mapping):
            about["judge"] = again(about["judge"], tensors)
        return cls(**about)


class Reconstruction(Judged):
    """Give an image back: the mean squared error of pixels in [0, 1]; labels are not looked at.

    Beside the metric `mse` a score has `psnr` = -10 log10(mse) in dB, and with a judge `recognised`: the judge's
    accuracy on the reconstructions over its accuracy on the originals (2010.02350's second measure). Parameters as for
    `Judged`.
    """

    metric, higher_is_better, gives = "mse", False, "images"

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise a `ValueError` for a judge that cannot classify these images; of a partition it knows more classes."""
        if self.judge is None:
            return
        if not images.labelled:
            raise ValueError("these images have no labels: a judge tells whether their classes are recognised")
        try:
            models.check_output(self.judge, images.shape)
        except ValueError as problem:
            raise ValueError(f"the judge: {problem}") from None
        known = models.architecture(self.judge)["classes"]
        if known is not None and known < len(images.classes):
            raise ValueError(f"the judge has {known} outputs, and is to tell {len(images.classes)} classes apart")

    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean squared error of a batch, and its sum over the images."""
        wrong = squared_error(network(pixels), original(pixels, self.mean, self.std))
        return wrong.mean(), wrong.detach().sum()

    @torch.no_grad()
    def score(self, network: nn.Module, images: Images) -> float:
        """Return the mean squared error over some images."""
        network.eval()
        pairs = batches(network, images)
        return sum(float(exact(squared_error(network(given), image)).sum()) for given, image in pairs) / len(images)

    def others(self, network: nn.Module, images: Images) -> dict[str, float]:
        """Return `psnr`, and `recognised` where there is a judge."""
        told = {"psnr": psnr(self.score(network, images))}
        return told | ({"recognised": recognised(self.judge, network, images)} if self.judge is not None else {})

    def chance(self, images: Images) -> float:
        """Return the error of the best single colour: the pixels' variance about the channels' means."""
        return colour_error(images)


class ELBO(Reconstruction):
    """The VAE's loss, a pixel value: squared error + beta KL(q || N(0, I)) / (values of an image).

    This is 2010.02350's sum over an image divided by its number of values: the same minimum, and learning rates that go
    for autoencoders go for it too. With beta = 1 and a Gaussian decoder of variance 1/2 it is the negative evidence
    lower bound but for a constant; beside `mse` and `psnr`, both of the decoded mean, a score has `nats`, that bound
    with its constant in nats a pixel value (lower is better), one draw of the latent an image; `kl`, in nats an image;
    and `active`, how many latent numbers the images move (see `ACTIVE`): none where the posterior is the prior.

    Parameters
    ----------
    beta
        The weight of the divergence, 0 or more.
    sampled
        False: the decoder is trained on the posterior's mean.
    judge, mean, std
        As for `Reconstruction`.

    Raises
    ------
    ValueError
        For a beta that is no number, or negative.
    """

    def __init__(self, beta: float = 1.0, sampled: bool = True, **how: Any) -> None:
        self.beta, self.sampled = plain_number("beta", beta), bool(sampled)
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be 0 or more, not {beta!r}")
        super().__init__(**how)

    def check(self, network: nn.Module, images: Images) -> None:
        """Raise a `ValueError` where the network has no posterior to draw from; for its judge as `Reconstruction`."""
        super().check(network, images)
        if not (hasattr(network, "posterior") and hasattr(network, "decode")):
            raise ValueError(
                f"a {type(network).__name__} has no posterior(pixels) and decode(code, size): it is no VAE"
            )

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse milestones: they are a classifier's, and a divergence that has collapsed does not come back."""
        if recipe.schedule == "step" and any(milestone < recipe.epochs for milestone in recipe.milestones):
            about = "a classifier's recipe with milestones does not go with the VAE's divergence"
            raise ValueError(f"{about}; allowed schedules: cosine, constant")

    def loss(self, network: Any, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch, and the squared error, a mean an image, summed over the images."""
        mean, log_variance = network.posterior(pixels)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.sampled else mean
        wrong = squared_error(network.decode(code, pixels.shape[2:]), original(pixels, self.mean, self.std))
        loss = wrong + self.beta * divergence(mean, log_variance) / pixels[0].numel()
        return loss.mean(), wrong.detach().sum()

    @torch.no_grad()
    def others(self, network: Any, images: Images) -> dict[str, float]:
        """Return `psnr`, `nats`, `kl`, `active`, and `recognised` where there is a judge."""
        network.eval()
        rng, values = generator(0, "posterior", len(images)), math.prod(images.shape)
        wrong, apart, means = 0.0, 0.0, []
        for given, image in batches(network, images):
            mean, log_variance = network.posterior(given)
            drawn = torch.randn(mean.shape, generator=rng).to(mean.device)
            code = mean + drawn * (log_variance / 2).exp()
            wrong += float(exact(squared_error(network.decode(code, image.shape[2:]), image)).sum())
            apart += float(exact(divergence(mean, log_variance)).sum())
            means.append(mean.flatten(1).cpu().double())
        kl = apart / len(images)
        told = {"nats": wrong / len(images) + kl / values + 0.5 * math.log(math.pi), "kl": kl}
        active = torch.cat(means).var(0, correction=0) > ACTIVE
        return super().others(network, images) | told | {"active": int(active.count_nonzero())}

    def settings(self) -> dict[str, Any]:
        """Return beta, how it is trained, and what `Reconstruction` has."""
        return {"beta": self.beta} | ({} if self.sampled else {"sampled": False}) | super().settings()


def squared_error(given: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each image, [N]."""
    return (given - image).square().mean((1, 2, 3))


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) summed over each image's latent, [N], in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def psnr(mse: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1]."""
    return -10 * math.log10(max(mse, 1e-12))


def batches(network: nn.Module, images: Images, size: int = 256) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield images normalised, as networks take them, and as they are, in [0, 1], on the network's device."""
    device = next(network.parameters()).device
    for index in torch.arange(len(images)).split(size):
        pixels = images.batch(index.to(images.labels.device)).to(device)
        yield normalise(pixels, images.mean, images.std), pixels.float() / 255


@torch.no_grad()
def reconstructed(network: nn.Module, images: Images) -> Images:
    """Return what a network gives back of some images, as images: rounded to 256 levels, labelled as they are."""
    network.eval()
    given = [(network(pixels) * 255).round().clamp(0, 255).byte().cpu() for pixels, _ in batches(network, images)]
    return Images(torch.cat(given), images.labels.cpu(), images.classes, images.mean, images.std)


def recognised(judge: nn.Module, network: nn.Module, images: Images) -> float:
    """Return a classifier's accuracy on a network's reconstructions over its accuracy on the images themselves.

    NaN where it recognises none of these.

    Raises
    ------
    ValueError
        Where the judge is no classifier of these classes.
    """
    CROSS_ENTROPY.check(judge, images)
    judge.to(next(network.parameters()).device)
    key = sha256_of(*(value.reshape(-1) for value in judge.state_dict().values())), images.fingerprint()
    if key not in _ORIGINALS:  # every ticket of a study asks the same judge of the same images
        _ORIGINALS[key] = accuracy(judge, images)
    whole = _ORIGINALS[key]
    return accuracy(judge, reconstructed(network, images)) / whole if whole else math.nan


def colour_error(images: Images) -> float:
    """Return the mean squared error of the best single colour: what a network with dead layers can give at best."""
    key = images.fingerprint()
    if key not in _COLOURS:
        _, std = channel_statistics(images)
        _COLOURS[key] = sum(value**2 for value in std) / len(std)
    return _COLOURS[key]
