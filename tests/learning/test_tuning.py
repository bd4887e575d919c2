"""A denoiser learns: what it is rewarded for rises, and nothing depends on how the work is cut."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.diffusion.transition import ddim_scheduler, ddim_std, ddim_transition
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rollout import collect_trajectories
from diffalign.strategies import Branches
from diffalign.training import ConfigError, Round, TuneConfig, Tuner, tune

PROMPTS = ["a dog", "a cat"]
SHORT = TuneConfig(
    rounds=2,
    samples=12,
    interval="full",
    branches=1,
    threshold=0.0,
    update_batch=8,
    micro_batch=4,
    learning_rate=1e-3,
    clip_range=0.1,
)
B2 = replace(SHORT, interval="backward", first_steps=2, branches=3, threshold=0.1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return 10 * images.flatten(1).mean(1)


def tuner_of(
    folder: Path, config: TuneConfig, batch_size: int = 16, dtype: torch.dtype | None = None, **policy: Any
) -> Tuner:
    pipeline = load_pipeline(folder, device="cpu", dtype=dtype)
    sampler = Sampler(pipeline, num_steps=4, guidance_scale=2.0, batch_size=batch_size)
    made = DenoiserPolicy(sampler, rank=config.lora_rank, seed=config.seed, **policy)
    return Tuner(made, PROMPTS, config)


def weights(tuner: Tuner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in tuner.policy.learned()])


def run(tuner: Tuner) -> list[Round]:
    return list(tune(tuner, brightness))


class Analytic(torch.nn.Module):
    """Data N(b, a² I) have an exact denoiser; b is learned, and the reward wants it at `WANTED`."""

    def __init__(self) -> None:
        super().__init__()
        self.b = torch.nn.Parameter(torch.zeros(LATENT))
        pipeline = SimpleNamespace(device="cpu", scheduler=DDIMScheduler(clip_sample=False))
        self.sampler = SimpleNamespace(pipeline=pipeline, latent_shape=LATENT, batch_size=64)
        self.scheduler = ddim_scheduler(pipeline, 5)
        self.timesteps = self.scheduler.timesteps.tolist()
        self.stds = [ddim_std(self.scheduler, t) for t in self.timesteps]
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.eta, self.rank = 1.0, 4

    def learned(self) -> list[torch.nn.Parameter]:
        return [self.b]

    def forward(self, x_t: Tensor, step: int, prompts: list[str]) -> tuple[Tensor, float]:
        return self.decide(self.b, x_t, step)

    def pretrained(self, x_t: Tensor, step: int, prompts: list[str]) -> tuple[Tensor, float]:
        return self.decide(torch.zeros(LATENT), x_t, step)

    def decide(self, b: Tensor, x_t: Tensor, step: int) -> tuple[Tensor, float]:
        t = self.timesteps[step]
        alpha = self.scheduler.alphas_cumprod[t]
        # E[ε | x_t] of x_t = √ᾱ x_0 + √(1 − ᾱ) ε
        epsilon = (1 - alpha).sqrt() * (x_t - alpha.sqrt() * b) / (alpha * A**2 + 1 - alpha)
        return ddim_transition(self.scheduler, epsilon, t, x_t)

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0


LATENT, A = (1, 2, 2), 0.3
WANTED = torch.tensor([[[0.6, -0.5], [0.4, 0.0]]])


def near(images: Tensor, prompts: list[str]) -> Tensor:
    return -(images - WANTED).square().flatten(1).sum(1)


@pytest.mark.parametrize("objective", ["pg", "ppo", "dpok", "dpo"])
@pytest.mark.parametrize("branches", [1, 3], ids=["full", "b2"])
def test_the_optimum_is_reached(objective: str, branches: int) -> None:
    config = TuneConfig(
        objective=objective,
        rounds=80 if objective == "dpo" else 40,
        samples=96,
        interval="backward" if branches > 1 else "full",
        first_steps=3,
        branches=branches,
        threshold=0.2 if branches > 1 else 0.0,
        clip_range=0.2,
        dpok_beta=0.0001,
        dpo_beta=0.02,
        learning_rate=0.02,
        update_batch=96,
        micro_batch=96,
    )
    policy = Analytic()
    rounds = list(tune(Tuner(policy, ["a", "b"], config), near))
    start, end = WANTED.norm(), (policy.b.detach() - WANTED).norm()
    assert end < 0.4 * start
    assert rounds[-1].rewards.mean() > rounds[0].rewards.mean() + 0.5
    assert rounds[0].update.first_ratio_error < 1e-5


def test_decisions_count_by_their_variance() -> None:
    def first_loss(weights: str) -> float:
        config = TuneConfig(objective="pg", rounds=1, samples=12, first_steps=3, step_weights=weights)
        return next(tune(Tuner(Analytic(), ["a"], config), near)).update.loss

    stds = torch.tensor(Analytic().stds[-3:])
    # before the first update every ratio is 1, and the decisions' losses differ by their weights alone
    assert first_loss("variance") == pytest.approx(first_loss("equal") * float(stds.square().mean()))
    assert first_loss("equal") != 0


@pytest.mark.parametrize("config", [SHORT, B2], ids=["full", "b2"])
def test_how_the_work_is_cut_changes_nothing(config: TuneConfig, tiny_pipeline_folder: Path) -> None:
    whole = tuner_of(tiny_pipeline_folder, replace(config, micro_batch=16))
    parts = tuner_of(tiny_pipeline_folder, replace(config, micro_batch=1), batch_size=1)
    a, b = run(whole), run(parts)
    torch.testing.assert_close(a[-1].images, b[-1].images, rtol=0, atol=1e-4)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=0, atol=1e-5)
    for one, other in zip(a, b, strict=True):
        for name in ("loss", "approx_kl", "clip_fraction"):
            assert one.figures()[name] == pytest.approx(other.figures()[name], abs=1e-4)
    parts.load(*whole.state())  # nor does it keep a run from going on


def test_one_branch_and_the_full_interval_are_ddpo(tiny_pipeline_folder: Path) -> None:
    plain = tuner_of(tiny_pipeline_folder, SHORT)
    backward = tuner_of(tiny_pipeline_folder, replace(SHORT, interval="backward", first_steps=4))
    assert all(torch.equal(a.images, b.images) for a, b in zip(run(plain), run(backward), strict=True))
    assert torch.equal(weights(plain), weights(backward))


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
    whole, half, rest = (tuner_of(tiny_pipeline_folder, config) for _ in range(3))
    first = weights(whole)
    rounds = run(whole)
    assert whole.optimiser_steps and not torch.equal(first, weights(whole))
    next(tune(half, brightness))
    rest.load(*half.state())
    resumed = run(rest)
    assert torch.equal(rounds[-1].images, resumed[-1].images)
    assert torch.equal(weights(whole), weights(rest))
    with pytest.raises(ConfigError, match="another tuner"):
        tuner_of(tiny_pipeline_folder, replace(config, learning_rate=0.5)).load(*half.state())


def test_branches_share_what_comes_before_the_interval(tiny_pipeline_folder: Path) -> None:
    policy = tuner_of(tiny_pipeline_folder, SHORT).policy
    drawn = collect_trajectories(policy, [0, 1], PROMPTS, range(1, 4), Branches(3), seed=0)
    assert drawn.x.shape == (4, 6, 4, 8, 8) and drawn.log_prob.shape == (6, 3)
    start, end = drawn.x[0], drawn.x[-1]
    assert torch.equal(start[0], start[2]) and not torch.equal(start[0], start[3])
    assert not torch.allclose(end[0], end[1])


def test_a_round_in_which_nothing_is_chosen_is_a_round(tiny_pipeline_folder: Path) -> None:
    tuner = tuner_of(tiny_pipeline_folder, replace(B2, threshold=50.0))
    before = weights(tuner)
    rounds = run(tuner)
    assert [r.update.selected for r in rounds] == [0, 0] and tuner.optimiser_steps == 0
    assert torch.equal(before, weights(tuner))


def test_the_adapter_loads_in_plain_diffusers(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    tuner = tuner_of(tiny_pipeline_folder, replace(SHORT, learning_rate=0.05))
    run(tuner)
    own = tuner.policy.sampler
    tuner.policy.save(tmp_path)
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
        f"import sys\nsys.path[:0] = {sys.path!r}\n"
        "import torch\ntorch.set_num_threads(1)\nfrom safetensors.torch import save_file\n"
        f"from {Path(__file__).stem} import *\n"
        "made = {}\n"
        f"for i, config in enumerate({configs!r}):\n"
        f"    tuner = tuner_of(Path({str(tiny_pipeline_folder)!r}), config)\n"
        "    run(tuner)\n"
        "    assert tuner.processes.number == 2\n"
        "    made[str(i)] = weights(tuner)\n"
        "if tuner.processes.is_main:\n"
        f"    save_file(made, {str(saved)!r})\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both = load_file(saved)
    for i, config in enumerate(configs):
        alone = tuner_of(tiny_pipeline_folder, config)
        run(alone)
        torch.testing.assert_close(both[str(i)], weights(alone), rtol=0, atol=1e-5)


def test_settings_that_teach_nothing_are_refused(tiny_pipeline_folder: Path) -> None:
    many = [f"{number} dogs" for number in range(60)]
    policy = Analytic()
    with pytest.raises(ConfigError, match="none can be the better one"):
        Tuner(policy, many, replace(SHORT, objective="pg"))
    assert Tuner(policy, many[:50], replace(SHORT, objective="pg"))
    assert Tuner(policy, many, replace(B2, objective="pg"))
    with pytest.raises(ConfigError, match=r"rank 4, the settings say 1\.0 and 8"):
        Tuner(policy, many, replace(B2, lora_rank=8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_learns_without_nan(dtype: torch.dtype, tiny_pipeline_folder: Path) -> None:
    tuner = tuner_of(tiny_pipeline_folder, B2, dtype=dtype)
    before = weights(tuner)
    rounds = run(tuner)
    assert tuner.policy.dtype == dtype and before.dtype == torch.float32
    assert weights(tuner).isfinite().all() and not torch.equal(before, weights(tuner))
    assert rounds[0].update.first_ratio_error < 1e-5  # log-probabilities are of float32 latents


def test_gradient_checkpointing_changes_nothing(tiny_pipeline_folder: Path) -> None:
    plain = tuner_of(tiny_pipeline_folder, SHORT)
    saving = tuner_of(tiny_pipeline_folder, SHORT, gradient_checkpointing=True)
    run(plain)
    run(saving)
    assert saving.policy.denoiser.is_gradient_checkpointing
    torch.testing.assert_close(weights(plain), weights(saving), rtol=0, atol=1e-6)
