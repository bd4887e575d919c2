"""What a run samples, scores and measures with, and fresh pictures made with it."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from diffalign.diffusion import Sampler
from diffalign.evaluation import Cost, Judge, Samples, assess, evaluate, peak_memory_mb
from diffalign.learners.result import SearchResult
from diffalign.metrics import Embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction
from diffalign.run.progress import Progress


class Learned(Protocol):
    """What fresh pictures start from, and a context in which the model is as before any learning; such as a
    learner or an opened artefact."""

    def noise(self, prompt: str) -> NoiseDistribution: ...

    def frozen(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Setup:
    """What a run samples, scores and measures with.

    Attributes:
        judges: by prompt.
        model, reward_name: as they were asked for.
        warnings: what one should know before a run.
    """

    sampler: Sampler
    reward: RewardFunction
    judges: Mapping[str, Judge | None]
    embed: Embedder | None
    model: str
    reward_name: str
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, Any]:
        """Of model, reward and judge, as a summary holds them."""
        judge = "world-scene" if any(self.judges.values()) else None
        return {"model": self.model, "reward": self.reward_name, "judge": judge}

    @property
    def memory(self) -> float | None:
        """The most memory used so far, in MB."""
        return peak_memory_mb(self.sampler.pipeline.device)

    def assess(self, kept: SearchResult, prompt: str, embed: Embedder | None = None) -> Samples:
        """The pictures that a search kept."""
        return assess(kept.images, prompt, kept.kept_rewards(), judge=self.judges.get(prompt), embed=embed)

    def measure(
        self,
        prompts: Sequence[str],
        noise: Callable[[str], NoiseDistribution] | None,
        images: int,
        seed: int,
        progress: Progress,
        stream: str = "evaluate",
    ) -> list[Samples]:
        """Fresh pictures of each prompt from its `noise`; N(0, I) if None."""
        standard = NoiseDistribution.standard(self.sampler.latent_shape)
        return [
            evaluate(
                self.sampler,
                prompt,
                noise(prompt) if noise else standard,
                self.reward,
                judge=self.judges.get(prompt),
                embed=self.embed,
                n=images,
                seed=seed,
                stream=stream,
                batch_size=self.sampler.batch_size,
                on_batch=progress.advance,
            )
            for prompt in prompts
        ]

    def measure_pairs(
        self,
        learned: Learned,
        prompts: Sequence[str],
        images: int,
        seed: int,
        progress: Progress,
        spent: Cost,
    ) -> tuple[list[Samples], list[Samples], dict[str, Cost]]:
        """Pictures of each prompt by the frozen model and by what was learned, in pairs of the same noise,
        and the cost of making them, by row; of what was learned with what learning `spent`."""
        began = time.perf_counter()
        with progress.phase("evaluate", 2 * len(prompts) * images):
            with learned.frozen():
                before = self.measure(prompts, None, images, seed, progress)
            between = time.perf_counter()
            after = self.measure(prompts, learned.noise, images, seed, progress)
        forwards = self.sampler.forwards * images * len(prompts)
        frozen = Cost(0, forwards, between - began, self.memory)
        tuned = replace(
            spent,
            denoiser_forwards=spent.denoiser_forwards + forwards,
            seconds=spent.seconds + time.perf_counter() - between,
            peak_memory_mb=self.memory,
        )
        return before, after, {"baseline": frozen, "tuned": tuned}
