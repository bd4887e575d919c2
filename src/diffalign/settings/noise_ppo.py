"""Noise PPO: a Gaussian generator of noise (Miao et al. 2025, https://arxiv.org/abs/2506.12036)."""

from dataclasses import dataclass
from typing import Literal

from diffalign.settings.amortised import AmortisedConfig
from diffalign.settings.fields import (
    ConfigError,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Share,
    check_basis,
)


@dataclass(frozen=True)
class NoisePPOConfig(AmortisedConfig):
    """How a Gaussian generator is learned by PPO.

    Attributes:
        basis: Where the noise is learned: identity (every element), or dctK (the K×K lowest frequencies).
        std: Whether the std is learned, or preserves second moments (s² = 1 − m²).
        baseline: What a reward is compared with: the prompt's other samples of the round (leave-one-out), a
            network's guess from the prompt (value), or the prompt's mean over the last 8 rounds (running).
        epochs: How often learning passes over a round's samples.
        minibatch: How many prompts an optimiser step is made from.
        clip_range: The range ε of PPO, on ratios of whole decisions, scaled so that it means the same for any
            latent.
        kl_weight: The weight of KL(π ‖ N(0, I)), in nats.
        learning_rate: The learning rate of Adam.
        max_grad_norm: The norm that a larger gradient is scaled down to.
        hidden_size: The width of the generator's network.
        layers: How many layers of cross-attention the network has.
        heads: How many heads of attention a layer has.
        patch: The side of the patch of the latent that one query decides on.
    """

    basis: str = "identity"
    std: Literal["learned", "preserving"] = "learned"
    baseline: Literal["leave-one-out", "value", "running"] = "value"
    epochs: Positive = 2
    minibatch: Positive = 8
    clip_range: Share = 0.2
    kl_weight: NotNegativeFloat = 1e-3
    learning_rate: PositiveFloat = 1e-4
    max_grad_norm: PositiveFloat = 1.0
    hidden_size: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    patch: Positive = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_basis(self.basis)
        if self.hidden_size % self.heads:
            raise ConfigError(f"a hidden_size of {self.hidden_size} does not split into {self.heads} heads")
        if self.baseline == "leave-one-out" and self.samples_per_prompt < 2:
            raise ConfigError(
                "baseline leave-one-out compares samples of a prompt: samples_per_prompt must be above 1"
            )


#: `paper` is the paper's form: μ_φ(c) and σ_φ(c) of every element, a value head, PPO and KL. Its numbers
#: have no published source: we found none in the paper that we could verify, so all of them are our choice.
PRESETS = {
    "default": NoisePPOConfig(),
    "paper": NoisePPOConfig(
        basis="identity", std="learned", baseline="value", kl_weight=1e-3, learning_rate=1e-4
    ),
}
