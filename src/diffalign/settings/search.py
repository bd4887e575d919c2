"""Search: the best of many pictures, without learning."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffalign.settings.fields import AnySeed, Bounds, ConfigError, Positive, PositiveFloat
from diffalign.settings.stopping import Stopping

Algorithm = Literal["best-of-n", "halving", "zero-order", "spectral", "spectral-fresh"]
PREVIEWING = "halving", "spectral", "spectral-fresh"  # what scores previews


@dataclass(frozen=True)
class SearchConfig(Stopping):
    """How the best of many pictures are searched.

    Attributes:
        algorithm: How to search: seeds at random (best-of-n), of which those that promise less are left on
            the way (halving), around the best noise so far (zero-order), in the lowest wavelet band of one
            noise on cheap previews (spectral), or in such a band with the rest of the noise drawn anew
            (spectral-fresh, our variant, for which there is a preset).
        queries: How many pictures are made and scored in all.
        keep: How many of the best are kept.
        neighbours: How many pictures zero-order search makes before it moves.
        radius: How far from the best noise zero-order search goes, in standard deviations; the cosine of a
            neighbour and the best noise is about 1 / √(1 + radius²).
        population: How many previews spectral search makes before it moves.
        elites: The share of them that its next distribution is made from; spectral search takes as many,
            of all previews so far, spectral-fresh of the last ones.
        preview_steps: How many sampler steps a preview takes; where a picture takes no more, previews are
            pictures, and the kept ones are not drawn again.
        seed: The seed of the pictures.
    """

    algorithm: Algorithm = "best-of-n"
    queries: Positive = 150
    keep: Positive = 8
    neighbours: Positive = 15
    radius: PositiveFloat = 0.3287
    population: Annotated[int, Bounds(at_least=2)] = 10
    elites: Annotated[float, Bounds(above=0, at_most=1)] = 0.5
    preview_steps: Positive = 10
    seed: AnySeed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep > self.queries:
            raise ConfigError(
                f"cannot keep {self.keep} of {self.queries} pictures; lower keep or raise queries"
            )
        if self.algorithm in PREVIEWING and 2 * self.keep > self.queries:  # as it may score those twice
            raise ConfigError(
                f"{self.algorithm} keeps at most half of {self.queries} queries, not {self.keep}; lower keep "
                "or raise queries"
            )


#: Halving: Jamieson and Talwalkar (2016), https://arxiv.org/abs/1502.07943, over the sampler's steps.
#: Zero-order: Ma et al. (2025), https://arxiv.org/abs/2501.09732; at its radius the cosine is 0.95.
#: Spectral: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208; level 4, populations of 10,
#: and 5 elites are those of its release in DiffSynth-Studio, previews of 10 steps those of most of its
#: examples.
#: Spectral-fresh: our variant, not tuned; with previews of 4 steps it was far worse.
PRESETS = {
    "default": SearchConfig(),
    "halving": SearchConfig("halving"),
    "zero-order": SearchConfig("zero-order"),
    "spectral": SearchConfig("spectral"),
    "spectral-fresh": SearchConfig("spectral-fresh", population=30, elites=0.2),
}
