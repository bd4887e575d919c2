"""STRATEGY: which of a trajectory's decisions are visited, and how samples group."""

from diffalign.strategies.branches import Branches
from diffalign.strategies.interval import backward_interval, full_interval

__all__ = ["Branches", "backward_interval", "full_interval"]
