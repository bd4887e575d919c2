"""The end of a run: fresh pictures before and after, search at equal cost, and all that is left on disk."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation import Cost, Samples, Summary, diversity_of, pooled, summarise
from diffalign.files import BEFORE_AFTER, BEST, CURVE, SUMMARY, versions, write_json
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.result import SearchResult
from diffalign.loop import train
from diffalign.metrics import bootstrap
from diffalign.report.html import write_report
from diffalign.report.plots import before_after, grid, reward_curve
from diffalign.run.held_out import SHOWN, first_pictures
from diffalign.run.progress import Progress
from diffalign.run.session import Session
from diffalign.run.setup import Setup
from diffalign.settings.search import SearchConfig

SEARCH_SCHEMA = "diffalign.search/1"


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
        prompt=prompts[0] if len(prompts) == 1 else f"{len(prompts)} held-out prompts",
        **setup.names,
        run=run,
    )
    learner.save(session.folder.path)
    _draw(session, before, after, summary)
    write_json(session.folder / SUMMARY, summary)
    write_report(session.folder.path)  # which tells a finished run, and so comes last
    return summary


def _best_of_n(setup: Setup, prompt: str, number: int, images: int, seed: int, progress: Progress) -> Samples:
    search = BestOfN(setup.sampler, [prompt], SearchConfig(queries=number, keep=images, seed=seed))
    for _ in train(search, setup.reward, on_batch=progress.advance):
        progress.reward(float(search.best.rewards.mean()), float(search.best.rewards.max()))
    return setup.assess(search.best, prompt, setup.embed)


def _draw(session: Session, before: Sequence[Samples], after: Sequence[Samples], summary: Summary) -> None:
    folder, learner = session.folder, session.learner
    each = max(1, SHOWN // len(before))

    def shown(parts: Sequence[Samples]) -> tuple[Tensor, Tensor | None]:
        judged = [part.judged[:each] for part in parts if part.judged is not None]
        verdicts = torch.cat(judged)[:SHOWN] if len(judged) == len(parts) else None
        return first_pictures([part.images for part in parts]), verdicts

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
    session.learner.save(session.folder.path)
    title = f"“{prompt}”: {result.described()} by {setup.reward_name}"
    grid(kept.images, session.folder / BEST, title=title, verdicts=kept.judged)
    write_json(session.folder / SUMMARY, summary)
    return summary
