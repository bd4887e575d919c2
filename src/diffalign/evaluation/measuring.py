"""Figures of pictures in folders, and their differences between folders.

Rewards score single pictures; their means have an interval. The difference between two folders, over pairs of
pictures with the same prompt and index, has an interval and a test. Metrics of a set of pictures, those of
`SET_METRICS`, are measured for each prompt; inception scores over all pictures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffalign.diffusion.finite import FLOAT32, check_finite
from diffalign.evaluation.sources import MOST_PIXELS, Source, SourceError, read_frames
from diffalign.metrics import (
    bootstrap,
    clustered,
    inception_score,
    mean_pairwise_distance,
    paired_test,
    vendi_score,
)
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.frames import mean_of_frames

SCHEMA = "diffalign.measures/1"
SPLITS = 10  # of the classic inception score
LEAST_FOR_SPLITS = 500  # pictures; a split of fewer than 50 would have too low a score
#: From pictures `(B, 3, H, W)` to features or logits `(B, D)`.
Reader = Callable[[Tensor], Tensor]


def _by_prompt(
    metric: Callable[[Tensor], float | None], features: Tensor, counts: list[int]
) -> tuple[float | None, ...]:
    """`metric` of the features of each prompt."""
    return tuple(metric(of_prompt) for of_prompt in features.split(counts))


def _inception(splits: int, logits: Tensor, counts: list[int]) -> tuple[float | None, ...]:
    """The inception score of all pictures, in so many parts if there are enough."""
    if len(logits) < 2:
        return (None,)
    return (inception_score(logits, splits if len(logits) >= LEAST_FOR_SPLITS else 1)[0],)


#: Metrics of a set of pictures, by name: from features `(n, D)`, prompt after prompt, and the number of
#: pictures of each prompt, to a figure for each prompt or to one for all pictures; None of one picture.
SET_METRICS: dict[str, Callable[[Tensor, list[int]], tuple[float | None, ...]]] = {
    "distance": partial(_by_prompt, mean_pairwise_distance),
    "vendi": partial(_by_prompt, vendi_score),
    "inception-clip": partial(_inception, 1),  # B²-DiffuRL, F.2
    "inception": partial(_inception, SPLITS),  # of Inception v3
}


@dataclass(frozen=True)
class Measured:
    """The measurements of a source.

    Attributes:
        rewards: by name, scores `(n,)`, prompt after prompt.
        set_metrics: by name, a figure for each prompt; for inception scores one for all pictures. None is of
            one picture alone.
        prompts: of the pictures, n.
    """

    rewards: Mapping[str, Tensor]
    set_metrics: Mapping[str, tuple[float | None, ...]]
    prompts: tuple[str, ...]


def measure(
    source: Source,
    rewards: Mapping[str, RewardFunction],
    set_metrics: Mapping[str, Reader],
    *,
    batch_size: int = 16,
    on_batch: Callable[[int], None] | None = None,
) -> Measured:
    """Reads the pictures, or videos, of `source` and measures them.

    Arguments:
        rewards: by name.
        set_metrics: by a name of `SET_METRICS`, the function to its features, or to logits for "inception"; a
            function that several metrics share is called once.
        on_batch: called with the number of pictures of each finished batch.

    Raises:
        RewardError: if a reward fails.
        NotFiniteError: if a feature is no number.
        SourceError: if a picture cannot be read, or is of another size than others of its prompt.
    """
    scores: dict[str, list[Tensor]] = {name: [] for name in rewards}
    features: dict[Reader, list[Tensor]] = {read: [] for read in set_metrics.values()}
    prompts: list[str] = []
    for prompt, images in _batches(source, batch_size):
        for name, reward in rewards.items():
            scores[name].append(score(reward, images, [prompt] * len(images)))
        for read, batches in features.items():
            values = mean_of_frames(images, read).cpu()
            check_finite("pictures' features", values, FLOAT32)
            batches.append(values)
        prompts += [prompt] * len(images)
        if on_batch is not None:
            on_batch(len(images))
    counts = [len(files) for files in source.pictures.values()]
    return Measured(
        {name: torch.cat(batches) for name, batches in scores.items()},
        {name: SET_METRICS[name](torch.cat(features[read]), counts) for name, read in set_metrics.items()},
        tuple(prompts),
    )


def _batches(source: Source, size: int) -> Iterator[tuple[str, Tensor]]:
    """A prompt and at most `size` of its pictures `(B, 3, H, W)` in [0, 1], or of its videos
    `(B, F, 3, H, W)`, prompt after prompt; fewer where they are large."""
    for prompt, files in source.pictures.items():
        shapes, batch = set(), list[Any]()
        for number, file in enumerate(files, start=1):
            batch.append(np.stack([np.asarray(frame) for frame in read_frames(file)]))
            shapes.add(batch[-1].shape)
            if len(shapes) > 1:
                raise SourceError(
                    f"the pictures in {files[0].parent} differ in size, or in their frames; make them alike"
                )
            many = len(batch) * batch[-1].size // 3 >= MOST_PIXELS
            if len(batch) == size or many or number == len(files):
                images = torch.from_numpy(np.stack(batch)).permute(0, 1, 4, 2, 3).float().div_(255)
                batch = []
                yield prompt, images if images.shape[1] > 1 else images[:, 0]


def figures(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """The figures of sources, by name, as `--out` of `diffalign measure` holds them.

    Differences are between a source and the first one, if their pictures are paired: if they have the same
    prompts with equally many pictures. Intervals and tests are over prompts if there are several, else over
    pictures.
    """
    first, *others = measured
    rows = [
        {"source": name, "pictures": len(one.prompts), "prompts": len(set(one.prompts)), **_means(one)}
        for name, one in measured.items()
    ]
    differences = [
        {"source": name, "less": first, **_means(_difference(measured[name], measured[first]), test=True)}
        for name in others
        if measured[name].prompts == measured[first].prompts
    ]
    return {"schema": SCHEMA, "rows": rows, "differences": differences}


def _difference(after: Measured, before: Measured) -> Measured:
    """The figures of `after` less those of `before`, in pairs."""
    set_metrics = {
        name: tuple(
            None if a is None or b is None else a - b
            for a, b in zip(values, before.set_metrics[name], strict=True)
        )
        for name, values in after.set_metrics.items()
    }
    rewards = {name: values - before.rewards[name] for name, values in after.rewards.items()}
    return Measured(rewards, set_metrics, after.prompts)


def _means(measured: Measured, test: bool = False) -> dict[str, dict[str, Any]]:
    """The mean of each figure with its interval, if there is one; with `test` the p-value of a mean of 0."""
    prompts = measured.prompts
    of_prompt = [[p == prompt for p in prompts] for prompt in dict.fromkeys(prompts)]
    means: dict[str, dict[str, Any]] = {}
    units: dict[str, Sequence[float]] = {}
    for name, values in measured.rewards.items():
        several = len(of_prompt) > 1
        means[name] = dict((clustered(values, prompts) if several else bootstrap(values)).as_dict())
        units[name] = [float(values[own].mean()) for own in of_prompt] if several else values.tolist()
    for name, all_figures in measured.set_metrics.items():
        figures = [figure for figure in all_figures if figure is not None]
        few = {"mean": figures[0] if figures else None, "low": None, "high": None, "n": len(figures)}
        means[name] = dict(bootstrap(figures).as_dict()) if len(figures) > 1 else few
        units[name] = figures
    if test:
        for name, each in units.items():
            means[name]["p"] = paired_test(each, [0.0] * len(each)) if len(each) > 1 else None
    return means
