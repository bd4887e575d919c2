"""A noise generator in its folder.

learn     metrics.jsonl a line a round; state.safetensors after rounds and whenever it stops
guard     now and then fresh pictures of held-out prompts, as in a tuning run
evaluate  frozen model and generator, the same ε in pairs, prompt by prompt
write     generator.safetensors, before_after.png, reward_curve.png, summary.json, report.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffalign.artifacts import GENERATOR, METRICS, SUMMARY, RunFolder, replacing, versions
from diffalign.evaluation import Summary
from diffalign.methods import NoisePPO
from diffalign.rewards import component_means
from diffalign.run.guard import Guard, TuneSetup, look, looks_at, measure
from diffalign.run.progress import Progress, Watched
from diffalign.run.saved import SAVE_EVERY, restore, snapshot
from diffalign.run.tuning import conclude, write


def pictures_of_a_generator(run: NoisePPO, guard: Guard, held_out: int, images: int) -> int:
    """How many pictures a run makes in all."""
    config = run.learner.config
    looks = sum(looks_at(guard, round) for round in range(1, config.rounds + 1))
    learned = config.rounds * config.prompts_per_round * config.samples_per_prompt
    return learned + looks * held_out * guard.images + 2 * held_out * images


def generate_in(
    folder: RunFolder,
    run: NoisePPO,
    setup: TuneSetup,
    held_out: Sequence[str],
    *,
    images: int,
    guard: Guard,
    progress: Progress,
    record: Mapping[str, Any],
) -> Summary:
    """Runs all phases and returns what `summary.json` holds.

    Arguments:
        held_out: prompts of the evaluation and of the guard.
        images: fresh pictures a prompt and row.
        record: what else `summary.json` records.
    """
    environment, config = Watched(setup.sampler, progress), run.learner.config
    _learn(folder, run, setup, held_out, guard, environment, progress)
    with progress.phase("evaluate", 2 * len(held_out) * images):
        before, before_seconds = measure(environment, setup, held_out, images, config.seed)
        after, after_seconds = measure(environment, setup, held_out, images, config.seed, run.noise)
    seconds = before_seconds, after_seconds
    summary = conclude(
        folder, setup, held_out, environment, run.learner.queries, before, after, seconds, record
    )
    learned = {"model": setup.model, "queries": str(run.learner.queries)}
    run.generator.metadata |= learned | versions()
    with replacing(folder / GENERATOR) as file:
        run.save(file)
    write(folder, before, after, summary, "learned noise", len(run.learner.prompts))
    return summary


def _learn(
    folder: RunFolder,
    run: NoisePPO,
    setup: TuneSetup,
    held_out: Sequence[str],
    guard: Guard,
    environment: Watched,
    progress: Progress,
) -> None:
    """Learns, from the last saved state if there is one, and saves the state at the end, whatever ends it."""
    learner = run.learner
    restore(folder, learner, run.origin)
    folder.truncate_metrics(learner.round)
    looks = [row["held_out"] for row in folder.metrics() if row.get("held_out")]
    total = pictures_of_a_generator(run, guard, len(held_out), 0)
    done = learner.queries + len(looks) * len(held_out) * guard.images
    # a copy: Ctrl-C may come while a round is half done, and the learner changes in place
    state, saved = snapshot(learner, run.origin), time.monotonic()
    try:
        with progress.phase("learn", total, done):
            if guard.stop and guard.alarm(looks) is not None:
                return
            for step in run:
                progress.advance(len(step.rewards))
                progress.reward(float(step.rewards.mean()), float(step.rewards.max()))
                forwards = environment.forwards * len(step.rewards)
                row: dict[str, Any] = {
                    **step.figures(),
                    **component_means(setup.reward),
                    "denoiser_forwards": forwards,
                }
                if looks_at(guard, step.round):
                    seed = learner.config.seed
                    looks.append(look(environment, setup, held_out, guard, seed, run.noise))
                    row |= {"held_out": looks[-1], "alarm": guard.alarm(looks)}
                folder.append_metrics(row)
                state = snapshot(learner, run.origin)
                if row.get("alarm"):
                    progress.warn(f"round {step.round}: {row['alarm']}")
                    if guard.stop:
                        return
                if time.monotonic() - saved >= SAVE_EVERY:
                    folder.save_state(*state)
                    saved = time.monotonic()
    finally:
        folder.save_state(*state)


def written_by_a_generator(folder: RunFolder) -> list[Path]:
    """The files of a finished run, for its user."""
    names = (GENERATOR, "before_after.png", "reward_curve.png", SUMMARY, METRICS, "report.html")
    return [folder / name for name in names]
