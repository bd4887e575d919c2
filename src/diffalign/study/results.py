"""Votes → shares and means with 95 % intervals.

Pairs: the share of votes for a source against another, where a tie is half a vote for each. Ratings: the
mean of each source, and the mean difference of two sources, between ratings of one voter, of the same prompt
and the same place among its pictures.

Votes of one voter are alike (his taste), and so are votes on one prompt (what the models make of it), so
that votes are no independent values: intervals are `metrics.two_way_clustered`, for voters that did not vote and
prompts that were not asked.

Votes on checks, where both pictures are the same, count as checks alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from diffalign.metrics.intervals import IntervalDict
from diffalign.metrics.two_way_clustered import two_way_clustered
from diffalign.study import StudyError
from diffalign.study.questions import Design, Question, contests, pool
from diffalign.study.votes import Vote

SCHEMA = "diffalign.study/1"
ASPECTS = ("alignment", "quality")
Cast = tuple[Vote, Question]


def results(design: Design, votes: Sequence[Vote]) -> dict[str, Any]:
    """What `results.json` holds.

    Raises:
        StudyError: if there is no vote yet.
    """
    asked = pool(design)
    cast = [(vote, asked[vote.question]) for vote in votes]
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
    """The source that a vote prefers, None for a tie; or the rating."""
    said: str = getattr(vote.answer, aspect)
    if question.second is None:
        return int(said)
    if said == "tie":
        return None
    return question.second if (said == "left") == vote.swapped else question.first


def _counts(cast: Sequence[Cast]) -> dict[str, int]:
    return {
        "votes": len(cast),
        "voters": len({vote.voter for vote, _ in cast}),
        "prompts": len({question.prompt for _, question in cast}),
    }


def _pairs(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    rows = []
    for first, second in contests(design):
        cast = [it for it in counted if (it[1].first, it[1].second) == (first, second)]
        row: dict[str, Any] = {"first": design.sources[first], "second": design.sources[second or 0]}
        row |= _counts(cast)
        for aspect in ASPECTS:
            said = [chosen(*it, aspect) for it in cast]
            values = [0.5 if it is None else float(it == first) for it in said]
            row[aspect] = _interval(values, _places(cast), (0, 1))
            row[f"{aspect}_ties"] = said.count(None)
        rows.append(row)
    return rows


def _ratings(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    rows = []
    for source, name in enumerate(design.sources):
        cast = [it for it in counted if it[1].first == source]
        row: dict[str, Any] = {"source": name, **_counts(cast)}
        for aspect in ASPECTS:
            values = [float(getattr(vote.answer, aspect)) for vote, _ in cast]
            row[aspect] = _interval(values, _places(cast), (1, 5))
        rows.append(row)
    return rows


def _differences(design: Design, counted: Sequence[Cast]) -> list[dict[str, Any]]:
    """First less second, of each pair of sources, wherever a voter rated both."""
    rows = []
    for first, second in combinations(range(len(design.sources)), 2):
        row: dict[str, Any] = {"first": design.sources[first], "second": design.sources[second]}
        for aspect in ASPECTS:
            given: dict[tuple[int, int, int], dict[int, int]] = defaultdict(dict)
            for vote, question in counted:
                place = vote.voter, question.prompt, question.position
                given[place][question.first] = int(getattr(vote.answer, aspect))
            both = {place: it for place, it in given.items() if first in it and second in it}
            values = [float(it[first] - it[second]) for it in both.values()]
            row[aspect] = _interval(values, [(voter, prompt) for voter, prompt, _ in both], (-4, 4))
        rows.append(row)
    return rows


def _places(cast: Sequence[Cast]) -> list[tuple[int, int]]:
    """Voter and prompt of each vote."""
    return [(vote.voter, question.prompt) for vote, question in cast]


def _interval(
    values: Sequence[float], places: Sequence[tuple[int, int]], ends: tuple[float, float]
) -> IntervalDict | None:
    """The mean of what voters said of prompts, and its interval, between the `ends` of the scale."""
    if not values:
        return None
    found = two_way_clustered(values, [voter for voter, _ in places], [prompt for _, prompt in places])
    return replace(found, low=max(found.low, ends[0]), high=min(found.high, ends[1])).as_dict()


def _agreement(counted: Sequence[Cast], aspect: str) -> dict[str, Any] | None:
    """The share of pairs of votes on the same question that say the same; None if no two are of one."""
    said: dict[int, Counter[int | None]] = defaultdict(Counter)
    for vote, question in counted:
        said[vote.question][chosen(vote, question, aspect)] += 1
    pairs = sum(it.total() * (it.total() - 1) // 2 for it in said.values())
    same = sum(n * (n - 1) // 2 for it in said.values() for n in it.values())
    return {"share": same / pairs, "pairs": pairs} if pairs else None
