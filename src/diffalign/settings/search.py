"""Search: the best of many pictures, without learning."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffalign.settings.fields import AnySeed, Bounds, ConfigError, Positive, PositiveFloat, Settings

Algorithm = Literal["best-of-n", "zero-order", "spectral"]


@dataclass(frozen=True)
class SearchConfig(Settings):
    """How the best of many pictures are searched.

    Attributes:
        algorithm: How to search: seeds at random (best-of-n), around the best noise so far (zero-order), or
            in the noise's lowest band on cheap previews (spectral).
        queries: How many pictures are made and scored in all.
        keep: How many of the best are kept.
        neighbours: How many pictures zero-order search makes before it moves.
        radius: How far from the best noise zero-order search goes, in standard deviations.
        population: How many previews spectral search makes before it moves.
        elites: The share of them that its next distribution is made from.
        preview_steps: How many sampler steps a preview takes, at most as many as a picture.
        seed: The seed of the pictures.
    """

    algorithm: Algorithm = "best-of-n"
    queries: Positive = 150
    keep: Positive = 8
    neighbours: Positive = 15
    radius: PositiveFloat = 0.5
    population: Annotated[int, Bounds(at_least=2)] = 30
    elites: Annotated[float, Bounds(above=0, at_most=1)] = 0.2
    preview_steps: Positive = 4
    seed: AnySeed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep > self.queries:
            raise ConfigError(
                f"cannot keep {self.keep} of {self.queries} pictures; lower keep or raise queries"
            )
        if self.algorithm == "spectral" and 2 * self.keep > self.queries:  # as it scores those twice
            raise ConfigError(
                f"spectral keeps at most half of {self.queries} queries, not {self.keep}; lower keep or "
                "raise queries"
            )


#: Zero-order: Ma et al. (2025), https://arxiv.org/abs/2501.09732; its radius was not tuned.
#: Spectral: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208.
PRESETS = {
    "default": SearchConfig(),
    "zero-order": SearchConfig("zero-order"),
    "spectral": SearchConfig("spectral"),
}
