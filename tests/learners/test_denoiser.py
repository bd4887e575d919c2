"""The learner of a denoiser: nothing depends on how its work is cut, and what it saves is plain diffusers."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import PipelineError
from diffalign.learners.denoiser import DenoiserLearner, build
from diffalign.learners.optimisers import take_step
from diffalign.loop import Round, train
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.settings.fields import ConfigError
from diffalign.settings.tune import TuneConfig
from tests.processes import launch
from tests.toys import AnalyticPolicy

PROMPTS = ["a dog", "a cat"]
SHORT = TuneConfig(
    rounds=2,
    samples=12,
    interval="full",
    branches=1,
    threshold=0.0,
    update_batch=8,
    micro_batch=16,
    learning_rate=1e-3,
    clip_range=0.1,
)
B2 = replace(SHORT, interval="backward", first_steps=2, branches=3, threshold=0.1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return 10 * images.flatten(1).mean(1)


def learner_of(
    folder: Path, config: TuneConfig, batch_size: int = 16, dtype: torch.dtype | None = None, **policy: Any
) -> DenoiserLearner:
    pipeline = load_pipeline(folder, device="cpu", dtype=dtype)
    sampler = Sampler(pipeline, num_steps=4, guidance_scale=2.0, batch_size=batch_size)
    made = DenoiserPolicy(sampler, rank=config.lora_rank, seed=config.seed, **policy)
    return DenoiserLearner(made, PROMPTS, config)


def weights(learner: DenoiserLearner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.policy.learned()])


def run(learner: DenoiserLearner) -> list[Round]:
    return list(train(learner, brightness))


def near(images: Tensor, prompts: list[str]) -> Tensor:
    return -(images - 0.4).square().flatten(1).sum(1)


def test_decisions_count_by_their_variance() -> None:
    def first_loss(weights: str) -> float:
        config = TuneConfig(objective="pg", rounds=1, samples=12, first_steps=3, step_weights=weights)
        return next(train(DenoiserLearner(AnalyticPolicy(), ["a"], config), near)).update.loss

    stds = torch.tensor(AnalyticPolicy().stds[-3:])
    # before the first update every ratio is 1, and the decisions' losses differ by their weights alone
    assert first_loss("variance") == pytest.approx(first_loss("equal") * float(stds.square().mean()))
    assert first_loss("equal") != 0


@pytest.mark.parametrize("config", [SHORT, B2], ids=["full", "b2"])
def test_how_the_work_is_cut_changes_nothing(config: TuneConfig, tiny_pipeline_folder: Path) -> None:
    whole = learner_of(tiny_pipeline_folder, replace(config, micro_batch=16))
    parts = learner_of(tiny_pipeline_folder, replace(config, micro_batch=1), batch_size=1)
    a, b = run(whole), run(parts)
    torch.testing.assert_close(a[-1].images, b[-1].images, rtol=0, atol=1e-4)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=0, atol=1e-5)
    for one, other in zip(a, b, strict=True):
        for name in ("loss", "approx_kl", "clip_fraction"):
            assert one.figures()[name] == pytest.approx(other.figures()[name], abs=1e-4)
    parts.load(*whole.state())  # nor does it keep a run from going on


RESUMED = {
    "full": SHORT,
    "b2": B2,
    "b2-dpo": replace(B2, objective="dpo", threshold=0.0),
    "dpok": replace(SHORT, objective="dpok"),
    "8-bit": replace(SHORT, optimiser="adamw8bit", lora_rank=0, learning_rate=1e-4),
}


@pytest.mark.parametrize("config", RESUMED.values(), ids=RESUMED)
def test_a_resumed_run_ends_alike(config: TuneConfig, tiny_pipeline_folder: Path) -> None:
    config = replace(config, rounds=3)
    whole, half, rest = (learner_of(tiny_pipeline_folder, config) for _ in range(3))
    first = weights(whole)
    rounds = run(whole)
    assert whole.optimiser_steps and not torch.equal(first, weights(whole))
    next(train(half, brightness))
    rest.load(*half.state())
    resumed = run(rest)
    assert torch.equal(rounds[-1].images, resumed[-1].images)
    assert torch.equal(weights(whole), weights(rest))
    with pytest.raises(ConfigError, match="another learner"):
        learner_of(tiny_pipeline_folder, replace(config, learning_rate=0.5)).load(*half.state())


def test_a_second_epoch_leaves_the_policy_that_sampled(tiny_pipeline_folder: Path) -> None:
    """There ratios are no longer 1, and clipping acts; an epoch alone is one step, in which it cannot."""
    config = replace(SHORT, rounds=1, update_batch=12, learning_rate=0.05, clip_range=1e-4)
    updates = []
    for epochs in (1, 2):
        learner = learner_of(tiny_pipeline_folder, replace(config, inner_epochs=epochs))
        (round,) = run(learner)
        updates.append(round.update)
        assert learner.optimiser_steps == epochs
    once, twice = (update.diagnostics for update in updates)
    assert once is not None and once.clip_fraction == 0 and once.max_ratio_error < 1e-6
    assert twice is not None and twice.clip_fraction > 0.25  # of both epochs
    assert updates[1].forwards - updates[0].forwards == 2 * 12 * 4  # guided


def test_a_round_in_which_nothing_is_chosen_is_a_round(tiny_pipeline_folder: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, replace(B2, threshold=50.0))
    before = weights(learner)
    rounds = run(learner)
    assert [r.update.selected for r in rounds] == [0, 0] and learner.optimiser_steps == 0
    assert torch.equal(before, weights(learner))


def test_the_adapter_loads_in_plain_diffusers(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, replace(SHORT, learning_rate=0.05))
    run(learner)
    own = learner.policy.sampler
    learner.policy.save(tmp_path)
    plain = load_pipeline(tiny_pipeline_folder, device="cpu")
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    frozen = Sampler(plain, num_steps=4, guidance_scale=2.0)(noise, "a dog")
    plain.load_lora_weights(tmp_path)
    tuned = Sampler(plain, num_steps=4, guidance_scale=2.0)(noise, "a dog")
    assert torch.equal(tuned, own(noise, "a dog")) and not torch.allclose(tuned, frozen)


def test_two_processes_do_what_one_does(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    configs = [B2, replace(SHORT, objective="dpo")]  # in one launch: two at once may want the same port
    script, saved = tmp_path / "part.py", tmp_path / "weights.safetensors"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "import torch\ntorch.set_num_threads(1)\nfrom safetensors.torch import save_file\n"
        f"from {Path(__file__).stem} import *\n"
        "made = {}\n"
        f"for i, config in enumerate({configs!r}):\n"
        f"    learner = learner_of(Path({str(tiny_pipeline_folder)!r}), config)\n"
        "    run(learner)\n"
        "    assert learner.processes.number == 2\n"
        "    made[str(i)] = weights(learner)\n"
        "if learner.processes.is_main:\n"
        f"    save_file(made, {str(saved)!r})\n"
    )
    launch(script, 2)
    both = load_file(saved)
    for i, config in enumerate(configs):
        alone = learner_of(tiny_pipeline_folder, config)
        run(alone)
        torch.testing.assert_close(both[str(i)], weights(alone), rtol=0, atol=1e-5)


def test_settings_that_teach_nothing_are_refused(tiny_pipeline_folder: Path) -> None:
    many = [f"{number} dogs" for number in range(60)]
    policy = AnalyticPolicy()
    alone = replace(SHORT, objective="pg", min_count=1)
    with pytest.raises(ConfigError, match="none can be the better one"):
        DenoiserLearner(policy, many, alone)
    assert DenoiserLearner(policy, many[:50], alone)
    assert DenoiserLearner(policy, many, replace(SHORT, objective="pg"))  # which takes the round's mean
    assert DenoiserLearner(policy, many, replace(B2, objective="pg"))
    with pytest.raises(ConfigError, match=r"rank 4, the settings say 1\.0 of ddim and 8"):
        DenoiserLearner(policy, many, replace(B2, lora_rank=8))


def test_settings_that_do_not_fit_leave_the_pipeline_as_it_was(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    before = pipeline.unet.state_dict().keys()
    with pytest.raises(ConfigError, match="first_steps"):
        build(Sampler(pipeline, num_steps=4), PROMPTS, replace(B2, first_steps=14), {})
    assert pipeline.unet.state_dict().keys() == before
    assert build(Sampler(pipeline, num_steps=4), PROMPTS, B2, {})


def test_a_step_that_is_left_out_is_said(tiny_pipeline_folder: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, replace(SHORT, update_batch=6))
    step, calls = learner.policy.schedule.transition, 0

    def overflowing_once(*arguments: Any) -> Any:
        nonlocal calls
        mean, std = step(*arguments)
        calls += mean.requires_grad
        return (mean * torch.inf if mean.requires_grad and calls == 1 else mean), std

    learner.policy.schedule.transition = overflowing_once  # type: ignore[method-assign]
    round = next(train(learner, brightness))
    assert round.update.optimiser_steps == 1
    assert "round 1 left out 1 of 2 optimiser steps: its gradients were no numbers" in (round.warning or "")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_learns_without_nan(dtype: torch.dtype, tiny_pipeline_folder: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, B2, dtype=dtype)
    before = weights(learner)
    rounds = run(learner)
    assert learner.policy.dtype == dtype and before.dtype == torch.float32
    assert weights(learner).isfinite().all() and not torch.equal(before, weights(learner))
    assert rounds[0].update.figures["first_ratio_error"] < 1e-5  # log-probabilities are of float32 latents


def test_gradient_checkpointing_changes_nothing(tiny_pipeline_folder: Path) -> None:
    plain = learner_of(tiny_pipeline_folder, SHORT)
    saving = learner_of(tiny_pipeline_folder, SHORT, gradient_checkpointing=True)
    run(plain)
    run(saving)
    assert saving.policy.denoiser.is_gradient_checkpointing
    torch.testing.assert_close(weights(plain), weights(saving), rtol=0, atol=1e-6)


def test_gradients_that_are_no_numbers_change_nothing(tiny_pipeline_folder: Path) -> None:
    """Weights, statistics and state stay finite, and the round says so."""
    learner = learner_of(tiny_pipeline_folder, SHORT)
    before = {name: value.clone() for name, value in learner.tensors().items()}
    step = learner.policy.schedule.transition

    def overflowing(*arguments: Any) -> Any:
        mean, std = step(*arguments)
        return (mean * torch.inf if mean.requires_grad else mean), std

    learner.policy.schedule.transition = overflowing  # type: ignore[method-assign]
    round = next(train(learner, brightness))
    assert round.update.loss is None and round.update.optimiser_steps == 0
    assert "made no optimiser step: its gradients were no numbers; lower the learning rate" in (
        round.warning or ""
    )
    assert all(torch.equal(value, before[name]) for name, value in learner.tensors().items())
    json.dumps(round.figures(), allow_nan=False)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pictures_that_are_no_numbers_end_the_round(value: float, tiny_pipeline_folder: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, SHORT)
    learner.policy.sampler.pipeline.vae.decoder.conv_out.bias.data[0] = value  # type: ignore[attr-defined]
    with pytest.raises(PipelineError, match=r"\d+ of \d+ pictures hold values that are no numbers"):
        next(train(learner, brightness))
    assert learner.rounds == 0


def test_a_step_that_makes_weights_no_numbers_is_refused() -> None:
    """Gradients are numbers, and what the step makes of them is none."""
    weight = torch.nn.Parameter(torch.full((2,), 3e38))
    weight.grad = torch.tensor([0.0, -1.0])
    with pytest.raises(
        PipelineError, match=r"1 of 1 weights hold .*; start again with a lower learning rate"
    ):
        take_step(torch.optim.SGD([weight], lr=3e38), [weight])


def test_weights_that_are_no_numbers_are_not_saved(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_pipeline_folder, SHORT)
    learner.parameters[0].data[0, 0] = torch.nan
    with pytest.raises(PipelineError, match="weights hold values that are no numbers"):
        learner.save(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("objective", "change"),
    [("dpok", {"dpok_regulariser": "epsilon", "dpok_beta": 1e4}), ("dpo", {"dpo_clamp": 1e-6})],
)
def test_what_published_code_does_is_a_setting(
    objective: Literal["dpok", "dpo"], change: dict[str, Any], tiny_pipeline_folder: Path
) -> None:
    config = replace(SHORT, objective=objective, dpok_beta=1e4, dpo_beta=1e3, update_batch=4)
    losses = []
    for settings in (config, replace(config, **change)):
        *_, last = run(learner_of(tiny_pipeline_folder, settings))
        losses.append(last.update.loss)
    assert losses[0] is not None and losses[1] is not None and abs(losses[0] / losses[1] - 1) > 1e-4
