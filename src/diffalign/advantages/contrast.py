r"""Contrastive selection: of each group the best sample, if it is good, and the worst, if it is bad.

References: Hu et al. (CVPR 2025), section 4.2 (threshold 0.5), https://arxiv.org/abs/2503.11240
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def best_and_worst(advantage: Tensor, group: Tensor, threshold: float) -> list[int]:
    """Indices of the samples to learn from, in ascending order; the list may be empty.

    Arguments:
        advantage: normalised rewards with shape `(B,)`.
        group: the group of each sample, with shape `(B,)`.
        threshold: a best sample has at least this advantage, a worst one at most minus this.

    Raises:
        ValueError: if the shapes differ.
    """
    extremes = _extremes(advantage, group)
    good = {best for best, _ in extremes if advantage[best] >= threshold}
    return sorted(good | {worst for _, worst in extremes if advantage[worst] <= -threshold})


def pairs(advantage: Tensor, group: Tensor, threshold: float) -> list[tuple[int, ...]]:
    """Indices of a winner and a loser each: the best and the worst sample of each group, if both qualify.

    Arguments:
        advantage, group, threshold: as of `best_and_worst`; with threshold 0 any two that differ qualify.

    Raises:
        ValueError: if the shapes differ.
    """
    return [
        (best, worst)
        for best, worst in _extremes(advantage, group)
        if advantage[best] > advantage[worst]
        and (not threshold or (advantage[best] >= threshold and advantage[worst] <= -threshold))
    ]


def units(
    prompts: Sequence[str], advantage: Tensor, branches: int, threshold: float, paired: bool
) -> list[tuple[int, ...]]:
    """What a loss is made of: indices of samples, or of a winner and a loser if `paired`.

    Arguments:
        prompts: one a sample, whose branches stand together.
        advantage: normalised rewards with shape `(B,)`.
        branches: samples a group.
        threshold: as of `best_and_worst`; of single samples 0 takes all.

    Raises:
        ValueError: if the shapes differ.
    """
    group = torch.arange(len(prompts)) // branches
    if paired:
        return pairs(advantage, group if branches > 1 else couples(prompts), threshold)
    if not threshold:
        return [(i,) for i in range(len(advantage))]
    return [(i,) for i in best_and_worst(advantage, group, threshold)]


def couples(prompts: Sequence[str]) -> Tensor:
    """Group numbers `(B,)`: the samples of a prompt, in order, are grouped in twos."""
    counts: dict[str, int] = {}
    numbers: dict[tuple[str, int], int] = {}
    group = []
    for prompt in prompts:
        counts[prompt] = counts.get(prompt, -1) + 1
        group.append(numbers.setdefault((prompt, counts[prompt] // 2), len(numbers)))
    return torch.tensor(group)


def _extremes(advantage: Tensor, group: Tensor) -> list[tuple[int, int]]:
    """Indices of the best and the worst sample of each group."""
    if advantage.shape != group.shape or advantage.ndim != 1:
        raise ValueError(
            f"advantage and group must be (B,), not {tuple(advantage.shape)} and {tuple(group.shape)}"
        )
    extremes = []
    for number in group.unique():
        members = (group == number).nonzero()[:, 0]
        values = advantage[members]
        extremes.append((int(members[values.argmax()]), int(members[values.argmin()])))
    return extremes
