"""All methods at the same number of reward queries a prompt, in one table.

Each method spends `queries` a prompt, and then gives `images` pictures of each: search the best that it
saw, what learns fresh ones. What learns from all prompts at once spends as many queries in all. Each line
of `comparison.jsonl` is a method with a seed; what is there already is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.artifacts import replacing
from diffalign.diffusion import Sampler
from diffalign.evaluation import Samples, assess
from diffalign.methods import Find, NoisePPO, Tune, generator_preset, preset, tune_preset
from diffalign.methods.origins import origin
from diffalign.metrics import clustered, mean_pairwise_distance
from diffalign.run.guard import Noise, TuneSetup, measure
from diffalign.run.progress import Progress, Watched
from diffalign.search import SearchResult, best_of_n, spectral_evolution, zero_order

PREVIEW_STEPS = 4  # of spectral evolution search's previews


@dataclass(frozen=True)
class Task:
    """What each method is given.

    Attributes:
        load: opens the frozen model anew, as a tuned denoiser cannot be put back.
        setup: reward, judges and embedder; its sampler is that of the frozen model.
        prompts: what the pictures should show.
        queries: of the reward, a prompt.
        images: pictures wanted of each prompt.
        seed: of everything.
    """

    load: Callable[[], Sampler]
    setup: TuneSetup
    prompts: tuple[str, ...]
    queries: int
    images: int
    seed: int
    progress: Progress


#: Pictures of each prompt, and the denoiser's forwards that they took in all.
Outcome = tuple[list[Samples], int]


def _fresh(task: Task, sampler: Sampler, noise: Noise | None = None) -> Outcome:
    environment = Watched(sampler, task.progress)
    samples, _ = measure(environment, task.setup, task.prompts, task.images, task.seed, noise)
    return samples, environment.forwards * task.images * len(task.prompts)


def frozen(task: Task) -> Outcome:
    """The frozen model's pictures: no queries."""
    return _fresh(task, task.setup.sampler)


#: A search, the pictures of all steps that its pictures and previews amount to, and further arguments of it.
Searching = tuple[Callable[..., SearchResult], float, dict[str, Any]]


def _plainly(search: Callable[..., SearchResult]) -> Callable[[Sampler, Progress, int, int], Searching]:
    def prepared(sampler: Sampler, progress: Progress, queries: int, keep: int) -> Searching:
        return search, queries, {}

    return prepared


def _with_previews(sampler: Sampler, progress: Progress, queries: int, keep: int) -> Searching:
    few = Sampler(
        sampler.pipeline,
        num_steps=min(PREVIEW_STEPS, sampler.num_steps),
        guidance_scale=sampler.guidance_scale,
        batch_size=sampler.batch_size,
    )
    amount = keep + (queries - keep) * few.num_steps / sampler.num_steps
    return spectral_evolution, amount, {"preview": Watched(few, progress)}


#: By name; each is told sampler, progress, queries and how many pictures are kept.
SEARCHES: Mapping[str, Callable[[Sampler, Progress, int, int], Searching]] = {
    "best-of-n": _plainly(best_of_n),
    "zero-order": _plainly(zero_order),
    "spectral": _with_previews,
}


def _search(name: str) -> Callable[[Task], Outcome]:
    """Pictures that the search called `name` keeps, as a method."""

    def method(task: Task) -> Outcome:
        """Prompt by prompt."""
        sampler, setup, samples = task.setup.sampler, task.setup, []
        search, amount, more = SEARCHES[name](sampler, task.progress, task.queries, task.images)
        environment = Watched(sampler, task.progress)
        for prompt in task.prompts:
            result = search(
                environment,
                sampler.latent_shape,
                prompt,
                setup.reward,
                task.queries,
                keep=task.images,
                seed=task.seed,
                batch_size=sampler.batch_size,
                **more,
            )
            judge, kept = setup.judges.get(prompt), result.kept_rewards()
            samples.append(assess(result.images, prompt, kept, judge=judge, embed=setup.embed))
        return samples, round(amount * environment.forwards * len(task.prompts))

    return method


def find(task: Task) -> Outcome:
    """FIND's default, a prompt at a time."""
    environment, learned = Watched(task.setup.sampler, task.progress), {}
    for prompt in task.prompts:
        config = preset("default", queries=task.queries, seed=task.seed)
        run = Find(task.setup.sampler, prompt, task.setup.reward, config)
        for step in run:
            task.progress.advance(len(step.rewards))
        learned[prompt] = run.distribution
    samples, forwards = _fresh(task, task.setup.sampler, learned.__getitem__)
    return samples, forwards + environment.forwards * task.queries * len(task.prompts)


