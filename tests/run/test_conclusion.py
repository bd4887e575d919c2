import torch

from diffalign.evaluation import Samples
from diffalign.run.conclusion import columns_for, equal_cost, shown


def test_equal_cost_counts_the_pictures_that_were_wanted() -> None:
    assert equal_cost(150, 1, 64) == 214
    assert equal_cost(960, 24, 16) == 56  # a prompt's share of what was learned for all


def test_pictures_of_several_prompts_are_shown_with_captions() -> None:
    def samples(level: int, judged: bool = True) -> Samples:
        verdicts = torch.tensor([True, False, True, True]) if judged else None
        return Samples(torch.full((4, 3, 2, 2), level, dtype=torch.uint8), torch.zeros(4), verdicts)

    images, verdicts, captions = shown([samples(1), samples(2)], ["a dog", "a cat"], 6)
    assert images[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2] and captions == ["a dog"] * 3 + ["a cat"] * 3
    assert verdicts is not None and verdicts.tolist() == [True, False, True] * 2
    images, verdicts, captions = shown([samples(i, i > 0) for i in range(5)], list("abcde"), 4)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and captions == list("abcd") and verdicts is None
    assert shown([samples(1)], ["a dog"])[2] == []


def test_pictures_of_a_prompt_are_in_one_row() -> None:
    assert [columns_for(["a"] * n + ["b"] * n) for n in (1, 2, 3, 5, 8, 20)] == [8, 8, 6, 5, 8, 8]
    assert columns_for([]) == 8
