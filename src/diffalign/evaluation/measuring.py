"""Figures of pictures that lie in folders, and how they differ between folders.

Rewards say something of each picture; their means have an interval, and differences of two folders, in
pairs of the same prompt and place, an interval and a test. What is said of several pictures together, in
`SET_METRICS`, is measured for each prompt; the inception scores are of all pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffalign.evaluation.sources import Source, SourceError, read_picture
from diffalign.metrics import (
    bootstrap,
    clustered,
    inception_score,
    mean_pairwise_distance,
    paired_test,
    vendi_score,
)
from diffalign.metrics.intervals import Interval, IntervalDict
from diffalign.rewards import RewardFunction, score

SCHEMA = "diffalign.measures/1"
PARTS, ENOUGH = 10, 500  # of the classic inception score; with fewer pictures than `ENOUGH` it has one
#: Pictures `(B, 3, H, W)` to features or logits `(B, D)`.
Reader = Callable[[Tensor], Tensor]


def _of_prompts(figure: Callable[[Tensor], float], features: Tensor, counts: list[int]) -> tuple[float, ...]:
    return tuple(figure(part) for part in features.split(counts))


def _inception(features: Tensor, counts: list[int]) -> tuple[float, ...]:
    return (inception_score(features, PARTS if len(features) >= ENOUGH else 1)[0],)


#: Of pictures together: features `(n, D)`, and how many are of each prompt, to a figure a prompt or of all.
SET_METRICS: dict[str, Callable[[Tensor, list[int]], tuple[float, ...]]] = {
    "distance": partial(_of_prompts, mean_pairwise_distance),
    "vendi": partial(_of_prompts, vendi_score),
    "inception-clip": lambda features, counts: (inception_score(features)[0],),  # B²-DiffuRL, F.2
    "inception": _inception,  # of Inception v3
}


@dataclass(frozen=True)
class Measured:
    """What is said of a source.

    Attributes:
        each: by reward, scores `(n,)`, prompt after prompt.
        together: by metric, a figure a prompt; one of all pictures for inception scores.
        prompts: the prompt of each picture.
    """

    each: Mapping[str, Tensor]
    together: Mapping[str, tuple[float, ...]]
    prompts: tuple[str, ...]


def measure(
    source: Source,
    rewards: Mapping[str, RewardFunction],
    together: Mapping[str, Reader],
    *,
    batch_size: int = 16,
    on_batch: Callable[[int], None] | None = None,
) -> Measured:
    """Reads the pictures of `source` and measures them.

    Arguments:
        rewards: by name.
        together: by a name of `SET_METRICS`, what it is measured on: features, or logits for "inception"; what
            several read is read once.
        on_batch: called with the number of pictures of each batch that is done.

    Raises:
        RewardError: if a reward fails.
        SourceError: if a picture cannot be read, or is of another size than others of its prompt.
    """
    each: dict[str, list[Tensor]] = {name: [] for name in rewards}
    seen: dict[Reader, list[Tensor]] = {read: [] for read in together.values()}
    prompts: list[str] = []
    for prompt, images in _batches(source, batch_size):
        for name, reward in rewards.items():
            each[name].append(score(reward, images, [prompt] * len(images)))
        for read, parts in seen.items():
            parts.append(read(images).float().cpu())
        prompts += [prompt] * len(images)
        if on_batch is not None:
            on_batch(len(images))
    counts = [len(files) for files in source.pictures.values()]
    found = {name: SET_METRICS[name](torch.cat(seen[read]), counts) for name, read in together.items()}
    return Measured({name: torch.cat(parts) for name, parts in each.items()}, found, tuple(prompts))


def _batches(source: Source, size: int) -> Iterator[tuple[str, Tensor]]:
    for prompt, files in source.pictures.items():
        shapes = set()
        for start in range(0, len(files), size):
            pictures = [_read(file) for file in files[start : start + size]]
            shapes |= {picture.shape for picture in pictures}
            if len(shapes) > 1:
                raise SourceError(f"the pictures in {files[0].parent} differ in size; make them alike")
            yield prompt, torch.stack(pictures)


def _read(file: Path) -> Tensor:
    return torch.from_numpy(np.array(read_picture(file))).permute(2, 0, 1).float() / 255


def figures(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """All that is said of sources, by name; differences are those to the first, where pictures are paired.

    Pictures are paired if both sources have as many of the same prompts. Intervals are over prompts if there
    are several, else over pictures; so is the test.
    """
    rows = [{"source": name, **_row(one)} for name, one in measured.items()]
    first, *others = measured
    differences = [
        {"source": name, "less": first, **_difference(measured[name], measured[first])}
        for name in others
        if measured[name].prompts == measured[first].prompts
    ]
    return {"schema": SCHEMA, "rows": rows, "differences": differences}


def _row(measured: Measured) -> dict[str, Any]:
    prompts = measured.prompts
    found: dict[str, Any] = {"pictures": len(prompts), "prompts": len(set(prompts))}
    found |= {name: _mean(values, prompts).as_dict() for name, values in measured.each.items()}
    return found | {name: _over_prompts(values) for name, values in measured.together.items()}


def _difference(after: Measured, before: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in after.each:
        values = after.each[name] - before.each[name]
        means = _by_prompt(values, after.prompts)
        units = means if len(means) > 1 else values.tolist()
        found[name] = {**_mean(values, after.prompts).as_dict(), "p": _p(units)}
    for name, figure in after.together.items():
        gains = [a - b for a, b in zip(figure, before.together[name], strict=True)]
        found[name] = {**_over_prompts(gains), "p": _p(gains)}
    return found


def _p(differences: Sequence[float]) -> float | None:
    return paired_test(differences, [0.0] * len(differences)) if len(differences) > 1 else None


def _mean(values: Tensor, prompts: Sequence[str]) -> Interval:
    return clustered(values, prompts) if len(set(prompts)) > 1 else bootstrap(values)


def _by_prompt(values: Tensor, prompts: Sequence[str]) -> list[float]:
    order = list(dict.fromkeys(prompts))
    return [float(values[[p == prompt for p in prompts]].mean()) for prompt in order]


def _over_prompts(values: Sequence[float]) -> IntervalDict | dict[str, Any]:
    """With an interval if there are several prompts."""
    if len(values) > 1:
        return bootstrap(values).as_dict()
    return {"mean": values[0], "low": None, "high": None, "n": 1}