def noise_ppo(task: Task) -> Outcome:
    """One generator for all the prompts."""
    config = generator_preset("default", seed=task.seed)
    asked = min(len(task.prompts), config.prompts_per_round)
    rounds = max(1, task.queries * len(task.prompts) // (asked * config.samples_per_prompt))
    config = replace(config, prompts_per_round=asked, rounds=rounds)
    run = NoisePPO(task.setup.sampler, task.prompts, task.setup.reward, config)
    for step in run:
        task.progress.advance(len(step.rewards))
    samples, forwards = _fresh(task, task.setup.sampler, run.noise)
    return samples, forwards + Watched(task.setup.sampler, task.progress).forwards * run.learner.queries


def tuned(task: Task) -> Outcome:
    """One adapter for all the prompts, by the default of `tune`."""
    sampler, config = task.load(), tune_preset("default", seed=task.seed)
    first = max(1, sampler.num_steps * config.first_steps // 20)
    rounds = max(1, task.queries * len(task.prompts) // config.samples)
    run = Tune(sampler, task.prompts, task.setup.reward, replace(config, rounds=rounds, first_steps=first))
    forwards = 0
    for step in run:
        task.progress.advance(len(step.rewards))
        forwards += step.forwards * (2 if run.tuner.policy.guided else 1)
    samples, fresh = _fresh(task, sampler)
    return samples, forwards + fresh


#: By the name that the command line knows.
METHODS: Mapping[str, Callable[[Task], Outcome]] = {
    "frozen": frozen,
    **{name: _search(name) for name in SEARCHES},
    "find": find,
    "noise-ppo": noise_ppo,
    "tune": tuned,
}


def pictures_of_a_comparison(
    methods: Sequence[str], prompts: int, queries: int, images: int, seeds: int
) -> int:
    """How many pictures it makes, about."""
    return sum(_pictures(method, prompts, queries, images) for method in methods) * seeds


def _pictures(method: str, prompts: int, queries: int, images: int) -> int:
    return prompts * ((0 if method == "frozen" else queries) + (0 if method in SEARCHES else images))


def compare_in(file: Path, methods: Sequence[str], task: Task, seeds: int) -> list[dict[str, Any]]:
    """Runs what `file` does not hold yet, seed by seed; returns all its lines on this task, method by
    method."""
    setup, sampler = task.setup, task.setup.sampler
    about = {"prompts": list(task.prompts), "queries": task.queries, "images": task.images}
    about |= {"model": setup.model, **origin(sampler, setup.reward_name), "judge": setup.judge_name}
    known = _lines(file)
    with replacing(file) as whole:  # without what a kill cut short
        whole.write_text("".join(json.dumps(row) + "\n" for row in known))
    rows = [row for row in known if row["about"] == about]
    done = {(row["method"], row["seed"]) for row in rows}
    for seed in range(task.seed, task.seed + seeds):
        for method in methods:
            if (method, seed) in done:
                continue
            began = time.perf_counter()
            total = _pictures(method, len(task.prompts), task.queries, task.images)
            with task.progress.phase(method, total):
                samples, forwards = METHODS[method](replace(task, seed=seed))
            row: dict[str, Any] = {"method": method, "seed": seed, "about": about}
            row |= {"seconds": time.perf_counter() - began, "forwards": forwards}
            row["pictures"] = [_of(prompt, part) for prompt, part in zip(task.prompts, samples, strict=True)]
            rows.append(row)
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
    return sorted(rows, key=lambda row: list(METHODS).index(row["method"]))


def _of(prompt: str, samples: Samples) -> dict[str, Any]:
    apart = None
    if samples.embeddings is not None and len(samples) > 1:
        apart = mean_pairwise_distance(samples.embeddings)
    judged: Tensor | None = samples.judged
    return {
        "prompt": prompt,
        "reward": samples.reward.tolist(),
        "judged": None if judged is None else judged.int().tolist(),
        "distance": apart,
    }


def _lines(file: Path) -> list[dict[str, Any]]:
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with suppress(json.JSONDecodeError):  # what a kill cut short is made anew
            rows.append(json.loads(line))
    return rows


def compared(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By method: reward, judged share, diversity (means with intervals over prompts and seeds), forwards and
    seconds a prompt."""
    table: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        parts = [part for row in own for part in row["pictures"]]
        prompts = len(own[0]["pictures"])
        apart = [part["distance"] for part in parts if part["distance"] is not None]
        table[method] = {
            "reward": _interval([part["reward"] for part in parts]),
            "judged": _interval([p["judged"] for p in parts]) if all(p["judged"] for p in parts) else None,
            "distance": sum(apart) / len(apart) if apart else None,
            "queries": 0 if method == "frozen" else own[0]["about"]["queries"],
            "forwards": sum(row["forwards"] for row in own) / len(own) / prompts,
            "seconds": sum(row["seconds"] for row in own) / len(own) / prompts,
            "seeds": len(own),
        }
    return table


def _interval(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    flat = [value for part in values for value in part]
    groups = [place for place, part in enumerate(values) for _ in part]
    return dict(clustered(flat, groups).as_dict())
