"""Votes → shares and means with 95 % intervals.

Pairs: the share of votes for a source against another, where a tie is half a vote for each. Ratings: the mean
of each source, and the mean difference of two sources over ratings by one voter of pictures with the same
prompt and position.

Votes of one voter are correlated (by taste), and so are votes on one prompt (by how well the models do), so
that votes are not independent: intervals are `metrics.two_way_clustered`, and generalise to other voters and
other prompts.

Votes on checks, where both pictures are the same, are counted apart.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from diffalign.metrics.intervals import IntervalDict
from diffalign.metrics.two_way_clustered import two_way_clustered
from diffalign.study import StudyError
from diffalign.study.questions import GREATEST, LEAST, Design, Question, contests, pool
from diffalign.study.votes import Vote

SCHEMA = "diffalign.study/1"
ASPECTS = ("alignment", "quality")
Cast = tuple[Vote, Question]


def results(design: Design, votes: Sequence[Vote]) -> dict[str, Any]:
    """The content of `results.json`; raises a `StudyError` if there is no vote yet."""
    questions = pool(design)
    cast = [(vote, questions[vote.question]) for vote in votes]
    counted = [(vote, question) for vote, question in cast if not question.is_check]
    checks = [vote.answer for vote, question in cast if question.is_check]
    if not counted:
        raise StudyError("there are no votes yet; send the study's address to somebody")
    passed = sum(answer.alignment == answer.quality == "tie" for answer in checks)
    return {
        "schema": SCHEMA,
        "mode": design.mode,
        "sources": list(design.sources),
        "prompts": len(design.prompts),
        "seed": design.seed,
        "votes": len(counted),
        "voters": len({vote.voter for vote, _ in counted}),
        "prompts_asked": len({question.prompt for _, question in counted}),
        "checks": {"votes": len(checks), "passed": passed},
        "rows": _pairs(design, counted) if design.mode == "pairs" else _ratings(design, counted),
        "differences": _differences(design, counted) if design.mode == "rating" else [],
        "agreement": {aspect: _agreement(counted, aspect) for aspect in ASPECTS},
    }


def chosen(vote: Vote, question: Question, aspect: str) -> int | None:
    """The number of the source that a vote prefers, None for a tie; for a rating the rating."""
    answer: str = getattr(vote.answer, aspect)
    if question.second is None:
        return int(answer)
    if answer == "tie":
        return None
    return question.second if (answer == "left") == vote.swapped else question.first


def _counts(cast: Sequence[Cast]) -> dict[str, int]:
    """How many votes, voters and prompts there are."""
    return {
        "votes": len(cast),
        "voters": len({vote.voter for vote, _ in cast}),
        "prompts": len({question.prompt for _, question in cast}),
    }


def _pairs(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    """The share of votes for the first source of each pair."""
    rows = []
    for first, second in contests(design):
        cast = [(vote, q) for vote, q in counted if (q.first, q.second) == (first, second)]
        row: dict[str, Any] = {"first": design.sources[first], "second": design.sources[second or 0]}
        row |= _counts(cast)
        for aspect in ASPECTS:
            choices = [chosen(vote, question, aspect) for vote, question in cast]
            values = [0.5 if choice is None else float(choice == first) for choice in choices]
            row[aspect] = _interval(values, _voters_and_prompts(cast), (0, 1))
            row[f"{aspect}_ties"] = choices.count(None)
        rows.append(row)
    return rows


def _ratings(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    """The mean ratings of each source."""
    rows = []
    for source, name in enumerate(design.sources):
        cast = [(vote, question) for vote, question in counted if question.first == source]
        row: dict[str, Any] = {"source": name, **_counts(cast)}
        for aspect in ASPECTS:
            values = [float(getattr(vote.answer, aspect)) for vote, _ in cast]
            row[aspect] = _interval(values, _voters_and_prompts(cast), (LEAST, GREATEST))
        rows.append(row)
    return rows


def _differences(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    """Mean ratings of the first less the second of each pair of sources, where a voter rated both."""
    rows, span = [], GREATEST - LEAST
    for first, second in combinations(range(len(design.sources)), 2):
        row: dict[str, Any] = {"first": design.sources[first], "second": design.sources[second]}
        for aspect in ASPECTS:
            ratings: dict[tuple[int, int, int], dict[int, int]] = defaultdict(dict)
            for vote, question in counted:
                key = vote.voter, question.prompt, question.position
                ratings[key][question.first] = int(getattr(vote.answer, aspect))
            both = {key: rated for key, rated in ratings.items() if first in rated and second in rated}
            values = [float(rated[first] - rated[second]) for rated in both.values()]
            row[aspect] = _interval(values, [(voter, prompt) for voter, prompt, _ in both], (-span, span))
        rows.append(row)
    return rows


def _voters_and_prompts(cast: Sequence[Cast]) -> list[tuple[int, int]]:
    """The numbers of voter and prompt of each vote."""
    return [(vote.voter, question.prompt) for vote, question in cast]


def _interval(
    values: Sequence[float], labels: Sequence[tuple[int, int]], ends: tuple[float, float]
) -> IntervalDict | None:
    """The mean of values with labels (voter, prompt), and its interval within the `ends` of the scale."""
    if not values:
        return None
    interval = two_way_clustered(values, [voter for voter, _ in labels], [prompt for _, prompt in labels])
    return replace(interval, low=max(interval.low, ends[0]), high=min(interval.high, ends[1])).as_dict()


def _agreement(counted: Sequence[Cast], aspect: str) -> dict[str, Any] | None:
    """The share of pairs of votes on one question that agree; None if no question has two votes."""
    choices: dict[int, Counter[int | None]] = defaultdict(Counter)
    for vote, question in counted:
        choices[vote.question][chosen(vote, question, aspect)] += 1
    pairs = sum(counts.total() * (counts.total() - 1) // 2 for counts in choices.values())
    same = sum(n * (n - 1) // 2 for counts in choices.values() for n in counts.values())
    return {"share": same / pairs, "pairs": pairs} if pairs else None
