"""POLICY: distributions over a sample's decisions."""

from diffalign.policies.mixture import MixturePolicy
from diffalign.policies.noise import ArtifactError, NoiseDistribution, NoisePolicy

__all__ = ["ArtifactError", "MixturePolicy", "NoiseDistribution", "NoisePolicy"]
