"""The end of a run: fresh pictures before and after, search at equal cost, and all that is left on disk."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffalign.artifacts import RunFolder
from diffalign.evaluation import Cost, Samples, Summary, assess, peak_memory_mb, pooled, summarise
from diffalign.files import BEFORE_AFTER, BEST, CURVE, SUMMARY, versions
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.contract import Learner
from diffalign.learners.result import SearchResult
from diffalign.loop import train
from diffalign.metrics import bootstrap
from diffalign.report.html import write_report
from diffalign.report.plots import before_after, grid, reward_curve
from diffalign.run.held_out import measure_pairs
from diffalign.run.loading import Setup
from diffalign.run.progress import Progress
from diffalign.settings.evaluation import Evaluation, SearchEvaluation
from diffalign.settings.search import SearchConfig

SHOWN = 16  # pictures before and after
SEARCH_SCHEMA = "diffalign.search/1"


def count_evaluated(
    learner: Learner, held_out: Sequence[str], evaluation: Evaluation | SearchEvaluation
) -> int:
    """How many pictures the conclusion makes."""
    if isinstance(evaluation, SearchEvaluation):
        return 0
    number = 2 * evaluation.images
    if evaluation.baselines:
        number += equal_cost(learner.total, len(held_out), evaluation.images)
    return len(held_out) * number


def equal_cost(queries: int, prompts: int, images: int) -> int:
    """Pictures a prompt that search may try at the cost of a method which spent `queries` on all `prompts`
    before it made `images` of each: each query was a picture too."""
    return queries // prompts + images


def conclude(
    folder: RunFolder,
    learner: Learner,
    setup: Setup,
    held_out: Sequence[str],
    evaluation: Evaluation | SearchEvaluation,
    progress: Progress,
    record: Mapping[str, Any],
) -> Summary | Mapping[str, Any]:
    """Evaluates what was learned, writes what is left, and returns what `summary.json` holds."""
    run = {**record, **learner.record(), "guidance_scale": setup.sampler.guidance_scale, **versions()}
    if (kept := learner.kept()) is not None or isinstance(evaluation, SearchEvaluation):
        assert kept is not None
        return _conclude_search(folder, learner, setup, kept, run)
    seed, images, rows = learner.config.seed, evaluation.images, folder.metrics()
    before, after, cost = measure_pairs(setup, learner, held_out, images, seed, progress)
    forwards = cost["tuned"].denoiser_forwards + sum(row["denoiser_forwards"] for row in rows)
    seconds = cost["tuned"].seconds + sum(row["seconds"] for row in rows)
    cost["tuned"] = replace(
        cost["tuned"], reward_queries=learner.queries, denoiser_forwards=forwards, seconds=seconds
    )
    best: list[Samples] = []
    if evaluation.baselines:
        number, began = equal_cost(learner.queries, len(held_out), images), time.perf_counter()
        with progress.phase("search", number * len(held_out)), learner.frozen():
            best = [_best_of_n(setup, prompt, number, images, seed, progress) for prompt in held_out]
        queries, seconds = number * len(held_out), time.perf_counter() - began
        memory = cost["tuned"].peak_memory_mb
        cost["best_of_n"] = Cost(queries, queries * setup.sampler.forwards, seconds, memory)
    summary = summarise(
        pooled(before),
        pooled(after),
        pooled(best) if best else None,
        cost,
        prompt=held_out[0] if len(held_out) == 1 else f"{len(held_out)} held-out prompts",
        model=setup.model,
        reward=setup.reward_name,
        judge=setup.judge_name,
        run=run,
    )
    learner.save(folder.path)
    _draw(folder, learner, before, after, summary)
    folder.write_json(SUMMARY, summary)
    write_report(folder.path)  # which tells a finished run, and so comes last
    return summary


def _best_of_n(setup: Setup, prompt: str, number: int, images: int, seed: int, progress: Progress) -> Samples:
    """The best `images` of `number` pictures of the frozen model."""
    search = BestOfN(setup.sampler, [prompt], SearchConfig(queries=number, keep=images, seed=seed))
    for _ in train(search, setup.reward, on_batch=progress.advance):
        progress.reward(float(search.best.rewards.mean()), float(search.best.rewards.max()))
    kept = search.best
    judge = setup.judges.get(prompt)
    return assess(kept.images, prompt, kept.kept_rewards(), judge=judge, embed=setup.embed)


def _draw(
    folder: RunFolder, learner: Learner, before: Sequence[Samples], after: Sequence[Samples], summary: Summary
) -> None:
    """The pictures before and after, and the reward of every query."""
    each = max(1, SHOWN // len(before))

    def shown(parts: Sequence[Samples]) -> tuple[Tensor, Tensor | None]:
        judged = [part.judged[:each] for part in parts if part.judged is not None]
        verdicts = torch.cat(judged)[:SHOWN] if len(judged) == len(parts) else None
        return torch.cat([part.images[:each] for part in parts])[:SHOWN], verdicts

    (old, wrong), (new, right) = shown(before), shown(after)
    verdicts = None if wrong is None or right is None else (wrong, right)
    titles = ("Before: the frozen model", f"After: the same noise, the {learner.learned}")
    before_after(old, new, folder / BEFORE_AFTER, titles=titles, verdicts=verdicts)
    single = learner.prompts == (summary["prompt"],)
    reward_curve(
        folder.metrics(),
        folder / CURVE,
        baseline=summary["rows"]["baseline"]["reward"]["mean"] if single else None,
        reward=summary["reward"],
        title=summary["prompt"] if single else f"{len(learner.prompts)} training prompts",
    )


def _conclude_search(
    folder: RunFolder, learner: Learner, setup: Setup, result: SearchResult, run: Mapping[str, Any]
) -> dict[str, Any]:
    """The summary of the pictures that a search kept."""
    prompt, rows = learner.prompts[0], folder.metrics()
    kept = assess(result.images, prompt, result.kept_rewards(), judge=setup.judges.get(prompt))
    cost = Cost(
        learner.queries,
        sum(row["denoiser_forwards"] for row in rows),
        sum(row["seconds"] for row in rows),
        peak_memory_mb(setup.sampler.pipeline.device),
    )
    summary = {
        "schema": SEARCH_SCHEMA,
        "prompt": prompt,
        "model": setup.model,
        "reward": setup.reward_name,
        "judge": setup.judge_name,
        "all": {"reward": bootstrap(result.rewards).as_dict()},
        "kept": {
            "indices": list(result.indices),
            "rewards": kept.reward.tolist(),
            "reward": bootstrap(kept.reward).as_dict(),
            "judged": None if kept.judged is None else kept.judged.tolist(),
            "judged_accuracy": None if kept.judged is None else bootstrap(kept.judged).as_dict(),
        },
        "cost": cost.as_dict(),
        "run": dict(run),
    }
    learner.save(folder.path)
    title = f"“{prompt}”: the best {len(kept)} of {learner.queries} by {setup.reward_name}"
    grid(kept.images, folder / BEST, title=title, verdicts=kept.judged)
    folder.write_json(SUMMARY, summary)
    return summary
