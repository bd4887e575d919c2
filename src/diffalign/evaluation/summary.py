"""`summary.json`: figures of the evaluated samples, with intervals, and what they cost."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from diffalign.evaluation.samples import Samples, split
from diffalign.metrics import (
    bootstrap,
    distance_by_picture,
    mean_measured,
    mean_pairwise_distance,
    paired,
    vendi_score,
)
from diffalign.metrics.intervals import IntervalDict

SCHEMA = "diffalign.summary/1"
MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class Cost:
    """The cost of the pictures of a row, optimisation or search included.

    Attributes:
        reward_queries: pictures scored in order to select or to learn.
        denoiser_forwards: evaluations of the denoiser: one for each sampler step of a picture, or two where
            guidance takes them.
        seconds: wall time.
        peak_memory_mb: of the process or of the accelerator; None if it is not known.
    """

    reward_queries: int
    denoiser_forwards: int
    seconds: float
    peak_memory_mb: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As `summary.json` holds it."""
        return asdict(self)


class Diversity(TypedDict):
    """How different a row's n pictures are; comparable at equal n and on the same space only."""

    pairwise_distance: float
    vendi: float
    on: str


class Means(TypedDict):
    """Means over samples, or over pairs of samples with the same noise; null without a judge, and the last of
    pictures."""

    reward: IntervalDict
    judged_accuracy: IntervalDict | None
    graded: IntervalDict | None
    frame_consistency: IntervalDict | None


class Gain(Means):
    """Tuned less baseline; of the distance null without an embedder, or below 3 pictures a prompt."""

    pairwise_distance: IntervalDict | None


class Row(Means):
    """The means of baseline, best-of-N or tuned samples, and their diversity; null without an embedder, or
    below 2 pictures a prompt."""

    diversity: Diversity | None


class Figures(TypedDict):
    """Of samples, by row."""

    rows: dict[str, Row]
    gain: Gain | None


class PromptFigures(Figures):
    """Those of one of several prompts."""

    prompt: str
    n: int


class Summary(Figures):
    """`summary.json`; `docs/summary.md` describes it. Only "cost" depends on clock and machine."""

    schema: str
    prompt: str
    model: str
    reward: str
    judge: str | None
    n: int
    by_prompt: list[PromptFigures]
    cost: dict[str, dict[str, float | None]]
    run: dict[str, str | int | float | None]


def summarise(
    baseline: Samples,
    tuned: Samples | None,
    best: Samples | None,
    cost: Mapping[str, Cost],
    *,
    prompt: str,
    prompts: Sequence[str] = (),
    model: str,
    reward: str,
    judge: str | None = None,
    run: Mapping[str, str | int | float | None] | None = None,
) -> Summary:
    """The content of `summary.json`.

    Arguments:
        baseline, tuned: paired samples, of the same seed.
        best: the n pictures that best-of-N selects by reward at equal cost.
        cost: by row: "baseline", "best_of_n", "tuned".
        prompt: what the pictures show, of several prompts their number.
        prompts: those of the samples, if there are several.
        model, reward, judge: their names.
        run: further settings, such as "seed", "num_steps", "guidance_scale", "command"; none that differs
            between an uninterrupted run and a resumed one.

    Raises:
        ValueError: if the rows differ in n, `cost` does not name exactly the rows, or the samples are not of
            as many prompts.
    """
    samples = {"baseline": baseline, "best_of_n": best, "tuned": tuned}
    rows = {name: row for name, row in samples.items() if row is not None}
    sizes = {name: len(row) for name, row in rows.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"rows are compared at equal n, not {sizes}")
    if set(cost) != set(rows):
        raise ValueError(f"need the cost of {sorted(rows)}, not of {sorted(cost)}")
    return {
        "schema": SCHEMA,
        "prompt": prompt,
        "model": model,
        "reward": reward,
        "judge": judge,
        "n": len(baseline),
        **_figures(rows),
        "by_prompt": _by_prompt(rows, prompts) if len(prompts) > 1 else [],
        "cost": {name: cost[name].as_dict() for name in rows},
        "run": dict(run or {}),
    }


def _figures(rows: Mapping[str, Samples]) -> Figures:
    found: dict[str, Row] = {
        name: {**_means(row), "diversity": diversity_of(row)} for name, row in rows.items()
    }
    gain = _gain(rows["tuned"], rows["baseline"]) if "tuned" in rows else None
    return {"rows": found, "gain": gain}


def _by_prompt(rows: Mapping[str, Samples], prompts: Sequence[str]) -> list[PromptFigures]:
    found = list[PromptFigures]()
    for prompt, *own in zip(prompts, *map(split, rows.values()), strict=True):
        of = dict(zip(rows, own, strict=True))
        found.append(PromptFigures(prompt=prompt, n=len(own[0]), **_figures(of)))
    return found


def peak_memory_mb(device: torch.device | str = "cpu") -> float | None:
    """The most memory used so far, in MB (10⁶ bytes): of tensors on a CUDA device, else of the process.

    None on Windows, which does not report it.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes: macOS and Linux differ
    return peak * unit / MEGABYTE


def diversity_of(samples: Samples) -> Diversity | None:
    """A mean over prompts, as pictures of different prompts differ anyway; None below 2 pictures of each."""
    prompts = _embeddings(samples)
    distance, vendi = (mean_measured(map(score, prompts)) for score in (mean_pairwise_distance, vendi_score))
    if distance is None or vendi is None:
        return None
    return {"pairwise_distance": distance, "vendi": vendi, "on": str(samples.diversity_on)}


def _embeddings(samples: Samples) -> Sequence[Tensor]:
    """Of each prompt's pictures; none without an embedder."""
    if samples.embeddings is None:
        return ()
    prompts: Sequence[Tensor] = samples.embeddings.split(list(samples.per_prompt or [len(samples)]))
    return prompts


def _gain(tuned: Samples, baseline: Samples) -> Gain:
    rows, distance = (_embeddings(tuned), _embeddings(baseline)), None
    if all(rows) and all(len(prompt) > 2 for row in rows for prompt in row):
        # prompts have equally many pictures, so that the mean over all is that over prompts
        distance = paired(*(torch.cat([*map(distance_by_picture, row)]) for row in rows)).as_dict()
    return {**_means(tuned, less=baseline), "pairwise_distance": distance}


def _means(samples: Samples, less: Samples | None = None) -> Means:
    """The means of `samples`, or of their differences to `less`."""

    def interval(name: str) -> Any:
        values, others = getattr(samples, name), getattr(less, name, None)
        if values is None or (less is not None and others is None):
            return None
        return (bootstrap(values) if others is None else paired(values, others)).as_dict()

    return {
        "reward": interval("reward"),
        "judged_accuracy": interval("judged"),
        "graded": interval("graded"),
        "frame_consistency": interval("steadiness"),
    }
