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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffalign.artifacts import METRICS, NOISE, SUMMARY, RunFolder, replacing, versions
from diffalign.diffusion import Sampler
from diffalign.evaluation import Cost, Judge, Samples, Summary, assess, evaluate, peak_memory_mb, summarise
from diffalign.methods import Find
from diffalign.metrics import Embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.report.html import write_report
from diffalign.report.plots import before_after, reward_curve
from diffalign.rewards import RewardFunction, component_means
from diffalign.run.progress import Progress, Watched
from diffalign.run.saved import SAVE_EVERY, restore, snapshot
from diffalign.search import best_of_n, equal_cost
from diffalign.training import NoiseConfig, train

SHOWN = 16  # pictures before and after


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
    restore(folder, learner, find.origin)
    folder.truncate_metrics(learner.steps)
    # a copy: Ctrl-C may come while an update is half done, and the learner changes in place
    state, saved = snapshot(learner, find.origin), time.monotonic()
    try:
        with progress.phase("learn", learner.config.queries, learner.queries):
            for step in train(
                learner, environment, find.prompt, find.reward, batch_size=find.sampler.batch_size
            ):
                folder.append_metrics({**step.figures(), **component_means(find.reward)})
                state = snapshot(learner, find.origin)
                progress.reward(float(step.rewards.mean()), step.best)
                if time.monotonic() - saved >= SAVE_EVERY:
                    folder.save_state(*state)
                    saved = time.monotonic()
    finally:
        folder.save_state(*state)


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
