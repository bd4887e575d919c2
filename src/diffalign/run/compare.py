"""All methods at the same number of reward queries a prompt, in one table.

Each method spends `queries` a prompt, and then gives `images` pictures of each: search the best that it
saw, what learns fresh ones. What learns from all prompts at once spends as many queries in all, in whole
rounds and at least one (tune: of 96).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.diffusion import Sampler
from diffalign.evaluation import Samples, assess
from diffalign.learners.contract import Learner
from diffalign.methods import build
from diffalign.metrics import mean_pairwise_distance
from diffalign.policies.noise import NoiseDistribution
from diffalign.run.held_out import measure
from diffalign.run.loading import Setup
from diffalign.run.progress import Progress
from diffalign.run.session import Session
from diffalign.settings.evaluation import Evaluation
from diffalign.settings.methods import METHODS
from diffalign.settings.search import Algorithm

USUAL_STEPS = 20  # of the sampler, for which first_steps of the preset of `tune` is meant


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
        states: the folder of what is under way.
    """

    load: Callable[[], Sampler]
    setup: Setup
    prompts: tuple[str, ...]
    queries: int
    images: int
    seed: int
    states: Path
    progress: Progress


def _find(task: Task, sampler: Sampler) -> Any:
    return replace(METHODS["find"].presets["default"], queries=task.queries, seed=task.seed)


def _anchors(task: Task, sampler: Sampler) -> Any:
    config = METHODS["anchors"].presets["default"]
    visited = min(len(task.prompts), config.prompts_per_round)
    rounds = max(1, task.queries * len(task.prompts) // (visited * config.samples_per_prompt))
    return replace(config, prompts_per_round=visited, rounds=rounds, seed=task.seed)


def _tune(task: Task, sampler: Sampler) -> Any:
    config = METHODS["tune"].presets["default"]
    rounds = max(1, task.queries * len(task.prompts) // config.samples)
    first = max(1, sampler.num_steps * config.first_steps // USUAL_STEPS)
    return replace(config, rounds=rounds, first_steps=first, seed=task.seed)


def _search(algorithm: Algorithm) -> Callable[[Task, Sampler], Any]:
    def config(task: Task, sampler: Sampler) -> Any:
        search = METHODS["search"].config
        return search(algorithm, queries=task.queries, keep=task.images, seed=task.seed)

    return config


#: By the name that the command line knows: the method, and its settings for a task.
COMPARED: Mapping[str, tuple[str, Callable[[Task, Sampler], Any]] | None] = {
    "frozen": None,
    "best-of-n": ("search", _search("best-of-n")),
    "zero-order": ("search", _search("zero-order")),
    "spectral": ("search", _search("spectral")),
    "find": ("find", _find),
    "anchors": ("anchors", _anchors),
    "tune": ("tune", _tune),
}


def run_method(name: str, task: Task) -> tuple[list[Samples], int]:
    """Pictures of each prompt by the method called `name`, and the denoiser's forwards that they took."""
    setup, row = task.setup, COMPARED[name]
    if row is None:
        return _fresh(task, setup, None, task.prompts)
    method, settings = row
    sampler = task.load() if method == "tune" else setup.sampler
    setup = replace(setup, sampler=sampler)
    together = not METHODS[method].per_prompt
    pictures, forwards = list[Samples](), 0
    for number, prompts in enumerate([task.prompts] if together else [(p,) for p in task.prompts]):
        learner = build(method, sampler, prompts, settings(task, sampler), setup.reward_name)
        folder = RunFolder(task.states / f"{name}-{task.seed}-{number}")
        folder.path.mkdir(parents=True, exist_ok=True)
        # checks would cost what the others do not spend
        evaluation = Evaluation(images=task.images, check_every=0)
        Session(folder, learner, setup, prompts, evaluation, task.progress, {}).learn()
        forwards += sum(line["denoiser_forwards"] for line in folder.metrics())
        samples, fresh = _fresh(task, setup, learner, prompts)
        pictures += samples
        forwards += fresh
    return pictures, forwards


def _fresh(
    task: Task, setup: Setup, learner: Learner | None, prompts: Sequence[str]
) -> tuple[list[Samples], int]:
    """Pictures of what was learned, or those that a search kept, and the forwards of fresh ones."""
    if learner is not None and (kept := learner.kept()) is not None:
        (prompt,) = prompts
        judge = setup.judges.get(prompt)
        return [assess(kept.images, prompt, kept.kept_rewards(), judge=judge, embed=setup.embed)], 0
    standard = NoiseDistribution.standard(setup.sampler.latent_shape)
    noise = (lambda _: standard) if learner is None else learner.noise
    samples, _ = measure(setup, prompts, noise, task.images, task.seed, task.progress)
    return samples, setup.sampler.forwards * task.images * len(prompts)


def count_pictures(name: str, prompts: int, queries: int, images: int) -> int:
    """How many pictures the method called `name` makes, about."""
    row = COMPARED[name]
    return prompts * (images if row is None else queries + (0 if row[0] == "search" else images))


def describe(prompt: str, samples: Samples) -> dict[str, Any]:
    """A prompt's pictures as a line of the comparison holds them."""
    distance = None
    if samples.embeddings is not None and len(samples) > 1:
        distance = mean_pairwise_distance(samples.embeddings)
    return {
        "prompt": prompt,
        "reward": samples.reward.tolist(),
        "judged": None if samples.judged is None else samples.judged.int().tolist(),
        "distance": distance,
    }
