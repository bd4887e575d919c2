"""Who is asked what: worked by hand where it is small, counted where it is not."""

from collections import Counter
from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.study import StudyError
from diffalign.study.questions import Design, Question, contests, deal, pool


def design(**more: Any) -> Design:
    given: dict[str, Any] = {"mode": "pairs", "sources": ("a", "b", "c"), "prompts": tuple("pqrstu")}
    given |= {"counts": (4,) * 6, "questions": 12} | more
    return Design(**given)


def test_pairs_of_sources() -> None:
    assert contests(design()) == [(0, 1), (0, 2), (1, 2)]
    assert contests(design(anchor="b")) == [(0, 1), (2, 1)]
    assert contests(design(mode="rating")) == [(0, None), (1, None), (2, None)]


def test_every_question_is_in_the_pool_once() -> None:
    pairs = pool(design())
    asked = [question for question in pairs if not question.is_check]
    assert len(set(pairs)) == len(pairs) and len(asked) == 3 * 6 * 4
    assert [question.is_check for question in pairs] == [False] * 72 + [True] * 72
    assert len({it for it in pool(design(mode="rating")) if it.second is None}) == 72
    uneven = pool(design(counts=(1, 2, 3, 4, 5, 6)))
    assert Counter(it.prompt for it in uneven if not it.is_check) == {p: 3 * (p + 1) for p in range(6)}


def test_two_sources_and_one_prompt_by_hand() -> None:
    small = design(sources=("a", "b"), prompts=("p",), counts=(3,), questions=2)
    asked = pool(small)[:3]
    assert set(asked) == {Question(0, position, 0, 1) for position in range(3)}
    arcs = [{shown.number for shown in deal(small, voter, "x")} for voter in range(3)]
    assert arcs == [{0, 1}, {2, 0}, {1, 2}]


@pytest.mark.parametrize("mode", ["pairs", "rating"])
@pytest.mark.parametrize("voters", [1, 5, 6, 17])
def test_all_is_dealt_equally_often(mode: Any, voters: int) -> None:
    study = design(mode=mode)
    dealt = Counter(shown.number for v in range(voters) for shown in deal(study, v, f"voter {v}"))
    times = [dealt[number] for number in range(72)]
    assert max(times) - min(times) <= 1 and sum(times) == 12 * voters


def test_a_voter_meets_each_pair_and_each_prompt_equally_often() -> None:
    for voter in range(20):
        for n in (5, 12, 40):
            asked = [pool(design(questions=n))[it.number] for it in deal(design(questions=n), voter, "x")]
            for counts in (
                Counter((question.first, question.second) for question in asked),
                Counter(question.prompt for question in asked),
            ):
                size = 3 if len(counts) == 3 else 6
                assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 2


def test_who_rates_one_source_rates_the_others_of_the_same_place() -> None:
    study = design(mode="rating")
    for voter in range(6):
        asked = [pool(study)[it.number] for it in deal(study, voter, "x")]
        assert set(Counter((it.prompt, it.position) for it in asked).values()) == {3}


def test_each_source_is_left_in_half_of_its_pairs_and_no_pattern_tells() -> None:
    study, orders = design(sources=("a", "b")), set()
    for voter in range(40):
        sides = [shown.swapped for shown in deal(study, voter, f"voter {voter}")]
        assert sum(sides) == 6
        orders.add(tuple(sides))
    assert len(orders) > 35
    odd = [sum(it.swapped for it in deal(design(questions=1), v, f"{v}")) for v in range(60)]
    assert 15 < sum(odd) < 45


def test_a_voter_is_dealt_the_same_again_and_another_one_something_else() -> None:
    assert deal(design(), 3, "x") == deal(design(), 3, "x")
    assert deal(design(), 3, "x") != deal(design(), 3, "y")
    assert deal(design(), 3, "x") != deal(design(seed=1), 3, "x")


def test_checks_come_in_between_and_are_no_questions() -> None:
    study = design(checks=3)
    places = []
    for voter in range(20):
        asked = [pool(study)[it.number].is_check for it in deal(study, voter, f"{voter}")]
        assert sum(asked) == 3 and len(asked) == 15
        places.append(asked.index(True))
    assert len(set(places)) > 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "stars"}, "must be one of pairs, rating"),
        ({"anchor": "d"}, "unknown anchor 'd'; choose one of: a, b, c"),
        ({"questions": 73}, "there are 72 questions"),
        ({"questions": -1}, "at least 0"),
        ({"checks": 73}, "lower --checks"),
        ({"counts": (4,)}, "need a count of pictures each"),
        ({"mode": "rating", "checks": 1}, "leave them out of ratings"),
    ],
)
def test_what_cannot_be_asked_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises((StudyError, ConfigError), match=said):
        design(**given)


def test_without_a_number_a_voter_is_asked_all_or_40() -> None:
    assert design(questions=0).questions == 40
    assert design(questions=0, counts=(1,) * 6).questions == 18
