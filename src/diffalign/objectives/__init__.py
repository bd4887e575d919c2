"""OBJECTIVE: pure functions from log-probabilities and advantages to a loss and its diagnostics."""

from diffalign.objectives.dpo import dpo_loss
from diffalign.objectives.dpok import dpok_loss, gaussian_kl
from diffalign.objectives.policy_gradient import policy_gradient_loss
from diffalign.objectives.ppo import ppo_loss

__all__ = ["dpo_loss", "dpok_loss", "gaussian_kl", "policy_gradient_loss", "ppo_loss"]
