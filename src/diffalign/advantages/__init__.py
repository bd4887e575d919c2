"""ADVANTAGE: calibrated rewards. Each function maps rewards `(B,)` to advantages of the same shape."""

from diffalign.advantages.baselines import leave_one_out, rank, standardise
from diffalign.advantages.drcm import ValueNet

__all__ = ["ValueNet", "leave_one_out", "rank", "standardise"]
