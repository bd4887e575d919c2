"""METRICS: statistics of a set of samples: means with intervals, and diversity."""

from diffalign.metrics.diversity import (
    Embedder,
    distance_by_picture,
    embedder,
    inception_score,
    mean_measured,
    mean_pairwise_distance,
    vendi_score,
)
from diffalign.metrics.intervals import Interval, bootstrap, clustered, paired, paired_test
from diffalign.metrics.two_way_clustered import two_way_clustered
from diffalign.rewards.frames import frame_consistency

__all__ = [
    "Embedder",
    "Interval",
    "bootstrap",
    "clustered",
    "distance_by_picture",
    "embedder",
    "frame_consistency",
    "inception_score",
    "mean_measured",
    "mean_pairwise_distance",
    "paired",
    "paired_test",
    "two_way_clustered",
    "vendi_score",
]
