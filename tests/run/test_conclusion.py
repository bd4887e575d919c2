from diffalign.run.conclusion import equal_cost


def test_equal_cost_counts_the_pictures_that_were_wanted() -> None:
    assert equal_cost(150, 1, 64) == 214
    assert equal_cost(960, 24, 16) == 56  # a prompt's share of what was learned for all
