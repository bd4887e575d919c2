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
    _check(advantage, group)
    chosen: set[int] = set()
    for best, worst in _extremes(advantage, group):
        if advantage[best] >= threshold:
            chosen.add(best)
        if advantage[worst] <= -threshold:
            chosen.add(worst)
    return sorted(chosen)


def pairs(advantage: Tensor, group: Tensor, threshold: float) -> tuple[list[int], list[int]]:
    """Indices of winners and of losers: the best and the worst sample of each group, if both qualify.

    Arguments:
        advantage, group, threshold: as of `best_and_worst`; with threshold 0 any two that differ qualify.

    Raises:
        ValueError: if the shapes differ.
    """
    _check(advantage, group)
    selected = [
        (best, worst)
        for best, worst in _extremes(advantage, group)
        if advantage[best] > advantage[worst]
        and (not threshold or (advantage[best] >= threshold and advantage[worst] <= -threshold))
    ]
    return [best for best, _ in selected], [worst for _, worst in selected]


def couples(prompts: Sequence[str]) -> Tensor:
    """Group numbers `(B,)`: the samples of a prompt, in order, are grouped in twos."""
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
    """Indices of the best and the worst sample of each group."""
    extremes = []
    for number in group.unique():
        members = (group == number).nonzero()[:, 0]
        values = advantage[members]
        extremes.append((int(members[values.argmax()]), int(members[values.argmin()])))
    return extremes
