"""What a result comes from: the model, how it is sampled, and the reward."""

import json
from collections.abc import Mapping
from typing import Any

from diffalign.diffusion import Sampler, fingerprint
from diffalign.diffusion.additions import Additions
from diffalign.diffusion.fingerprint import differing
from diffalign.files import LIBRARIES, versions

#: What is recorded but may differ when a run is resumed.
FREE = ("model", "model_config", "lora", "textual_inversion", "tiling", "dtype", *LIBRARIES)


def provenance(sampler: Sampler, reward: str) -> dict[str, str]:
    """What a result depends on beside the settings of learning, as metadata; `reward` is its name."""
    pipeline = sampler.pipeline
    plain, others = _recordable(sampler.given)
    return {
        "model": str(getattr(pipeline.config, "_name_or_path", "")),
        **Additions.of(pipeline).record(),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "model_fingerprint": fingerprint(pipeline),
        "scheduler": type(pipeline.scheduler).__name__,
        "num_steps": str(sampler.num_steps),
        "guidance_scale": str(sampler.guidance_scale),
        **({"call": json.dumps(plain, ensure_ascii=False)} if plain else {}),
        **({"call_left_out": ", ".join(others)} if others else {}),
        "reward": reward,
        **versions(),
    }


def _recordable(call: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those arguments of the call that a file can hold, and the names of the others, such as images."""
    plain, others = dict[str, Any](), list[str]()
    for name, value in call.items():
        try:
            json.dumps(value)
            plain[name] = value
        except (TypeError, ValueError):
            others.append(name)
    return plain, others


def decisive(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of a result's metadata without which a run cannot go on to the same result."""
    return {name: value for name, value in metadata.items() if name not in FREE}


def disagreeing(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What was recorded and is otherwise now; an older fingerprint is shorter, and may agree."""
    return [
        name
        for name, value in now.items()
        if name in recorded
        and (differing(recorded[name], value) if name == "model_fingerprint" else recorded[name] != value)
    ]
