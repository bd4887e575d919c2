r"""A generator learned from the noise that FIND learned.   min_φ −E_{x_T ~ π_FIND(· | c)}[log π_φ(x_T | c)]

References: Hinton et al. (2015), https://arxiv.org/abs/1503.02531
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from diffalign.diffusion.finite import check_finite
from diffalign.learners.optimisers import take_step
from diffalign.policies.gaussian_generator import GaussianGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.choices import shortened
from diffalign.settings.fields import ConfigError


def distil(
    generator: GaussianGenerator,
    noises: Mapping[str, NoiseDistribution],
    *,
    steps: int = 300,
    prompts: int = 8,
    samples: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Fits `generator` to the noise of each prompt; yields each step's loss, in nats an element.

    Arguments:
        noises: what FIND learned, by prompt.
        prompts: how many a step takes.
        samples: of each prompt and step, drawn anew.

    Raises:
        ConfigError: if there is no noise, or it is of latents of another shape.
        NotFiniteError: if a loss is no number.
    """
    if not noises:
        raise ConfigError("there is no learned noise to learn from")
    for prompt, noise in noises.items():
        if noise.latent != generator.shape.latent:
            raise ConfigError(
                f"the noise of {shortened(prompt)!r} has shape {noise.latent}, the generator's "
                f"{generator.shape.latent}"
            )
    texts, optimiser = list(noises), torch.optim.Adam(generator.parameters(), lr=learning_rate)
    for step in range(steps):
        chosen = np.random.default_rng([seed, step]).permutation(len(texts))[:prompts]
        losses = []
        for text in (texts[i] for i in chosen):
            x_T = noises[text].sample(samples, seed, stream="distil", start=step * samples)
            losses.append(-generator(text).log_prob(x_T).mean())
        check_finite("losses", losses)
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()
        take_step(optimiser, list(generator.parameters()), 1.0)
        yield loss.item()
