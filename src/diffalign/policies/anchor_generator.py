r"""A mixture around K anchors: fixed noises that all prompts share.

    π(x_T | c) = Σ_k w_k(c) N(a c_k, (1 − a²) I)
    w(c) = argmax_w Σ_k w_k q_k(c)  with  KL(w ‖ 1/K) ≤ log(K/n)       (REPS)
    q_k(c) = Σ_p κ(c, c_p) α_pk                                         (a Gaussian process's mean)
    κ(c, c') = κ_0 + (1 − κ_0) (1 + d²/(4 l²))⁻²

The anchors are samples of N(0, I). What each is worth to a prompt is learned for prompts of training, and
carries over to others as far as the text encoder finds them alike: the kernel is rational quadratic (α = 2),
whose long tail lets prompts that are little alike say a little of each other.

Symbols:    c = prompt, c_p = prompts of training, c_k = anchors, w = weights, a = correlation, q = expected
            reward less the prompt's mean, n = anchors that a prompt's noise is drawn from, κ = kernel,
            κ_0 = what all prompts share, d = distance of prompts, l = length
References: Peters et al. (AAAI 2010), relative entropy policy search, https://doi.org/10.1609/aaai.v24i1.7727
            Krause and Ong (NeurIPS 2011), contextual Gaussian process bandits
            Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, section 4.2
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.policies.reps import reps_weights
from diffalign.settings.fields import NotNegative, NotNegativeFloat, Positive, PositiveFloat, Settings, Share

STREAM = "places"  # of random numbers: under another name a seed would give other anchors


@dataclass(frozen=True)
class AnchorShape(Settings):
    """What a generator of anchors is made of.

    Attributes:
        latent: the shape of one latent, `(C, H, W)`.
        text_width: d of the prompt's token states.
        prompts: P, of training.
        components: K, anchors.
        correlation: a, of samples with their anchor.
        effective: n, anchors that a prompt's noise is drawn from: exp of its weights' entropy.
        length: l, of features with length 1; docs/anchors.md says how it was chosen.
        shared: κ_0.
    """

    latent: tuple[Positive, ...]
    text_width: Positive
    prompts: NotNegative
    components: Positive
    correlation: Share = 0.99
    effective: PositiveFloat = 4.0
    length: PositiveFloat = 0.2
    shared: NotNegativeFloat = 0.01


class AnchorGenerator(NoiseGenerator):
    """Anchors, and what each is worth to a prompt; at first all are worth the same.

    Attributes:
        anchors: c, `(K, *latent)`.
        features: of the prompts of training, `(P, d)`, of length 1.
        centre: the mean of their token states' means, `(d,)`.
        coefficients: α, `(P, K)`, in units of the reward.
    """

    kind = "anchors"
    shape_type = AnchorShape
    shape: AnchorShape
    anchors: Tensor
    features: Tensor
    centre: Tensor
    coefficients: Tensor

    @classmethod
    def sizes(cls, shape: AnchorShape) -> Mapping[str, tuple[int, ...]]:
        return {
            "anchors": (shape.components, *shape.latent),
            "features": (shape.prompts, shape.text_width),
        }

    def make(self, seed: int) -> None:
        shape = self.shape
        anchors = seeded_noise(shape.latent, seed, STREAM, range(shape.components))
        self.register_buffer("anchors", anchors)
        self.register_buffer("features", torch.zeros(shape.prompts, shape.text_width))
        self.register_buffer("centre", torch.zeros(shape.text_width))
        self.register_buffer("coefficients", torch.zeros(shape.prompts, shape.components))

    def learn_from(self, prompts: Sequence[str]) -> None:
        """Takes `prompts` for those of training."""
        means = torch.stack([self.states(prompt).mean(0) for prompt in prompts])
        self.centre.copy_(means.mean(0) if len(prompts) > 1 else torch.zeros_like(means[0]))
        self.features.copy_(torch.stack([self.feature(prompt) for prompt in prompts]))

    def feature(self, prompt: str) -> Tensor:
        """The mean of the prompt's token states less `centre`, with length 1."""
        return torch.nn.functional.normalize(self.states(prompt).mean(0) - self.centre, dim=0)

    def values(self, prompt: str) -> Tensor:
        """What each anchor's pictures are expected to earn above the prompt's mean, `(K,)`."""
        return self.kernel(self.feature(prompt)[None])[0] @ self.coefficients

    def kernel(self, features: Tensor) -> Tensor:
        """κ of features `(Q, d)` and those of training, `(Q, P)`."""
        squared = torch.cdist(features, self.features).square()
        shape = self.shape
        return shape.shared + (1 - shape.shared) * (1 + squared / (4 * shape.length**2)) ** -2

    def forward(self, prompt: str, effective: float | None = None) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise, drawn from about `effective` anchors."""
        weights = reps_weights(self.values(prompt), self.shape.effective if effective is None else effective)
        correlation = self.shape.correlation
        std = torch.full_like(self.anchors, math.sqrt(1 - correlation**2))
        return NoiseDistribution(correlation * self.anchors, std, self.shape.latent, weights=weights)

    def start(self, prompt: str, n: int) -> NoiseDistribution:
        """From about n / 2 anchors, as a few alone would leave nothing to choose from; and from N(0, I) as
        far as no prompt of training is like this one."""
        noise = self(prompt, max(self.shape.effective, min(n, self.shape.components) / 2))
        assert noise.weights is not None
        alike = self.kernel(self.feature(prompt)[None]).max().clamp(max=1)
        return replace(
            noise,
            mean=torch.cat([noise.mean, torch.zeros_like(noise.mean[:1])]),
            std=torch.cat([noise.std, torch.ones_like(noise.std[:1])]),
            weights=torch.cat([alike * noise.weights, 1 - alike[None]]),
        )

    def nearest(self, x_T: Tensor) -> Tensor:
        """The number of each sample's anchor, `(B, *latent)` → `(B,)`."""
        return torch.cdist(x_T.flatten(1), self.shape.correlation * self.anchors.flatten(1)).argmin(1)

    def divergence(self, noise: NoiseDistribution) -> Tensor:
        """KL of the weights from equal ones."""
        assert noise.weights is not None
        return torch.xlogy(noise.weights, noise.weights).sum() + math.log(len(noise.weights))
