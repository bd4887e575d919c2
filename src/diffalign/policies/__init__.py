"""POLICY: distributions over a sample's decisions."""

from diffalign.policies.anchor_generator import AnchorGenerator, AnchorShape
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.mixture import MixturePolicy
from diffalign.policies.noise import NoiseDistribution, NoisePolicy

__all__ = [
    "AnchorGenerator",
    "AnchorShape",
    "GaussianGenerator",
    "GaussianShape",
    "MixturePolicy",
    "NoiseDistribution",
    "NoiseGenerator",
    "NoisePolicy",
]
