"""DIFFUSION: the frozen model. The only room, beside the world's recipe, that imports diffusers."""

from diffalign.diffusion.pipeline import PipelineError, fingerprint, list_models, load_pipeline
from diffalign.diffusion.probe import latent_shape
from diffalign.diffusion.protocol import Pipeline
from diffalign.diffusion.sampler import Sampler, seeded_noise

__all__ = [
    "Pipeline",
    "PipelineError",
    "Sampler",
    "fingerprint",
    "latent_shape",
    "list_models",
    "load_pipeline",
    "seeded_noise",
]
