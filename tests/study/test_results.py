"""Votes counted by hand."""

from typing import Any

import pytest

from diffalign.metrics.two_way_clustered import two_way_clustered
from diffalign.study import StudyError
from diffalign.study.questions import Design, Question, pool
from diffalign.study.results import results
from diffalign.study.votes import Answer, Vote

PAIRS = Design("pairs", ("a", "b"), ("p", "q"), (2, 2), checks=1)
RATING = Design("rating", ("a", "b"), ("p", "q"), (1, 1))


def number(design: Design, *question: int | None) -> int:
    return pool(design).index(Question(*question))  # type: ignore[arg-type]


def pair(voter: int, prompt: int, position: int, alignment: str, quality: str, swapped: bool = False) -> Vote:
    return Vote(voter, number(PAIRS, prompt, position, 0, 1), swapped, Answer(alignment, quality))


def rate(voter: int, prompt: int, source: int, alignment: int, quality: int) -> Vote:
    return Vote(voter, number(RATING, prompt, 0, source, None), False, Answer(str(alignment), str(quality)))


def test_pairs() -> None:
    check = number(PAIRS, 0, 0, 0, 0)
    found = results(
        PAIRS,
        [
            pair(0, 0, 0, "left", "tie"),
            pair(0, 1, 0, "left", "tie", swapped=True),  # b
            pair(1, 0, 0, "right", "left", swapped=True),  # a
            pair(1, 1, 1, "tie", "left"),
            Vote(0, check, False, Answer("tie", "tie")),
            Vote(1, check, False, Answer("tie", "left")),
        ],
    )
    assert found["schema"] == "diffalign.study/1"
    assert (found["votes"], found["voters"], found["prompts_asked"]) == (4, 2, 2)
    assert found["checks"] == {"votes": 2, "passed": 1}
    (row,) = found["rows"]
    assert (row["first"], row["second"]) == ("a", "b")
    assert (row["votes"], row["alignment_ties"], row["quality_ties"]) == (4, 1, 2)
    assert row["alignment"]["mean"] == (1 + 0 + 1 + 0.5) / 4
    assert row["quality"]["mean"] == (0.5 + 0.5 + 0 + 1) / 4
    # the one question that both saw: a and a; a tie and b
    assert found["agreement"]["alignment"] == {"share": 1.0, "pairs": 1}
    assert found["agreement"]["quality"] == {"share": 0.0, "pairs": 1}


def test_intervals_are_for_other_voters_and_prompts() -> None:
    votes = [pair(voter, p, 0, "left" if p == 0 else "right", "left") for voter in range(6) for p in (0, 1)]
    row = results(PAIRS, votes)["rows"][0]
    # two prompts that differ: with one degree of freedom nothing is known
    assert row["alignment"] == {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 12}
    assert row["quality"]["low"] == row["quality"]["high"] == 1
    votes = [pair(voter, 0, 0, "left" if voter % 3 else "right", "left") for voter in range(12)]
    found = results(PAIRS, votes)["rows"][0]["alignment"]
    expected = two_way_clustered([float(voter % 3 > 0) for voter in range(12)], range(12), [0] * 12)
    assert found == expected.as_dict() and 0 < found["low"] < found["high"] < 1


def test_ratings() -> None:
    found = results(
        RATING,
        [
            rate(0, 0, 0, 5, 3),
            rate(0, 0, 1, 2, 4),
            rate(0, 1, 0, 4, 4),
            rate(0, 1, 1, 4, 4),
            rate(1, 0, 0, 1, 1),  # without b: in the mean, and in no difference
        ],
    )
    a, b = found["rows"]
    assert (a["source"], a["votes"], a["voters"], b["votes"]) == ("a", 3, 2, 2)
    assert b["alignment"]["mean"] == 3 and b["quality"]["mean"] == 4
    (less,) = found["differences"]
    assert less["alignment"]["mean"] == 1.5 and less["quality"]["mean"] == -0.5
    assert less["alignment"]["n"] == 2
    assert found["agreement"]["alignment"] == {"share": 0.0, "pairs": 1}


def test_without_votes_or_without_a_pair() -> None:
    with pytest.raises(StudyError, match="no votes yet"):
        results(PAIRS, [Vote(0, number(PAIRS, 0, 0, 0, 0), False, Answer("tie", "tie"))])
    found: dict[str, Any] = results(RATING, [rate(0, 0, 0, 5, 5)])
    assert found["rows"][1]["alignment"] is None and found["differences"][0]["quality"] is None
    assert found["agreement"]["alignment"] is None
