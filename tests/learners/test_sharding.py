"""A denoiser that two processes divide learns what a whole one does, whatever each of them has to make."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from diffalign import Sampler, load_pipeline, tune
from diffalign.diffusion import PipelineError, fingerprint, seeded_noise
from diffalign.diffusion.sharding import DividedDenoiser, layers_of
from diffalign.files import LORA
from diffalign.learners.denoiser import DenoiserLearner, build
from diffalign.learners.processes import PATIENCE, divide
from diffalign.loop import train
from diffalign.settings.fields import ConfigError
from diffalign.settings.tune import TuneConfig
from tests.diffusion.test_memory import Small
from tests.processes import launch

#: Three groups, of which one process makes one more than the other.
UNEVEN = TuneConfig(samples=9, rounds=1, first_steps=2, threshold=0.1, learning_rate=1e-3)
CONFIGS = {
    "resumed": replace(UNEVEN, rounds=2),
    "checkpoints": replace(UNEVEN, objective="dpok", gradient_checkpointing=True, update_batch=4),
    "memory": UNEVEN,
}
PROMPTS = ["a dog", "a cat"]
ADAPTER = "pytorch_lora_weights.safetensors"


def learner_of(folder: Path, config: TuneConfig) -> DenoiserLearner:
    pipeline = load_pipeline(folder, device="cpu")
    if config.shard:
        divide(pipeline, "cpu")
    sampler = Sampler(pipeline, num_steps=3, guidance_scale=2.0, batch_size=6)
    return build(sampler, PROMPTS, config, {"model": fingerprint(pipeline)})


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return 10 * images.flatten(1).mean(1)


def outcome(learner: DenoiserLearner) -> dict[str, Tensor]:
    """What was learned, and pictures of it and of the frozen model."""
    sampler = learner.policy.sampler
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(2))
    with learner.frozen():
        frozen = sampler(noise, "a dog")
    return {"tuned": sampler(noise, "a dog"), "frozen": frozen, **learner.tensors()}


def count(network: nn.Module, whole: bool) -> int:
    """The denoiser's own weights, or those that this process holds."""
    weights: list[Any] = [weight for name, weight in network.named_parameters() if "lora" not in name]
    return sum((w if whole or not isinstance(w, DTensor) else w.to_local()).numel() for w in weights)


def learn_in_two(folder: Path, saved: Path) -> None:
    """What each of the two processes does."""
    for name, config in CONFIGS.items():
        learner = learner_of(folder, replace(config, shard=True))
        network, main = learner.policy.denoiser, learner.processes.is_main
        divided = learner.processes.divided
        assert learner.processes.number == 2 and divided is not None
        for layer in divided.layers:
            assert count(layer, whole=False) == pytest.approx(count(layer, whole=True) / 2, rel=0.1)
        if name == "memory" and main:  # which has more to make
            Small(network, 6)
            Small(network.conv_out, 4, backward=True)
        rounds = train(learner, brightness)
        next(rounds)
        if name == "resumed":
            state, learner = learner.state(), learner_of(folder, replace(config, shard=True))
            learner.load(*state)
            rounds = train(learner, brightness)
        assert len(list(rounds)) == config.rounds - 1
        if main:  # while the other attends
            save_file(outcome(learner), saved / f"{name}.safetensors", learner.metadata)
            learner.save(saved / name)
        learner.processes.attend()
        assert count(network, whole=False) < 0.6 * count(network, whole=True)


def test_two_processes_divide_the_denoiser(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "part.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "import torch\ntorch.set_num_threads(1)\nfrom pathlib import Path\n"
        f"from {Path(__file__).stem} import learn_in_two\n"
        f"learn_in_two(Path({str(tiny_pipeline_folder)!r}), Path({str(tmp_path)!r}))\n"
    )
    launch(script, 2, seconds=240)
    for name, config in CONFIGS.items():
        learner = learner_of(tiny_pipeline_folder, config)
        list(train(learner, brightness))
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as opened:
            assert opened.metadata() == learner.metadata  # of the whole model
        torch.testing.assert_close(
            load_file(tmp_path / f"{name}.safetensors"), outcome(learner), rtol=0, atol=1e-5
        )
        learner.save(tmp_path / "whole")
        divided, whole = (load_file(tmp_path / part / LORA / ADAPTER) for part in (name, "whole"))
        torch.testing.assert_close(divided, whole, rtol=0, atol=1e-5)


def test_what_cannot_be_divided_is_said(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    with pytest.raises(ConfigError, match="this is the only one; start several: torchrun"):
        tune(pipeline, PROMPTS, brightness, num_steps=3, first_steps=2, shard=True)
    with pytest.raises(ConfigError, match="lora_rank 0 tunes its own weights"):
        TuneConfig(shard=True, lora_rank=0)
    with pytest.raises(PipelineError, match="has no blocks"):
        DividedDenoiser(
            SimpleNamespace(unet=nn.Linear(2, 2), scheduler=pipeline.scheduler), torch.device("cpu"), PATIENCE
        )


def test_layers_are_blocks_that_hold_no_others(tiny_pipeline: Any, tiny_video_pipeline: Any) -> None:
    unet = tiny_pipeline.unet
    layers = layers_of(unet)
    assert {type(layer).__name__ for layer in layers} == {"ResnetBlock2D", "BasicTransformerBlock"}
    # of which diffusers says nothing
    unet = tiny_video_pipeline.unet
    assert [*unet.down_blocks, *unet.up_blocks] == [
        x for x in layers_of(unet) if "Block3D" in type(x).__name__
    ]
