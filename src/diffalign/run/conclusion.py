"""The end of a run: fresh pictures before and after, search at equal cost, and all that is left on disk."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation import Cost, Samples, Summary, diversity_of, pooled, summarise
from diffalign.files import BEFORE_AFTER, BEST, PICTURES, SUMMARY, versions, write_json
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.result import SearchResult
from diffalign.loop import train
from diffalign.metrics import bootstrap
from diffalign.report.html import SEARCH_SCHEMA, write_report
from diffalign.report.pictures import before_after, grid
from diffalign.run.charts import draw_curve
from diffalign.run.held_out import SHOWN, first_pictures
from diffalign.run.pictures import save_pictures
from diffalign.run.progress import Progress
from diffalign.run.session import Session
from diffalign.run.setup import Setup
from diffalign.settings.search import SearchConfig

COLUMNS = 8  # pictures side by side at most


def count_evaluated(session: Session) -> int:
    """How many pictures the conclusion makes."""
    evaluation, prompts = session.asked.plan.evaluation, len(session.asked.held_out)
    number = 2 * int(evaluation.images)
    if evaluation.baselines:
        number += equal_cost(session.learner.total, prompts, evaluation.images)
    return prompts * number


def equal_cost(queries: int, prompts: int, images: int) -> int:
    """Pictures a prompt that search may try at the cost of a method which spent `queries` on all `prompts`
    before it made `images` of each: each query was a picture too."""
    return queries // prompts + images


def conclude(session: Session, progress: Progress) -> Summary | Mapping[str, Any]:
    """Evaluates what was learned, writes what is left, and returns what `summary.json` holds."""
    learner, setup, plan = session.learner, session.setup, session.asked.plan
    stopped = {"stopped": learner.stopped} if learner.stopped else {}
    run = {
        **plan.record(),
        **learner.record(),
        **stopped,
        "guidance_scale": setup.sampler.guidance_scale,
        **versions(),
    }
    if (kept := learner.kept()) is not None:
        return _conclude_search(session, kept, run)
    seed, images, prompts = plan.learning.seed, plan.evaluation.images, session.asked.held_out
    before, after, cost = setup.measure_pairs(learner, prompts, images, seed, progress, session.spent())
    best: list[Samples] = []
    if plan.evaluation.baselines:
        number, began = equal_cost(learner.queries, len(prompts), images), time.perf_counter()
        with progress.phase("search", number * len(prompts)), learner.frozen():
            best = [_best_of_n(setup, prompt, number, images, seed, progress) for prompt in prompts]
        queries, seconds = number * len(prompts), time.perf_counter() - began
        forwards, memory = queries * setup.sampler.forwards, cost["tuned"].peak_memory_mb
        cost["best_of_n"] = Cost(queries, forwards, seconds, memory)
    summary = summarise(
        pooled(before),
        pooled(after),
        pooled(best) if best else None,
        cost,
        prompt=prompts[0] if len(prompts) == 1 else f"{len(prompts)} {session.asked.measured_on}",
        prompts=prompts,
        **setup.names,
        run=run,
    )
    learner.save(session.folder.path)
    _draw_pairs(session, before, after)
    draw_curve(session.folder, plan, summary)
    write_json(session.folder / SUMMARY, summary)
    write_report(session.folder.path)  # which tells a finished run, and so comes last
    return summary


def _best_of_n(setup: Setup, prompt: str, number: int, images: int, seed: int, progress: Progress) -> Samples:
    search = BestOfN(setup.sampler, [prompt], SearchConfig(queries=number, keep=images, seed=seed))
    for _ in train(search, setup.reward, on_batch=progress.advance):
        progress.reward(float(search.best.rewards.mean()), float(search.best.rewards.max()))
    return setup.assess(search.best, prompt, setup.embed)


def shown(
    parts: Sequence[Samples], prompts: Sequence[str], number: int = SHOWN
) -> tuple[Tensor, Tensor | None, list[str]]:
    """The first pictures of each prompt, `number` in all at most, with verdicts, if all have some, and
    captions, if there are several prompts."""
    each = max(1, number // len(parts))
    images = first_pictures([part.images for part in parts], number)
    judged = [part.judged[:each] for part in parts if part.judged is not None]
    verdicts = torch.cat(judged)[:number] if len(judged) == len(parts) else None
    captions = [prompt for prompt, part in zip(prompts, parts, strict=True) for _ in part.images[:each]]
    return images, verdicts, captions[:number] if len(parts) > 1 else []


def columns_for(captions: Sequence[str]) -> int:
    """Pictures side by side, so that those of a prompt, whose caption they have, are in one row."""
    each = captions.count(captions[0]) if captions else 1
    return COLUMNS - COLUMNS % min(each, COLUMNS)


def _draw_pairs(session: Session, before: Sequence[Samples], after: Sequence[Samples]) -> None:
    old, wrong, captions = shown(before, session.asked.held_out)
    new, right, _ = shown(after, session.asked.held_out)
    verdicts = None if wrong is None or right is None else (wrong, right)
    titles = ("Before: the frozen model", f"After: the {session.learner.learned}, from the same seeds")
    path = session.folder / BEFORE_AFTER
    columns = columns_for(captions)
    before_after(old, new, path, columns=columns, titles=titles, verdicts=verdicts, captions=captions)


def _conclude_search(session: Session, result: SearchResult, run: Mapping[str, Any]) -> dict[str, Any]:
    prompt, setup = session.learner.prompts[0], session.setup
    kept = setup.assess(result, prompt, setup.embed)
    summary = {
        "schema": SEARCH_SCHEMA,
        "prompt": prompt,
        **setup.names,
        "description": result.described(),
        "previews": {"reward": bootstrap(result.previews).as_dict()} if len(result.previews) else None,
        "all": {"reward": bootstrap(result.rewards).as_dict()},
        "kept": {
            "indices": list(result.indices),
            "rewards": kept.reward.tolist(),
            "reward": bootstrap(kept.reward).as_dict(),
            "judged": None if kept.judged is None else kept.judged.tolist(),
            "judged_accuracy": None if kept.judged is None else bootstrap(kept.judged).as_dict(),
            "diversity": diversity_of(kept),
        },
        "cost": session.spent().as_dict(),
        "run": dict(run),
    }
    folder, title = session.folder, f"{result.described()} by {setup.reward_name}: {prompt}"
    session.learner.save(folder.path)
    captions = [f"{reward:.4g}" for reward in kept.reward.tolist()]
    grid(kept.images, folder / BEST, title=title, verdicts=kept.judged, captions=captions)
    save_pictures(kept.images, folder / PICTURES, prompt, session.asked.plan.learning.seed)
    draw_curve(folder, session.asked.plan, summary)
    write_json(folder / SUMMARY, summary)
    write_report(folder.path)
    return summary
