"""The objectives of a denoiser's decisions, as a table: what each needs, and its loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.objectives import dpo_loss, dpok_loss, gaussian_kl, policy_gradient_loss, ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.settings.tune import TuneConfig

Loss = tuple[Tensor, Diagnostics]


class Decision(NamedTuple):
    """One decision of several samples.

    Attributes:
        x_next: what was decided, `(B, *latent)`.
        log_prob, old_log_prob, advantage: with shape `(B, 1)`, on the CPU.
        mean, std: of the decision, `(B, *latent)` and a number.
        pretrained_mean: likewise, before any learning; `mean` where the objective does not read it.
        epsilon_weight: ‖ε̂ − ε̂_0‖² of the predicted noise, in divergences from the pretrained decision.
    """

    x_next: Tensor
    log_prob: Tensor
    old_log_prob: Tensor
    advantage: Tensor
    mean: Tensor
    std: float
    pretrained_mean: Tensor
    epsilon_weight: float

    @property
    def ratios(self) -> tuple[Tensor, Tensor, Tensor]:
        """What objectives with ratios of probabilities read."""
        return self.log_prob, self.old_log_prob, self.advantage


def _dpok(decision: Decision, config: TuneConfig) -> Loss:
    divergence = gaussian_kl(decision.mean, decision.pretrained_mean, decision.std)[:, None].cpu()
    weight = decision.epsilon_weight if config.dpok_regulariser == "epsilon" else 1.0
    return dpok_loss(
        *decision.ratios,
        weight * divergence,
        clip_range=config.clip_range,
        alpha=config.dpok_alpha,
        beta=config.dpok_beta,
    )


def _dpo(decision: Decision, config: TuneConfig) -> Loss:
    reference = gaussian_log_prob(decision.x_next, decision.pretrained_mean, decision.std)[:, None].cpu()
    return dpo_loss(decision.log_prob, reference, beta=config.dpo_beta, clamp=config.dpo_clamp)


@dataclass(frozen=True)
class Objective:
    """What an objective needs.

    Attributes:
        loss: of a decision.
        pretrained: whether it reads what the denoiser said before any learning.
        unit: samples that are learned from together: 2 of a winner and a loser.
        clips: whether it clips ratios of probabilities.
    """

    loss: Callable[[Decision, TuneConfig], Loss]
    pretrained: bool = False
    unit: int = 1
    clips: bool = False


#: By the name of `TuneConfig.objective`.
OBJECTIVES: Mapping[str, Objective] = {
    "pg": Objective(lambda decision, config: policy_gradient_loss(*decision.ratios)),
    "ppo": Objective(
        lambda decision, config: ppo_loss(*decision.ratios, clip_range=config.clip_range), clips=True
    ),
    "dpok": Objective(_dpok, pretrained=True, clips=True),
    "dpo": Objective(_dpo, pretrained=True, unit=2),
}
