"""Fresh pictures of held-out prompts: while a learner learns (is the reward hacked?) and at the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from diffalign.evaluation import Cost, Samples, evaluate, peak_memory_mb
from diffalign.metrics import mean_pairwise_distance
from diffalign.policies.noise import NoiseDistribution
from diffalign.run.loading import Setup
from diffalign.run.progress import Progress
from diffalign.settings.evaluation import Evaluation, SearchEvaluation

STREAM = "look"  # of random numbers: under another name a seed would give other pictures
#: The distribution of a prompt's initial noise.
Noise = Callable[[str], NoiseDistribution]
#: Beyond these an alarm goes: a fall of the judged share below its best, and the share of the first check's
#: diversity that is lost. Chosen by hand, wide enough that checks of few pictures seldom err.
JUDGED_DROP, DIVERSITY_DROP = 0.1, 0.3


def is_due(evaluation: Evaluation | SearchEvaluation, round: int) -> bool:
    """Whether held-out prompts are checked after `round`, counted from 1; of a search never."""
    every = evaluation.check_every if isinstance(evaluation, Evaluation) else 0
    return every > 0 and (round == 1 or round % every == 0)


def measure(
    setup: Setup,
    prompts: Sequence[str],
    noise: Noise,
    images: int,
    seed: int,
    progress: Progress,
    *,
    stream: str = "evaluate",
) -> tuple[list[Samples], float]:
    """Fresh pictures of each prompt from its `noise`, and the seconds they took."""
    began = time.perf_counter()
    samples = [
        evaluate(
            setup.sampler,
            prompt,
            noise(prompt),
            setup.reward,
            judge=setup.judges.get(prompt),
            embed=setup.embed,
            n=images,
            seed=seed,
            stream=stream,
            batch_size=setup.sampler.batch_size,
            on_batch=progress.advance,
        )
        for prompt in prompts
    ]
    return samples, time.perf_counter() - began


class Learned(Protocol):
    """What fresh pictures are made with, such as a learner or an opened artefact."""

    def noise(self, prompt: str) -> NoiseDistribution:
        """What pictures of `prompt` start from."""

    def frozen(self) -> AbstractContextManager[None]:
        """Within it the model is as before any learning."""


def measure_pairs(
    setup: Setup, learned: Learned, prompts: Sequence[str], images: int, seed: int, progress: Progress
) -> tuple[list[Samples], list[Samples], dict[str, Cost]]:
    """Pictures of each prompt by the frozen model and by what was learned, in pairs of the same noise, and
    the cost of making them, by row."""
    standard = NoiseDistribution.standard(setup.sampler.latent_shape)
    with progress.phase("evaluate", 2 * len(prompts) * images):
        with learned.frozen():
            before, before_seconds = measure(setup, prompts, lambda _: standard, images, seed, progress)
        after, after_seconds = measure(setup, prompts, learned.noise, images, seed, progress)
    memory = peak_memory_mb(setup.sampler.pipeline.device)
    forwards = setup.sampler.forwards * images * len(prompts)
    seconds = {"baseline": before_seconds, "tuned": after_seconds}
    return before, after, {row: Cost(0, forwards, took, memory) for row, took in seconds.items()}


def check_held_out(
    setup: Setup, prompts: Sequence[str], noise: Noise, evaluation: Evaluation, seed: int, progress: Progress
) -> dict[str, float | None]:
    """Means over held-out prompts; the same noise at every check."""
    samples, _ = measure(setup, prompts, noise, evaluation.check_images, seed, progress, stream=STREAM)
    judged = [part.judged for part in samples if part.judged is not None]
    distances = [mean_pairwise_distance(part.embeddings) for part in samples if part.embeddings is not None]
    return {
        "reward": float(torch.cat([part.reward for part in samples]).mean()),
        "judged": float(torch.cat(judged).float().mean()) if judged else None,
        "distance": sum(distances) / len(distances) if distances else None,
    }


def alarm(checks: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong at the last of `checks`, if the reward has risen since the first."""
    if len(checks) < 2 or checks[-1]["reward"] <= checks[0]["reward"]:
        return None
    first, last = checks[0], checks[-1]
    if last["judged"] is not None:
        best = max(check["judged"] for check in checks)
        if last["judged"] < best - JUDGED_DROP:
            return f"the reward rises while the judged share fell from {best:.2f} to {last['judged']:.2f}"
    if last["distance"] is not None and last["distance"] < (1 - DIVERSITY_DROP) * first["distance"]:
        return (
            f"the reward rises while diversity fell from {first['distance']:.3f} to "
            f"{last['distance']:.3f} (mean pairwise distance)"
        )
    return None
