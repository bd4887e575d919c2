"""DIFFUSION: the frozen model. The only room, beside the world's recipe, that imports diffusers."""

from diffalign.diffusion.fingerprint import fingerprint
from diffalign.diffusion.loading import load_pipeline
from diffalign.diffusion.pipeline import PipelineError, list_models
from diffalign.diffusion.protocol import Pipeline
from diffalign.diffusion.sampler import Sampler, seeded_noise

__all__ = [
    "Pipeline",
    "PipelineError",
    "Sampler",
    "fingerprint",
    "list_models",
    "load_pipeline",
    "seeded_noise",
]
