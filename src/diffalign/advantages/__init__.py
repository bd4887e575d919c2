"""ADVANTAGE: calibrated rewards: pure functions and running statistics, from rewards `(B,)` to advantages."""

from diffalign.advantages.baselines import leave_one_out, rank, standardise
from diffalign.advantages.drcm import ValueNet

__all__ = ["ValueNet", "leave_one_out", "rank", "standardise"]
