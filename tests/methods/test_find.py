from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from diffalign.diffusion import PipelineError, Sampler, fingerprint
from diffalign.methods import Find
from diffalign.training import NoiseConfig

CONFIG = NoiseConfig(queries=5, batch=3, seed=3)


def red(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def test_a_pipeline_without_a_denoiser_fails_before_learning() -> None:
    bare: Any = SimpleNamespace(
        pipeline=SimpleNamespace(scheduler=None), latent_shape=(4, 8, 8), num_steps=2, guidance_scale=None
    )
    with pytest.raises(PipelineError, match="neither a unet nor a transformer"):
        Find(bare, "a dog", red, CONFIG)


def test_the_origin_is_known_from_the_start(tiny_pipeline: Any) -> None:
    run = Find(Sampler(tiny_pipeline, num_steps=2, guidance_scale=2.0), "a dog", red, CONFIG)
    assert run.origin == {
        "model_fingerprint": fingerprint(tiny_pipeline),
        "prompt": "a dog",
        "scheduler": "DDIMScheduler",
        "num_steps": "2",
        "guidance_scale": "2.0",
        "reward": "red",
        "seed": "3",
    }
    metadata = run.run().metadata
    assert metadata.items() > run.origin.items() and metadata["queries"] == "5"


def test_the_model_is_fingerprinted_once(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        "diffalign.methods.origins.fingerprint", lambda pipeline: calls.append(pipeline) or "abc"
    )
    run = Find(Sampler(tiny_pipeline, num_steps=2), "a dog", red, CONFIG)
    assert len(calls) == 1
    assert [run.distribution.metadata["model_fingerprint"] for _ in range(3)] == ["abc"] * 3
    assert len(calls) == 1
