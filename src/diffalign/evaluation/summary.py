"""`summary.json`: figures of the evaluated samples, with intervals, and what they cost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from diffalign.evaluation.samples import Samples
from diffalign.metrics import bootstrap, mean_pairwise_distance, paired, vendi_score
from diffalign.metrics.intervals import IntervalDict

SCHEMA = "diffalign.summary/1"
MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class Cost:
    """The cost of the pictures of a row, optimisation or search included.

    Attributes:
        reward_queries: pictures scored in order to select or to learn.
        denoiser_forwards: evaluations of the denoiser: one for each sampler step of a picture, two if guided.
        seconds: wall time.
        peak_memory_mb: of the process or of the accelerator; None if it is not known.
    """

    reward_queries: int
    denoiser_forwards: int
    seconds: float
    peak_memory_mb: float | None = None

    def as_dict(self) -> CostDict:
        """As `summary.json` holds it."""
        return {
            "reward_queries": self.reward_queries,
            "denoiser_forwards": self.denoiser_forwards,
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
        }


class Diversity(TypedDict):
    """How different a row's n pictures are; comparable at equal n and on the same space only."""

    pairwise_distance: float
    vendi: float
    on: str


class Row(TypedDict):
    """The figures of baseline, best-of-N or tuned samples; null without a judge or an embedder."""

    reward: IntervalDict
    judged_accuracy: IntervalDict | None
    graded: IntervalDict | None
    diversity: Diversity | None


class Gain(TypedDict):
    """Tuned less baseline: means over pairs of samples with the same noise."""

    reward: IntervalDict
    judged_accuracy: IntervalDict | None
    graded: IntervalDict | None


class CostDict(TypedDict):
    """A `Cost` as JSON holds it."""

    reward_queries: int
    denoiser_forwards: int
    seconds: float
    peak_memory_mb: float | None


class Summary(TypedDict):
    """`summary.json`; `docs/summary.md` describes it. Only "cost" depends on clock and machine."""

    schema: str
    prompt: str
    model: str
    reward: str
    judge: str | None
    n: int
    rows: dict[str, Row]
    gain: Gain | None
    cost: dict[str, CostDict]
    run: dict[str, str | int | float | None]


def summarise(
    baseline: Samples,
    tuned: Samples | None,
    best: Samples | None,
    cost: Mapping[str, Cost],
    *,
    prompt: str,
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
        model, reward, judge: their names.
        run: further settings, such as "seed", "num_steps", "guidance_scale", "command"; none that differs
            between an uninterrupted run and a resumed one.

    Raises:
        ValueError: if the rows differ in n, or `cost` does not name exactly the rows.
    """
    samples = {"baseline": baseline, "best_of_n": best, "tuned": tuned}
    rows = {name: row for name, row in samples.items() if row is not None}
    if any(len(row) != len(baseline) for row in rows.values()):
        sizes = {name: len(row) for name, row in rows.items()}
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
        "rows": {name: _row(row) for name, row in rows.items()},
        "gain": None if tuned is None else _gain(tuned, baseline),
        "cost": {name: cost[name].as_dict() for name in rows},
        "run": dict(run or {}),
    }


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


def _row(samples: Samples) -> Row:
    diversity: Diversity | None = None
    if samples.embeddings is not None:
        # a mean over prompts, as pictures of different prompts differ anyway
        prompts = samples.embeddings.split(list(samples.per_prompt or [len(samples)]))
        diversity = {
            "pairwise_distance": sum(map(mean_pairwise_distance, prompts)) / len(prompts),
            "vendi": sum(map(vendi_score, prompts)) / len(prompts),
            "on": str(samples.diversity_on),
        }
    return {
        "reward": bootstrap(samples.reward).as_dict(),
        "judged_accuracy": None if samples.judged is None else bootstrap(samples.judged).as_dict(),
        "graded": None if samples.graded is None else bootstrap(samples.graded).as_dict(),
        "diversity": diversity,
    }


def _gain(tuned: Samples, baseline: Samples) -> Gain:
    def difference(after: Tensor | None, before: Tensor | None) -> IntervalDict | None:
        return None if after is None or before is None else paired(after, before).as_dict()

    return {
        "reward": paired(tuned.reward, baseline.reward).as_dict(),
        "judged_accuracy": difference(tuned.judged, baseline.judged),
        "graded": difference(tuned.graded, baseline.graded),
    }
