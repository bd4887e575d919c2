"""What tells models apart, and what does not."""

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from peft import LoraConfig

from diffalign import Sampler, load_pipeline, tune
from diffalign.diffusion import fingerprint
from diffalign.diffusion.fingerprint import PARTS, differing
from diffalign.diffusion.pipeline import with_ddim
from diffalign.files import ArtifactError
from diffalign.policies.noise import check_fingerprint

DENOISER, OTHERS, SCHEDULER = PARTS


@pytest.fixture
def pipeline(tiny_pipeline_folder: Path) -> Any:
    return load_pipeline(tiny_pipeline_folder, device="cpu")


@pytest.fixture
def before(pipeline: Any) -> str:
    return fingerprint(pipeline)


def add_adapter(pipeline: Any, part: str = "unet") -> None:
    targets = ["to_q"] if part == "unet" else ["q_proj"]
    getattr(pipeline, part).add_adapter(LoraConfig(r=2, target_modules=targets))


def change(part: str) -> Callable[[Any], None]:
    def add(pipeline: Any) -> None:
        next(getattr(pipeline, part).parameters()).data.view(-1)[0] += 1

    return add


def set_config(part: str, **settings: Any) -> Callable[[Any], None]:
    def change(pipeline: Any) -> None:
        module = getattr(pipeline, part)
        if hasattr(module, "register_to_config"):
            module.register_to_config(**settings)
        else:
            module.config.update(settings)

    return change


def add_token(pipeline: Any) -> None:
    embedding = torch.randn(pipeline.text_encoder.config.hidden_size)
    pipeline.load_textual_inversion(embedding, token="<new>")


def ddim(**settings: Any) -> Callable[[Any], None]:
    def change(pipeline: Any) -> None:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **settings)

    return change


def euler(pipeline: Any) -> None:
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        (change("unet"), [DENOISER]),
        (change("text_encoder"), [OTHERS]),
        (change("vae"), [OTHERS]),
        (set_config("unet", act_fn="gelu"), [OTHERS]),
        (set_config("vae", scaling_factor=0.5), [OTHERS]),
        (set_config("text_encoder", hidden_act="gelu"), [OTHERS]),
        (add_adapter, [DENOISER, OTHERS]),
        (lambda pipeline: add_adapter(pipeline, "text_encoder"), [OTHERS]),
        (add_token, [OTHERS]),
        (euler, [SCHEDULER]),
        (ddim(timestep_spacing="trailing"), [SCHEDULER]),
        (ddim(beta_end=0.01), [SCHEDULER]),
    ],
)
def test_all_that_changes_pictures_changes_it(
    changed: Callable[[Any], None], parts: list[str], pipeline: Any, before: str
) -> None:
    changed(pipeline)
    assert differing(before, fingerprint(pipeline)) == parts


def test_how_strongly_an_adapter_acts_and_what_a_token_means_change_it(pipeline: Any) -> None:
    add_adapter(pipeline)
    full = fingerprint(pipeline)
    pipeline.unet.set_adapters("default", 0.5)
    assert differing(full, fingerprint(pipeline)) == [OTHERS]
    pipeline.unet.set_adapters("default", 1.0)
    assert fingerprint(pipeline) == full
    pipeline.unet.disable_adapters()
    assert differing(full, fingerprint(pipeline)) == [OTHERS]
    add_token(pipeline)
    known = fingerprint(pipeline)
    table = pipeline.text_encoder.get_input_embeddings().weight
    table.data[len(table) // 2 :] *= 2
    assert differing(known, fingerprint(pipeline)) == [OTHERS]


def test_what_changes_no_picture_does_not_change_it(
    pipeline: Any, before: str, tiny_pipeline_folder: Path, tmp_path: Path
) -> None:
    Sampler(pipeline, num_steps=2)(torch.zeros(1, 4, 8, 8), "a dog")
    pipeline.safety_checker = torch.nn.Linear(1, 1)
    pipeline.unet.register_to_config(_name_or_path="elsewhere", _diffusers_version="1")
    assert fingerprint(pipeline) == before
    pipeline.safety_checker = None
    pipeline.save_pretrained(tmp_path)
    assert fingerprint(load_pipeline(tmp_path, device="cpu")) == before
    half = load_pipeline(tiny_pipeline_folder, device="cpu", dtype=torch.float16)
    assert fingerprint(half) == before


def test_ddim_of_ddim_is_the_same_and_of_another_scheduler_another(pipeline: Any, before: str) -> None:
    assert fingerprint(with_ddim(pipeline)) == before
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config)
    assert differing(fingerprint(pipeline), fingerprint(with_ddim(pipeline))) == [SCHEDULER]
    assert fingerprint(with_ddim(pipeline)) == fingerprint(with_ddim(deepcopy(pipeline)))


@pytest.mark.parametrize("rank", [2, 0])
def test_learning_does_not_change_what_is_recorded(pipeline: Any, before: str, rank: int) -> None:
    settings: dict[str, Any] = {"rounds": 1, "samples": 12, "first_steps": 2, "threshold": 0.0}
    run = tune(
        pipeline,
        ["a dog", "a cat"],
        lambda images, prompts: images[:, 0].mean((1, 2)),
        num_steps=4,
        learning_rate=0.1,
        lora_rank=rank,
        **settings,
    )
    run.run()
    assert run.learner.metadata["model_fingerprint"] == before != fingerprint(pipeline)
    with run.learner.frozen():
        assert bool(rank) == (before != fingerprint(pipeline))  # an adapter that is off is there
    run.learner.policy.unload()
    assert fingerprint(pipeline) == before


def test_what_differs_is_named_and_a_scheduler_may_be_let_pass(pipeline: Any, before: str) -> None:
    euler(pipeline)
    other = fingerprint(pipeline)
    with pytest.raises(ArtifactError, match=r"it has another scheduler$"):
        check_fingerprint({"model_fingerprint": before}, other)
    check_fingerprint({"model_fingerprint": before}, other, any_scheduler=True)
    change("vae")(pipeline)
    with pytest.raises(ArtifactError, match=r"another text encoder, .* or adapter and another scheduler$"):
        check_fingerprint({"model_fingerprint": before}, fingerprint(pipeline), any_scheduler=True)


def test_a_fingerprint_of_before_is_that_of_the_denoiser(pipeline: Any, before: str) -> None:
    old = before.partition("-")[0]
    assert len(old) == 12
    change("vae")(pipeline)
    check_fingerprint({"model_fingerprint": old}, fingerprint(pipeline))
    change("unet")(pipeline)
    with pytest.raises(ArtifactError, match=r"it has another denoiser$"):
        check_fingerprint({"model_fingerprint": old}, fingerprint(pipeline))


def test_it_is_fast() -> None:
    world = load_pipeline("world", device="cpu")
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        fingerprint(world)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.1


def test_tiles_are_part_of_the_model(pipeline: Any, before: str) -> None:
    pipeline.vae.enable_slicing()  # which decodes the same
    assert fingerprint(pipeline) == before
    pipeline.vae.enable_tiling()
    tiled = fingerprint(pipeline)
    assert differing(before, tiled) == [OTHERS]
    pipeline.vae.tile_overlap_factor = 0.5
    assert differing(tiled, fingerprint(pipeline)) == [OTHERS]
    pipeline.vae.disable_tiling()
    assert fingerprint(pipeline) == before
