"""FIND in its folder: learn, evaluate on fresh samples, search at equal cost, write.

    learn     metrics.jsonl a line an update; state.safetensors every few seconds and whenever it stops
    evaluate  baseline and tuned, the same noise in pairs
    search    best-of-N with as many pictures as learning and evaluating the tuned noise took
    write     noise.safetensors, before_after.png, reward_curve.png, summary.json, report.html

All figures but seconds and memory follow from the settings, so a run that is killed and resumed
ends with those of one that was not: learning goes on from the last state, the rest is done again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from diffalign.artifacts import METRICS, NOISE, STATE, SUMMARY, RunFolder, replacing, versions
from diffalign.diffusion import Sampler
from diffalign.evaluation import Cost, Judge, Samples, Summary, assess, evaluate, peak_memory_mb, summarise
from diffalign.methods import Find
from diffalign.metrics import Embedder
from diffalign.policies.noise import ArtifactError, NoiseDistribution
from diffalign.report.html import write_report
from diffalign.report.plots import before_after, reward_curve
from diffalign.rewards import RewardFunction
from diffalign.search import best_of_n, equal_cost
from diffalign.training import NoiseConfig, train

SAVE_EVERY = 5.0  # seconds
SHOWN = 16  # pictures before and after


class Progress(Protocol):
    """Whom a run tells how far it is."""

    def phase(self, name: str, total: int, done: int = 0) -> AbstractContextManager[None]:
        """A phase of `total` pictures, of which `done` were made by the run that this one resumes."""

    def advance(self, pictures: int) -> None:
        """Pictures that were made."""

    def reward(self, mean: float, best: float) -> None:
        """The newest figures."""

    def warn(self, said: str) -> None:
        """What the user should know before the end."""


@dataclass(frozen=True)
class Setup:
    """What is loaded for a prompt. The names are those that were asked for."""

    sampler: Sampler
    reward: RewardFunction
    judge: Judge | None
    embed: Embedder | None
    model: str
    reward_name: str
    judge_name: str | None


class Watched:
    """The sampler as an environment that counts its pictures."""

    def __init__(self, sampler: Sampler, progress: Progress) -> None:
        self.sampler, self.progress = sampler, progress

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        parts = []
        for part in x_T.split(self.sampler.batch_size):  # as the sampler itself splits
            parts.append(self.sampler(part, prompt))
            self.progress.advance(len(part))
        return torch.cat(parts)

    @property
    def forwards(self) -> int:
        """Denoiser evaluations a picture: a sampler may take more steps than it is asked for."""
        timesteps = getattr(self.sampler.pipeline.scheduler, "timesteps", None)
        steps = self.sampler.num_steps if timesteps is None else len(timesteps)
        guided = self.sampler.guidance_scale is not None and self.sampler.guidance_scale > 1
        return steps * (2 if guided else 1)


def pictures_of_a_run(queries: int, images: int, baselines: bool) -> int:
    """How many pictures a run makes in all."""
    return queries + 2 * images + (equal_cost(queries, images) if baselines else 0)


def align(
    folder: RunFolder,
    prompt: str,
    setup: Setup,
    config: NoiseConfig,
    *,
    images: int,
    baselines: bool,
    progress: Progress,
    run: Mapping[str, Any],
) -> Summary:
    """Runs all phases and returns what `summary.json` holds.

    Arguments:
        images: fresh samples of each row.
        baselines: whether best-of-N is measured.
        run: what else `summary.json` records.
    """
    find = Find(setup.sampler, prompt, setup.reward, config, reward_name=setup.reward_name)
    environment = Watched(setup.sampler, progress)
    learn(folder, find, environment, progress)

    standard = NoiseDistribution.standard(find.learner.policy.latent)
    learned = find.learner.distribution()
    with progress.phase("evaluate", 2 * images):
        before, before_seconds = _evaluate(environment, prompt, standard, setup, images, config.seed)
        after, after_seconds = _evaluate(environment, prompt, learned, setup, images, config.seed)
    each, queries = environment.forwards, find.learner.queries
    memory = peak_memory_mb(setup.sampler.pipeline.device)
    seconds = sum(row["seconds"] for row in folder.metrics()) + after_seconds
    cost = {
        "baseline": Cost(0, images * each, before_seconds, memory),
        "tuned": Cost(queries, (queries + images) * each, seconds, memory),
    }
    best = None
    if baselines:
        n = equal_cost(queries, images)
        with progress.phase("search", n):
            began = time.perf_counter()
            best = _search(environment, prompt, setup, n, images, config.seed, progress)
            cost["best_of_n"] = Cost(n, n * each, time.perf_counter() - began, memory)
    summary = summarise(
        before,
        after,
        best,
        cost,
        prompt=prompt,
        model=setup.model,
        reward=setup.reward_name,
        judge=setup.judge_name,
        run={**run, "guidance_scale": setup.sampler.guidance_scale, **versions()},
    )
    write(folder, provenance(find, setup), before, after, summary)
    return summary


def learn(folder: RunFolder, find: Find, environment: Watched, progress: Progress) -> None:
    """Learns, from the last saved state if there is one, and saves the state at the end, whatever ends it.

    Raises:
        ArtifactError: if the state is corrupt, or of another run.
    """
    learner = find.learner
    state = folder.load_state()
    if state is not None:
        check_origin(folder, state[1], find.origin)
        try:
            learner.load(*state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ArtifactError(
                f"the state in {folder.path} does not fit its config.yaml ({error}); undo the change there, "
                "or delete state.safetensors to start the run again"
            ) from error
    folder.truncate_metrics(learner.steps)
    # a copy: Ctrl-C may come while an update is half done, and the learner changes in place
    snapshot, saved = _state(find), time.monotonic()
    try:
        with progress.phase("learn", learner.config.queries, learner.queries):
            for step in train(learner, environment, find.prompt, find.reward):
                folder.append_metrics(step.figures())
                snapshot = _state(find)
                progress.reward(float(step.rewards.mean()), step.best)
                if time.monotonic() - saved >= SAVE_EVERY:
                    folder.save_state(*snapshot)
                    saved = time.monotonic()
    finally:
        folder.save_state(*snapshot)


def provenance(find: Find, setup: Setup) -> NoiseDistribution:
    """The learned noise with the names that the user gave, and versions, in its metadata."""
    noise = find.distribution
    dtype = str(setup.sampler.pipeline.dtype).removeprefix("torch.")
    return replace(noise, metadata={**noise.metadata, "model": setup.model, "dtype": dtype, **versions()})


def write(
    folder: RunFolder, noise: NoiseDistribution, before: Samples, after: Samples, summary: Summary
) -> None:
    """Writes what is left; the report, which tells a finished run, comes last."""
    with replacing(folder / NOISE) as file:
        noise.save(file)
    verdicts = None
    if before.judged is not None and after.judged is not None:
        verdicts = (before.judged[:SHOWN], after.judged[:SHOWN])
    pictures = before.images[:SHOWN], after.images[:SHOWN]
    before_after(*pictures, folder / "before_after.png", verdicts=verdicts)
    reward_curve(
        folder.metrics(),
        folder / "reward_curve.png",
        baseline=summary["rows"]["baseline"]["reward"]["mean"],
        reward=summary["reward"],
        title=summary["prompt"],
    )
    folder.write_json(SUMMARY, summary)
    write_report(folder.path)


def written(folder: RunFolder) -> list[Path]:
    """The files of a finished run, for its user."""
    names = (NOISE, "before_after.png", "reward_curve.png", SUMMARY, METRICS, "report.html")
    return [folder / name for name in names]


def _evaluate(
    environment: Watched, prompt: str, noise: NoiseDistribution, setup: Setup, images: int, seed: int
) -> tuple[Samples, float]:
    began = time.perf_counter()
    samples = evaluate(
        environment,
        prompt,
        noise,
        setup.reward,
        judge=setup.judge,
        embed=setup.embed,
        n=images,
        seed=seed,
        batch_size=setup.sampler.batch_size,
    )
    return samples, time.perf_counter() - began


def _search(
    environment: Watched, prompt: str, setup: Setup, n: int, keep: int, seed: int, progress: Progress
) -> Samples:
    result = best_of_n(
        environment,
        setup.sampler.latent_shape,
        prompt,
        setup.reward,
        n,
        keep=keep,
        seed=seed,
        batch_size=setup.sampler.batch_size,
        on_batch=lambda found: progress.reward(float(found.rewards.mean()), float(found.rewards.max())),
    )
    return assess(result.images, prompt, result.kept_rewards(), judge=setup.judge, embed=setup.embed)


def _state(find: Find) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A copy of what goes on to the same result, and what it was learned from."""
    tensors, metadata = find.learner.state()
    return {name: tensor.clone() for name, tensor in tensors.items()}, {**metadata, **find.origin}


def check_origin(folder: RunFolder, saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compares what a saved state was learned from with what is given now.

    Raises:
        ArtifactError: if they differ.
    """
    differing = [
        f"{name.replace('_', ' ')} {saved[name]!r} then, {value!r} now"
        for name, value in now.items()
        if saved.get(name, value) != value
    ]
    if differing:
        raise ArtifactError(
            f"the state in {folder.path} was learned otherwise: {'; '.join(differing)}; undo the change, "
            f"or delete {folder / STATE} to start the run again"
        )
