"""A tuned denoiser in its folder.

    learn     metrics.jsonl a line a round; state.safetensors after rounds and whenever it stops
    guard     now and then fresh pictures of held-out prompts: an alarm when the reward rises while what
              it stands for falls
    evaluate  frozen and tuned, the same noise in pairs, prompt by prompt
    write     lora/ (or denoiser/), before_after.png, reward_curve.png, summary.json, report.html

A run that is killed and resumed ends with the figures of one that was not: seconds and memory aside.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.artifacts import (
    CHECKPOINTS,
    DENOISER,
    LORA,
    METRICS,
    SUMMARY,
    RunFolder,
    replacing_folder,
    versions,
)
from diffalign.evaluation import Cost, Samples, Summary, peak_memory_mb, pooled, summarise
from diffalign.methods import Tune
from diffalign.report.html import write_report
from diffalign.report.plots import before_after, reward_curve
from diffalign.rewards import component_means
from diffalign.run.guard import Guard, TuneSetup, look, looks_at, measure
from diffalign.run.progress import Progress, Watched
from diffalign.run.saved import SAVE_EVERY, restore, snapshot
from diffalign.run.trackers import numbers

SHOWN = 16  # pictures before and after


def pictures_of_a_tuning(run: Tune, guard: Guard, held_out: int, images: int) -> int:
    """How many pictures a run makes in all."""
    config = run.tuner.config
    looks = sum(looks_at(guard, round) for round in range(1, config.rounds + 1))
    return config.rounds * config.samples + looks * held_out * guard.images + 2 * held_out * images


def tune_in(
    folder: RunFolder,
    run: Tune,
    setup: TuneSetup,
    held_out: Sequence[str],
    *,
    images: int,
    guard: Guard,
    progress: Progress,
    record: Mapping[str, Any],
    keep: int = 0,
    tracker: Any = None,
) -> Summary | None:
    """Runs all phases and returns what `summary.json` holds; None in all processes but the main one.

    Arguments:
        held_out: prompts of the evaluation and of the guard.
        images: fresh pictures a prompt and row.
        record: what else `summary.json` records.
        keep: adapters of past looks that stay in `checkpoints`.
        tracker: what `open_tracker` returned.
    """
    environment, config = Watched(setup.sampler, progress), run.tuner.config
    learn(folder, run, setup, held_out, guard, environment, progress, keep=keep, tracker=tracker)
    if not run.tuner.processes.is_main:
        return None
    with progress.phase("evaluate", 2 * len(held_out) * images):
        with run.tuner.policy.frozen():
            before, before_seconds = measure(environment, setup, held_out, images, config.seed)
        after, after_seconds = measure(environment, setup, held_out, images, config.seed)
    seconds = before_seconds, after_seconds
    summary = conclude(
        folder, setup, held_out, environment, run.tuner.queries, before, after, seconds, record
    )
    with replacing_folder(folder / (LORA if config.lora_rank else DENOISER)) as place:
        run.save(place)
    write(folder, before, after, summary, "tuned model", len(run.tuner.prompts))
    return summary


def conclude(
    folder: RunFolder,
    setup: TuneSetup,
    held_out: Sequence[str],
    environment: Watched,
    queries: int,
    before: Sequence[Samples],
    after: Sequence[Samples],
    seconds: tuple[float, float],
    record: Mapping[str, Any],
) -> Summary:
    """What `summary.json` holds of a run over many prompts.

    Arguments:
        queries: of the reward while learning.
        seconds: that `before` and `after` took.
    """
    memory = peak_memory_mb(setup.sampler.pipeline.device)
    fresh = environment.forwards * sum(len(part.reward) for part in after)
    rows = folder.metrics()
    cost = {
        "baseline": Cost(0, fresh, seconds[0], memory),
        "tuned": Cost(
            queries,
            sum(row["denoiser_forwards"] for row in rows) + fresh,
            sum(row["seconds"] for row in rows) + seconds[1],
            memory,
        ),
    }
    return summarise(
        pooled(before),
        pooled(after),
        None,
        cost,
        prompt=held_out[0] if len(held_out) == 1 else f"{len(held_out)} held-out prompts",
        model=setup.model,
        reward=setup.reward_name,
        judge=setup.judge_name,
        run={**record, "guidance_scale": setup.sampler.guidance_scale, **versions()},
    )


def learn(
    folder: RunFolder,
    run: Tune,
    setup: TuneSetup,
    held_out: Sequence[str],
    guard: Guard,
    environment: Watched,
    progress: Progress,
    *,
    keep: int = 0,
    tracker: Any = None,
) -> None:
    """Learns, from the last saved state if there is one, and saves the state at the end, whatever ends it.

    Raises:
        ArtifactError: if the state is corrupt, or of another run.
    """
    tuner = run.tuner
    restore(folder, tuner, run.origin)

    def anywhere(said: bool) -> bool:  # what the main process alone knows, in all
        return any(tuner.processes.gather([said]))

    if not tuner.processes.is_main:
        if guard.stop and anywhere(False):
            return
        for step in run:
            if guard.stop and looks_at(guard, step.round) and anywhere(False):
                return
        return
    folder.truncate_metrics(tuner.round)
    looks = [row["held_out"] for row in folder.metrics() if row.get("held_out")]
    guided = 2 if tuner.policy.guided else 1
    total = pictures_of_a_tuning(run, guard, len(held_out), 0)
    done = tuner.queries + len(looks) * len(held_out) * guard.images
    # a copy: Ctrl-C may come while a round is half done, and the tuner changes in place
    state, saved = snapshot(tuner, run.origin), time.monotonic()
    try:
        with progress.phase("learn", total, done):
            if guard.stop and anywhere(guard.alarm(looks) is not None):
                return
            for step in run:
                progress.advance(len(step.rewards))
                progress.reward(float(step.rewards.mean()), float(step.rewards.max()))
                row: dict[str, Any] = {
                    **step.figures(),
                    **component_means(setup.reward),
                    "denoiser_forwards": guided * step.forwards,
                }
                if looks_at(guard, step.round):
                    looks.append(look(environment, setup, held_out, guard, tuner.config.seed))
                    row |= {"held_out": looks[-1], "alarm": guard.alarm(looks)}
                    _keep(folder, run, keep)
                folder.append_metrics(row)
                state = snapshot(tuner, run.origin)
                if tracker is not None:
                    tracker.log(numbers(row), step=step.round)
                if row.get("alarm"):
                    progress.warn(f"round {step.round}: {row['alarm']}")
                if guard.stop and looks_at(guard, step.round) and anywhere(row["alarm"] is not None):
                    return
                rounding = step.update.first_ratio_error
                first = tuner.optimiser_steps == step.update.optimiser_steps > 0
                clips = tuner.config.objective in ("ppo", "dpok")
                if first and clips and rounding > tuner.config.clip_range / 2:
                    progress.warn(
                        f"before the first update the ratio was off 1 by {rounding:.1g}: rounding eats into "
                        "the clip range; use float32, or a greater clip_range"
                    )
                if not step.update.optimiser_steps:
                    why = (
                        "its gradients were not finite in half precision, whose scale is lower now"
                        if step.update.selected
                        else f"no sample passed the threshold of {tuner.config.threshold}"
                    )
                    progress.warn(f"round {step.round} made no optimiser step: {why}")
                if time.monotonic() - saved >= SAVE_EVERY:
                    folder.save_state(*state)
                    saved = time.monotonic()
    finally:
        folder.save_state(*state)


def _keep(folder: RunFolder, run: Tune, number: int) -> None:
    """Writes what was learned so far to `checkpoints`, of which the last `number` stay."""
    if not number:
        return
    place = folder / CHECKPOINTS
    place.mkdir(exist_ok=True)
    with replacing_folder(place / f"round-{run.tuner.round:05d}") as partial:
        run.save(partial)
    for old in sorted(place.glob("round-*"))[:-number]:
        shutil.rmtree(old)


def write(
    folder: RunFolder,
    before: Sequence[Samples],
    after: Sequence[Samples],
    summary: Summary,
    learned: str,
    prompts: int,
) -> None:
    """Writes what is left; the report, which tells a finished run, comes last.

    Arguments:
        learned: what the pictures after learning are of.
        prompts: how many it learned from.
    """
    each = max(1, SHOWN // len(before))

    def shown(parts: Sequence[Samples]) -> tuple[Tensor, Tensor | None]:
        judged = [part.judged[:each] for part in parts if part.judged is not None]
        verdicts = torch.cat(judged)[:SHOWN] if len(judged) == len(parts) else None
        return torch.cat([part.images[:each] for part in parts])[:SHOWN], verdicts

    (old, wrong), (new, right) = shown(before), shown(after)
    verdicts = None if wrong is None or right is None else (wrong, right)
    titles = ("Before: the frozen model", f"After: the same noise, the {learned}")
    before_after(old, new, folder / "before_after.png", titles=titles, verdicts=verdicts)
    reward_curve(
        folder.metrics(),
        folder / "reward_curve.png",
        reward=summary["reward"],
        title=f"{prompts} training prompts",
    )
    folder.write_json(SUMMARY, summary)
    write_report(folder.path)


def written_by_tuning(folder: RunFolder) -> list[Path]:
    """The files of a finished run, for its user."""
    names = (LORA, DENOISER, "before_after.png", "reward_curve.png", SUMMARY, METRICS, "report.html")
    return [folder / name for name in names if (folder / name).exists()]
