"""POLICY: distributions over a sample's decisions."""

from diffalign.policies.noise import ArtifactError, NoiseDistribution, NoisePolicy

__all__ = ["ArtifactError", "NoiseDistribution", "NoisePolicy"]
