"""Fresh, paired samples of a distribution.

The pictures are never those of the optimisation: their noise comes from the stream "evaluate", with the same
ε at each index for every distribution. So sample i of the baseline and sample i of the tuned distribution are
a pair, and the interval of their mean difference is much narrower than those of the two means suggest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from diffalign.diffusion.finite import FLOAT32, check_finite
from diffalign.diffusion.memory import Pile, joined
from diffalign.metrics import Embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.frames import frame_consistency
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Environment, as_bytes, collect

TENSORS = ("images", "reward", "judged", "graded", "embeddings", "steadiness")
#: From pictures and their prompts to verdicts `(B,)`, bool, and graded scores `(B,)` in [0, 1].
Judge = Callable[[Tensor, list[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Samples:
    """Pictures with their scores, verdicts and embeddings.

    Attributes:
        images: `(n, 3, H, W)` or video `(n, F, 3, H, W)`, uint8 as in a PNG; scores are those of the float
            pictures.
        reward: `(n,)`.
        judged: the judge's verdicts `(n,)`, bool; None without a judge.
        graded: the judge's graded scores `(n,)`; None without a judge.
        embeddings: `(n, D)`; None without an embedder.
        diversity_on: the space of the embeddings.
        steadiness: frame consistency in that space `(n,)`; None of pictures, or without an embedder.
        per_prompt: the number of pictures of each prompt, in order; empty if there is one prompt.
    """

    images: Tensor
    reward: Tensor
    judged: Tensor | None = None
    graded: Tensor | None = None
    embeddings: Tensor | None = None
    diversity_on: Literal["clip", "pixels"] | None = None
    steadiness: Tensor | None = None
    per_prompt: tuple[int, ...] = ()

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
    """Pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)`, float32 in [0, 1], with their scores, verdicts and
    embeddings.

    Arguments:
        reward: the reward, or the rewards `(B,)` if they are already known.
        judge: for verdicts; none by default.
        embed: for diversity; none by default.

    Raises:
        RewardError: if the reward fails.
        NotFiniteError: if an embedding holds values that are no numbers.
        ValueError: if there are not B rewards, verdicts or embeddings.
    """
    prompts = [prompt] * len(images)
    rewards = reward if isinstance(reward, Tensor) else score(reward, images, prompts)
    judged, graded = judge(images, prompts) if judge is not None else (None, None)
    if judged is not None and graded is not None:
        judged, graded = judged.bool().cpu(), graded.float().cpu()
    embeddings = embed(images) if embed is not None else None
    if embeddings is not None:
        check_finite("pictures' embeddings", embeddings, FLOAT32)
    steadiness = None
    if embed is not None and images.ndim == 5 and images.shape[1] > 1:
        steadiness = frame_consistency(images, embed.frames or embed).cpu()
    for values in (rewards, judged, graded, embeddings, steadiness):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(images)} pictures, but scores with shape {tuple(values.shape)}")
    return Samples(
        as_bytes(images), rewards, judged, graded, embeddings, embed.on if embed else None, steadiness
    )


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
        judge: that the reward does not know, such as `diffalign.world.judge.judge`.
        embed: `embedder(model)`, for diversity.
        stream: of noise; samples of different streams share none.
        batch_size: pictures made and scored at a time; it changes time and memory alone.
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
    assessed, pictures = list[Samples](), Pile()
    for batch, samples in overlapped(
        batches, lambda batch: assess(batch.images, prompt, reward, judge=judge, embed=embed)
    ):
        pictures.add(samples.images)
        assessed.append(replace(samples, images=torch.empty(0)))
        if on_batch is not None:
            on_batch(len(batch.indices))
    return replace(pooled(assessed), images=pictures.joined(), per_prompt=())


def pooled(samples: Sequence[Samples]) -> Samples:
    """The samples of several prompts as one; verdicts or embeddings that one of them lacks are None."""

    def of_all(name: str) -> Any:
        tensors = [getattr(one, name) for one in samples]
        return None if any(tensor is None for tensor in tensors) else joined(tensors)

    tensors = {name: of_all(name) for name in TENSORS}
    return Samples(**tensors, diversity_on=samples[0].diversity_on, per_prompt=tuple(map(len, samples)))


def split(samples: Samples) -> list[Samples]:
    """Those of each prompt, which `pooled` joined."""
    sizes = list(samples.per_prompt or [len(samples)])
    tensors = {name: getattr(samples, name) for name in TENSORS}
    parts = {name: tensor.split(sizes) for name, tensor in tensors.items() if tensor is not None}
    return [
        Samples(**{name: part[i] for name, part in parts.items()}, diversity_on=samples.diversity_on)
        for i in range(len(sizes))
    ]
