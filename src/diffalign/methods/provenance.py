"""What a result comes from: the model, how it is sampled, and the reward."""

from collections.abc import Mapping

from diffalign.diffusion import Sampler, fingerprint
from diffalign.files import LIBRARIES, versions

#: What is recorded but may differ when a run is resumed.
FREE = ("model", "dtype", *LIBRARIES)


def provenance(sampler: Sampler, reward: str) -> dict[str, str]:
    """What a result depends on beside the settings of learning, as metadata; `reward` is its name."""
    pipeline = sampler.pipeline
    return {
        "model": str(getattr(pipeline.config, "_name_or_path", "")),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "model_fingerprint": fingerprint(pipeline),
        "scheduler": type(pipeline.scheduler).__name__,
        "num_steps": str(sampler.num_steps),
        "guidance_scale": str(sampler.guidance_scale),
        "reward": reward,
        **versions(),
    }


def decisive(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of a result's metadata without which a run cannot go on to the same result."""
    return {name: value for name, value in metadata.items() if name not in FREE}
