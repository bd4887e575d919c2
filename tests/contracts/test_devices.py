"""No tensor is left on the wrong device: each method on a model that is elsewhere, of several families."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign import Sampler, anchors, find, load_pipeline, noise_ppo, search, tune
from diffalign.diffusion.encoding import text_encoders
from diffalign.diffusion.probe import prompt_states
from tests.device import ELSEWHERE, elsewhere, refuses
from tests.families import BY_NAME, save_family

FAMILIES = (
    "stable_diffusion",
    "stable_diffusion_xl",
    "stable_diffusion_3",
    "flux",
    "flux_2",
    "z_image",
    "wan",
    "cog_video_x",
)
PROMPTS = ["a red dog", "a cat on a mat"]


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    folder = save_family(request.param, tmp_path_factory.mktemp("away") / request.param)
    return folder, {"num_steps": 3, "batch_size": 4, "call": BY_NAME[request.param][1]}


def test_the_other_device_is_another() -> None:
    pipeline = torch.nn.Linear(2, 2)
    with elsewhere(type("P", (), {"components": {"part": pipeline}})()):
        away = torch.ones(3, 2).to(ELSEWHERE)
        assert away.device == ELSEWHERE and away.cpu().device.type == "cpu"
        assert float(away.sum()) == 6 and (away + 1).tolist() == [[2, 2]] * 3
        loss = pipeline(away).square().mean()
        loss.backward()
        assert pipeline.weight.grad.device == ELSEWHERE and pipeline.weight.grad.cpu().abs().sum() > 0
        assert refuses(lambda: away + torch.ones(3, 2)) and refuses(lambda: pipeline(torch.ones(3, 2)))
        assert refuses(lambda: away.numpy()) and not refuses(lambda: away * torch.tensor(2.0))


@pytest.mark.parametrize("offload", [False, True], ids=["all", "without-text-encoders"])
def test_pictures_are_those_of_the_cpu(family: Any, offload: bool) -> None:
    """Also with text encoders that wait on the CPU, and are elsewhere while they encode alone."""
    folder, settings = family
    given = {**settings, **settings["call"]}
    del given["call"]
    here = Sampler(load_pipeline(folder, device="cpu"), **given)
    noise = torch.randn(3, *here.latent_shape, generator=torch.Generator().manual_seed(0))
    expected = here(noise, [*PROMPTS, PROMPTS[0]])
    loaded, encoded = load_pipeline(folder, device="cpu"), list[torch.device]()
    encoders = text_encoders(loaded)
    with elsewhere(loaded, but=encoders if offload else ()) as pipeline:
        for encoder in encoders.values():
            encoder.register_forward_pre_hook(lambda encoder, _: encoded.append(encoder.device))
        sampler = Sampler(pipeline, **given)
        made = sampler(noise, [*PROMPTS, PROMPTS[0]])
        torch.testing.assert_close(made.cpu(), expected, atol=1e-4, rtol=0)
        prompt_states(pipeline, PROMPTS[0], **settings["call"])
        assert encoders and set(encoded) == {ELSEWHERE}
        waits = torch.device("cpu") if offload else ELSEWHERE
        assert all(encoder.device == waits for encoder in encoders.values())
        encoded.clear()
        sampler(noise, PROMPTS[0])
        assert not encoded


METHODS: dict[str, Any] = {
    "find": lambda p, s: find(p, PROMPTS[0], brightness, queries=24, **s),
    "search": lambda p, s: search(p, PROMPTS[0], brightness, algorithm="zero-order", queries=8, keep=2, **s),
    "noise-ppo": lambda p, s: noise_ppo(
        p, PROMPTS, brightness, rounds=1, prompts_per_round=2, samples_per_prompt=2, **s
    ),
    "anchors": lambda p, s: anchors(
        p, PROMPTS, brightness, rounds=2, prompts_per_round=2, samples_per_prompt=2, **s
    ),
    "tune": lambda p, s: tune(
        p,
        PROMPTS,
        brightness,
        preset="b2-dpok",
        rounds=2,
        samples=6,
        first_steps=2,
        threshold=0.0,
        update_batch=6,
        min_count=2,
        lora_rank=2,
        **{**s, "num_steps": 4},
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_leaves_no_tensor_behind(family: Any, method: str, tmp_path: Path) -> None:
    folder, settings = family
    with elsewhere(load_pipeline(folder, device="cpu")) as pipeline:
        run = METHODS[method](pipeline, settings)
        for step in run:
            assert step.rewards.isfinite().all()
        run.result.save(tmp_path / ("lora" if method == "tune" else "learned.safetensors"))
