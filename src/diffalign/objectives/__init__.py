"""OBJECTIVE: pure functions from log-probabilities and advantages to a loss and its diagnostics."""

from diffalign.objectives.policy_gradient import policy_gradient_loss
from diffalign.objectives.ppo import ppo_loss

__all__ = ["policy_gradient_loss", "ppo_loss"]
