"""What a loss is made of, from advantages: samples, or pairs."""

import torch

from diffalign.advantages.contrast import units

PROMPTS = ["a", "a", "a", "b", "b", "b"]
ADVANTAGE = torch.tensor([1.0, 0.0, -1.0, 0.2, 0.1, 0.3])


def test_without_a_threshold_all_samples_are_learned_from() -> None:
    for branches in (1, 3):
        assert units(PROMPTS, ADVANTAGE, branches, 0.0, False) == [(i,) for i in range(6)]


def test_of_branches_the_best_and_the_worst_are_taken() -> None:
    assert units(PROMPTS, ADVANTAGE, 3, 0.5, False) == [(0,), (2,)]
    assert units(PROMPTS, ADVANTAGE, 3, 0.5, True) == [(0, 2)]


def test_pairs_of_single_samples_are_neighbours_of_a_prompt() -> None:
    assert units(["a", "b", "a", "b"], torch.tensor([1.0, 0.0, 0.0, 2.0]), 1, 0.0, True) == [(0, 2), (3, 1)]
