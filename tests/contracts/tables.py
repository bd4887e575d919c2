"""All members of each part, made small: what the contracts are tested of. A new member gets its line here.

`test_tables.py` fails where a row of the package has no entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.advantages import leave_one_out, rank, standardise
from diffalign.advantages.running import RunningStatistics
from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.anchors import AnchorLearner
from diffalign.learners.contract import Learner
from diffalign.learners.denoiser import DenoiserLearner
from diffalign.learners.find import FindLearner
from diffalign.learners.noise_ppo import NoisePPOLearner
from diffalign.learners.previews import PreviewSearch
from diffalign.learners.searches import SEARCHES
from diffalign.objectives import dpo_loss, dpok_loss, policy_gradient_loss, ppo_loss
from diffalign.policies import (
    AnchorGenerator,
    AnchorShape,
    GaussianGenerator,
    GaussianShape,
    MixturePolicy,
    NoiseDistribution,
    NoisePolicy,
)
from diffalign.rewards import RewardFunction, load_reward
from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.fields import preset
from diffalign.settings.find import PRESETS as FIND
from diffalign.settings.find import FindConfig
from diffalign.settings.noise_ppo import NoisePPOConfig
from diffalign.settings.search import SearchConfig
from diffalign.settings.tune import TuneConfig
from diffalign.strategies import backward_interval, sliding_interval
from tests.rewards import tiny
from tests.toys import WIDTH, AnalyticPolicy, Toy, sides

LATENT = (1, 8, 8)
PROMPTS = ("left", "right")

# Learners


@dataclass(frozen=True)
class Entry:
    """A learner of a method.

    Attributes:
        method: a name of `METHODS`.
        config: its settings, of a few rounds.
        make: from batch size, prompts and settings to the learner.
        prompts: that it learns from.
    """

    method: str
    config: Any
    make: Callable[[int, Sequence[str], Any], Learner]
    prompts: tuple[str, ...] = PROMPTS


def make_learner(
    name: str, *, batch_size: int = 16, prompts: Sequence[str] | None = None, **changes: Any
) -> Learner:
    """A fresh learner of the entry called `name`, with `changes` of its settings."""
    entry = LEARNERS[name]
    return entry.make(
        batch_size, entry.prompts if prompts is None else prompts, replace(entry.config, **changes)
    )


def environment(batch_size: int) -> Toy:
    return Toy(LATENT, lambda x_T, prompt: x_T.repeat(1, 3, 1, 1), batch_size)


METADATA = {"model": "toy", "reward": "half"}


def _find(batch_size: int, prompts: Sequence[str], config: Any) -> Learner:
    return FindLearner(environment(batch_size), prompts, config, METADATA)


def _anchors(batch_size: int, prompts: Sequence[str], config: Any) -> Learner:
    shape = AnchorShape(LATENT, WIDTH, len(prompts), config.components, 0.9, config.effective)
    generator = AnchorGenerator(shape, sides, METADATA, seed=config.seed)
    return AnchorLearner(environment(batch_size), prompts, config, generator)


def _noise_ppo(batch_size: int, prompts: Sequence[str], config: Any) -> Learner:
    shape = GaussianShape(LATENT, WIDTH, config.basis, config.std, width=8, layers=1, heads=2)
    generator = GaussianGenerator(shape, sides, METADATA, seed=config.seed)
    return NoisePPOLearner(environment(batch_size), prompts, config, generator)


def _tune(batch_size: int, prompts: Sequence[str], config: Any) -> Learner:
    policy = AnalyticPolicy(LATENT, batch_size=batch_size)
    return DenoiserLearner(policy, prompts, config, METADATA)  # type: ignore[arg-type]


def _search(batch_size: int, prompts: Sequence[str], config: Any) -> Learner:
    search = SEARCHES[config.algorithm](environment(batch_size), prompts, config, METADATA)
    if isinstance(search, PreviewSearch):
        search.preview = environment(batch_size)
    return search


_AMORTISED = {"rounds": 3, "prompts_per_round": 3, "samples_per_prompt": 6}
_PPO = NoisePPOConfig(**_AMORTISED, learning_rate=3e-3, minibatch=2)
_B2 = TuneConfig(
    rounds=3, samples=18, first_steps=3, branches=3, threshold=0.1, update_batch=6, learning_rate=1e-2
)
_FULL = replace(_B2, interval="full", branches=1, threshold=0.0)
_ONE = PROMPTS[:1]
LEARNERS: Mapping[str, Entry] = {
    "find": Entry("find", FindConfig(queries=29, batch=6), _find, _ONE),
    "find-gaussian": Entry("find", FindConfig(queries=29, batch=6, components=0), _find, _ONE),
    "find-paper": Entry("find", preset(FIND, "paper", {"queries": 6}), _find, _ONE),
    "anchors": Entry("anchors", AnchorConfig(**_AMORTISED, components=8, effective=2), _anchors),
    "noise-ppo": Entry("noise-ppo", _PPO, _noise_ppo),
    "noise-ppo-running": Entry("noise-ppo", replace(_PPO, baseline="running"), _noise_ppo),
    "tune-pg": Entry("tune", replace(_FULL, objective="pg"), _tune),
    "tune-ppo": Entry("tune", replace(_FULL, objective="ppo", clip_range=0.1), _tune),
    "tune-b2": Entry("tune", replace(_B2, objective="ppo", clip_range=0.1), _tune),
    "tune-dpok": Entry("tune", replace(_B2, objective="dpok", clip_range=0.1), _tune),
    "tune-dpo": Entry("tune", replace(_FULL, objective="dpo"), _tune),
    "tune-b2-dpo": Entry("tune", replace(_B2, objective="dpo"), _tune),
    "best-of-n": Entry("search", SearchConfig("best-of-n", queries=29, keep=4), _search, _ONE),
    "halving": Entry("search", SearchConfig("halving", queries=29, keep=4), _search, _ONE),
    "zero-order": Entry(
        "search", SearchConfig("zero-order", queries=29, keep=4, neighbours=8), _search, _ONE
    ),
    "spectral": Entry("search", SearchConfig("spectral", queries=29, keep=4), _search, _ONE),
    "spectral-fresh": Entry(
        "search", SearchConfig("spectral-fresh", queries=29, keep=4, population=8), _search, _ONE
    ),
}

# Policies of initial noise: how each is made, with what it says of a prompt already moved from its start


def _noise_policy(basis: str, std: str) -> NoisePolicy:
    policy = NoisePolicy(LATENT, basis, std)
    with torch.no_grad():
        for number, parameter in enumerate(policy.parameters()):
            shape = tuple(parameter.shape)
            parameter.copy_(0.3 * seeded_noise(shape, number, "test", [0])[0].clamp(-3, 3))
    return policy


def _mixture() -> MixturePolicy:
    policy = MixturePolicy(LATENT, 4, 0.9)
    policy.grow(seeded_noise(LATENT, 0, "test", range(4)))
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([0.5, -0.5, 1.0, 0.0]))
    return policy


def _anchor_generator() -> AnchorGenerator:
    generator = AnchorGenerator(AnchorShape(LATENT, WIDTH, 2, 8, effective=2.0), sides, METADATA)
    generator.learn_from(PROMPTS)
    generator.coefficients[0, 0] = generator.coefficients[1, 7] = 1.0
    return generator


def _gaussian_generator() -> GaussianGenerator:
    generator = GaussianGenerator(GaussianShape(LATENT, WIDTH, width=8, layers=1, heads=2), sides, METADATA)
    with torch.no_grad():
        for parameter in generator.head.parameters():
            parameter.copy_(0.1 * seeded_noise(tuple(parameter.shape), 0, "test", [0])[0])
    return generator


@dataclass(frozen=True)
class NoiseEntry:
    """A policy of initial noise.

    Attributes:
        make: the policy, moved from its start.
        per_prompt: whether it is called with a prompt.
    """

    make: Callable[[], torch.nn.Module]
    per_prompt: bool = False

    def of(self, policy: torch.nn.Module) -> NoiseDistribution:
        """The distribution for the first prompt."""
        noise: NoiseDistribution = policy(PROMPTS[0]) if self.per_prompt else policy()
        return noise


NOISE_POLICIES: Mapping[str, NoiseEntry] = {
    "noise": NoiseEntry(partial(_noise_policy, "identity", "learned")),
    "noise-dct-preserving": NoiseEntry(partial(_noise_policy, "dct3", "preserving")),
    "mixture": NoiseEntry(_mixture),
    "anchors": NoiseEntry(_anchor_generator, per_prompt=True),
    "gaussian": NoiseEntry(_gaussian_generator, per_prompt=True),
}

# Objectives: of log-probabilities, those before and advantages, each (B, K)

Objective = Callable[[Tensor, Tensor, Tensor], Any]


def _dpok(log_prob: Tensor, old: Tensor, advantage: Tensor) -> Any:
    return dpok_loss(log_prob, old, advantage, log_prob.square(), clip_range=0.1, alpha=10.0, beta=0.01)


OBJECTIVES: Mapping[str, Objective] = {
    "pg": policy_gradient_loss,
    "ppo": partial(ppo_loss, clip_range=0.1),
    "dpok": _dpok,
    "dpo": lambda log_prob, old, advantage: dpo_loss(log_prob, old, beta=0.1),
}

# Advantages: of rewards (B,), of one prompt

ADVANTAGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "rank": rank,
    "leave-one-out": leave_one_out,
    "standardise": standardise,
    "running": lambda rewards: RunningStatistics().normalise(["a"] * len(rewards), rewards),
}

# Strategies: the interval of a round, of (steps, round, rounds)

INTERVALS: Mapping[str, Callable[[int, int, int], range]] = {
    "full": lambda steps, round, rounds: range(steps),
    "backward": lambda steps, round, rounds: backward_interval(steps, round, rounds, 3),
    "sliding": lambda steps, round, rounds: sliding_interval(steps, round, 2, 3),
}

# Rewards: from a folder for a checkpoint to the reward

Made = Callable[[Path], RewardFunction]


def _network(name: str, save: Callable[[Path], Any]) -> Made:
    def make(folder: Path) -> RewardFunction:
        save(folder)
        return load_reward(f"{name}@{folder}", device="cpu")

    return make


def _named(name: str) -> Made:
    return lambda folder: load_reward(name, device="cpu")


REWARDS: Mapping[str, Made] = {
    "jpeg-compressibility": _named("jpeg-compressibility"),
    "jpeg-incompressibility": _named("jpeg-incompressibility"),
    "world-clip": _named("world-clip"),
    "world-scene": _named("world-scene"),
    "jpeg-compressibility + 0.5*world-scene": _named("jpeg-compressibility + 0.5*world-scene"),
    "clip": _network("clip", tiny.save_clip),
    "pickscore": _network("pickscore", tiny.save_clip),
    "hps": _network("hps", tiny.save_hps),
    "image-reward": _network("image-reward", tiny.save_image_reward),
    "aesthetic": _network("aesthetic", tiny.save_aesthetic),
}
#: Rewards of video, of a server or of two language models, by the tests that hold them to the same.
ELSEWHERE = {
    "viclip": "tests/rewards/test_networks.py",
    "frame-consistency": "tests/rewards/test_networks.py",
    "bert-score": "tests/rewards/test_networks.py",
    "remote": "tests/rewards/test_remote.py",
    "vlm": "tests/rewards/test_vlm.py",
}
