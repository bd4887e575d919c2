r"""Contrastive selection: of each group the best sample, if it is good, and the worst, if it is bad.

References: Hu et al. (CVPR 2025), section 4.2 (threshold 0.5), https://arxiv.org/abs/2503.11240
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def best_and_worst(advantage: Tensor, group: Tensor, threshold: float) -> list[int]:
    """Indices of the samples to learn from, in order; none is a normal answer.

    Arguments:
        advantage: normalised rewards with shape `(B,)`.
        group: each sample's group with shape `(B,)`.
        threshold: least advantage of a best sample, and least of minus that of a worst one.

    Raises:
        ValueError: if the shapes differ.
    """
    _check(advantage, group)
    chosen: set[int] = set()
    for best, worst in _extremes(advantage, group):
        if advantage[best] >= threshold:
            chosen.add(best)
        if advantage[worst] <= -threshold:
            chosen.add(worst)
    return sorted(chosen)


def pairs(advantage: Tensor, group: Tensor, threshold: float) -> tuple[list[int], list[int]]:
    """Winners and losers: of each group the best and the worst sample, if one is good and the other bad.

    Arguments:
        advantage, group, threshold: as above; with the threshold 0 it is enough that they differ.
    """
    _check(advantage, group)
    found = [
        (best, worst)
        for best, worst in _extremes(advantage, group)
        if advantage[best] > advantage[worst]
        and (not threshold or (advantage[best] >= threshold and advantage[worst] <= -threshold))
    ]
    return [best for best, _ in found], [worst for _, worst in found]


def couples(prompts: Sequence[str]) -> Tensor:
    """Groups, with shape `(B,)`, of two samples that follow each other among those of one prompt."""
    counts: dict[str, int] = {}
    numbers: dict[tuple[str, int], int] = {}
    group = []
    for prompt in prompts:
        counts[prompt] = counts.get(prompt, -1) + 1
        group.append(numbers.setdefault((prompt, counts[prompt] // 2), len(numbers)))
    return torch.tensor(group)


def _check(advantage: Tensor, group: Tensor) -> None:
    if advantage.shape != group.shape or advantage.ndim != 1:
        raise ValueError(
            f"advantage and group must be (B,), not {tuple(advantage.shape)} and {tuple(group.shape)}"
        )


def _extremes(advantage: Tensor, group: Tensor) -> list[tuple[int, int]]:
    """Best and worst of each group."""
    extremes = []
    for number in group.unique():
        members = (group == number).nonzero()[:, 0]
        own = advantage[members]
        extremes.append((int(members[own.argmax()]), int(members[own.argmin()])))
    return extremes
