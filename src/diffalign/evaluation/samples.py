"""Fresh, paired samples of a distribution.

The pictures are never those of the optimisation: their noise comes from the stream "evaluate", the
same ε per index for every distribution. So entry i of the baseline and of the tuned samples is a
pair, and the interval of their difference is much narrower than the difference of two intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from diffalign.metrics import Embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Environment, collect

#: Pictures and their prompts to verdicts `(B,)`, bool, and graded scores `(B,)` in [0, 1].
Judge = Callable[[Tensor, list[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Samples:
    """Pictures and what is said of them.

    Attributes:
        images: `(n, 3, H, W)` or video `(n, F, 3, H, W)`, uint8 as a PNG holds them. Scores are taken
            of the float pictures.
        reward: `(n,)`.
        judged: the judge's verdicts `(n,)`, bool; None without a judge.
        graded: the judge's graded scores `(n,)`; None without a judge.
        embeddings: `(n, D)`; None without an embedder.
        diversity_on: the space of the embeddings.
        parts: how many of the pictures, in order, are of each prompt; all of one if empty.
    """

    images: Tensor
    reward: Tensor
    judged: Tensor | None = None
    graded: Tensor | None = None
    embeddings: Tensor | None = None
    diversity_on: Literal["clip", "pixels"] | None = None
    parts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.reward)


def assess(
    images: Tensor,
    prompt: str,
    reward: RewardFunction | Tensor,
    *,
    judge: Judge | None = None,
    embed: Embedder | None = None,
) -> Samples:
    """What reward, judge and embedder say of pictures with shape `(B, 3, H, W)`, float32 in [0, 1].

    Arguments:
        reward: the reward, or the rewards `(B,)` where they are already known.

    Raises:
        RewardError: if the reward fails.
        ValueError: if there is not one verdict, score or embedding a picture.
    """
    prompts = [prompt] * len(images)
    rewards = reward if isinstance(reward, Tensor) else score(reward, images, prompts)
    judged, graded = judge(images, prompts) if judge is not None else (None, None)
    if judged is not None and graded is not None:
        judged, graded = judged.bool().cpu(), graded.float().cpu()
    embeddings = embed(images) if embed is not None else None
    for said in (rewards, judged, graded, embeddings):
        if said is not None and len(said) != len(images):
            raise ValueError(f"{len(images)} pictures, but scores with shape {tuple(said.shape)}")
    return Samples(as_bytes(images), rewards, judged, graded, embeddings, embed.on if embed else None)


def evaluate(
    environment: Environment,
    prompt: str,
    distribution: NoiseDistribution,
    reward: RewardFunction,
    *,
    judge: Judge | None = None,
    embed: Embedder | None = None,
    n: int = 64,
    seed: int,
    stream: str = "evaluate",
    batch_size: int = 16,
    on_batch: Callable[[int], None] | None = None,
) -> Samples:
    """`n` fresh samples of `distribution`, assessed.

    For the paired baseline give `NoiseDistribution.standard(latent)` and the same `seed`.

    Arguments:
        environment: `(x_T, prompt) → images`, such as a `Sampler`.
        judge: `world_judge(model, prompt)`, or another that the reward does not know.
        embed: `embedder(model)`, for diversity.
        stream: which noise; samples of different streams share none.
        batch_size: pictures made and scored at a time; it changes nothing but time and memory.
        on_batch: called with the number of pictures of each batch, for a progress bar.

    Raises:
        RewardError: if the reward fails.
        ValueError: if `n` or `batch_size` is not positive.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size must be positive, not {n} and {batch_size}")
    batches = (
        collect(distribution, environment, prompt, range(n)[i : i + batch_size], seed=seed, stream=stream)
        for i in range(0, n, batch_size)
    )
    parts = []
    for batch, part in overlapped(
        batches, lambda batch: assess(batch.images, prompt, reward, judge=judge, embed=embed)
    ):
        parts.append(part)
        if on_batch is not None:
            on_batch(len(batch.indices))
    return replace(pooled(parts), parts=())


def pooled(samples: Sequence[Samples]) -> Samples:
    """Samples of several prompts as one; a judge that cannot read all of them says nothing of the whole."""

    def joined(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if len(present) == len(parts) else None

    return Samples(
        torch.cat([part.images for part in samples]),
        torch.cat([part.reward for part in samples]),
        joined([part.judged for part in samples]),
        joined([part.graded for part in samples]),
        joined([part.embeddings for part in samples]),
        samples[0].diversity_on,
        tuple(len(part) for part in samples),
    )


def world_judge(model: str, prompt: str) -> Judge | None:
    """The embedded world's exact judge, if `model` is "world" and it can read `prompt`; else None."""
    if model != "world":
        return None
    from diffalign.world.grammar import PromptError, parse
    from diffalign.world.judge import judge

    try:
        parse(prompt)
    except PromptError:
        return None
    return judge


def as_bytes(images: Tensor) -> Tensor:
    """Float pictures in [0, 1] to uint8, rounded as diffusers does on the way to PIL; uint8 stays."""
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
