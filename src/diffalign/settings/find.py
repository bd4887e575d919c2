"""FIND: the noise of one prompt (Chen et al., ACM MM 2024, https://arxiv.org/abs/2407.19453)."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from diffalign.settings.fields import (
    AnySeed,
    Bounds,
    ConfigError,
    NotNegative,
    Positive,
    PositiveFloat,
    Share,
    WholeShare,
    check_basis,
)
from diffalign.settings.stopping import Stopping

LEAST_QUERIES = 5  # of a mixture: two components, and three queries to tell them apart


@dataclass(frozen=True)
class FindConfig(Stopping):
    """How the initial noise of one prompt is learned.

    Attributes:
        queries: How many pictures are made and scored in all.
        batch: How many pictures an update is made from (FIND: 1).
        basis: Where the noise is learned: identity (every element), or dctK (the K×K lowest frequencies).
        components: How many Gaussians a mixture around the first samples has, at most two fifths of the
            queries; 0 learns one Gaussian.
        correlation: How much a mixture's samples resemble the centre of their component, from 0 to 1.
        std: Whether one Gaussian's std is learned, or preserves second moments (s² = 1 − m²).
        advantage: How rewards are calibrated: by FIND's value network (drcm), within the batch, or not.
        clip_range: The range ε of ratio clipping (RCA); 0 does not clip.
        optimiser: What takes the steps: adamw (FIND), or the natural gradient.
        learning_rate: The optimiser's learning rate.
        value_learning_rate: The learning rate of DRCM's value network.
        value_updates: How many updates the value network gets in an iteration.
        history: Whether an update reads all samples so far (FIND), or its own batch alone.
        antithetic: Whether samples come in pairs of the noise ε and −ε.
        diversity: How many of a mixture's components noise is drawn from in the end: from 0, the best alone,
            to 1, all alike, which is about the frozen model; as they were learned by default.
        start: A noise generator's file or run, from whose noise a mixture starts; N(0, I) if empty.
        seed: The seed of everything.
    """

    queries: Positive = 150
    batch: Positive = 15
    basis: str = "identity"
    components: NotNegative = 60
    correlation: Share = 0.99
    std: Literal["learned", "preserving"] = "preserving"
    advantage: Literal["drcm", "rank", "leave-one-out", "standardise", "none"] = "standardise"
    clip_range: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    optimiser: Literal["adamw", "natural"] = "natural"
    learning_rate: PositiveFloat = 0.75
    value_learning_rate: PositiveFloat = 1e-3
    value_updates: Positive = 10
    history: bool = False
    antithetic: bool = False
    diversity: WholeShare | None = None
    start: str = ""
    seed: AnySeed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_basis(self.basis)
        if self.std == "preserving" and self.optimiser != "natural":
            raise ConfigError("std preserving keeps |m| below 1, which optimiser natural alone sees to")
        if self.components == 1:
            raise ConfigError("components must be 0 (one Gaussian) or at least 2, not 1")
        if self.components and (self.optimiser != "natural" or self.antithetic or self.std != "preserving"):
            raise ConfigError(
                "a mixture knows optimiser natural, std preserving and no antithetic samples; "
                "components 0 learns one Gaussian"
            )
        if self.components and self.queries < LEAST_QUERIES:
            raise ConfigError(
                f"a mixture needs at least {LEAST_QUERIES} queries, not {self.queries}; components 0 learns "
                "one Gaussian"
            )
        if self.components and self.advantage == "drcm":
            raise ConfigError("advantage drcm reads the mean and std of one Gaussian: components must be 0")
        if self.start and not self.components:
            raise ConfigError("start draws a mixture's first samples: components must not be 0")
        if self.diversity is not None and not self.components:
            raise ConfigError("diversity is of a mixture: components must not be 0")
        if self.history and self.optimiser == "natural":
            raise ConfigError("optimiser natural reads its own batch alone; leave history out")
        if self.batch == 1 and self.advantage not in ("drcm", "none") and not self.history:
            raise ConfigError(f"advantage {self.advantage!r} compares samples, so batch must be above 1")

    @property
    def first(self) -> int:
        """Samples of the first update: a mixture's components, such that enough queries are left to tell
        them apart."""
        return min(self.components, 2 * self.queries // 5) if self.components else self.batch

    @property
    def rounds(self) -> int:
        """Updates in all."""
        return 1 + -(-max(0, self.queries - self.first) // self.batch)


#: The release departs from the paper, which goes first: ε = 0.2, a KL term of 0.01, rewards times 10, and V
#: learns before it is read. Its AdamW decays no weights, nor does this one.
_PAPER = FindConfig(
    queries=150,  # section 4.1: 150 iterations of N = 1 sample
    batch=1,  # eq. 10: N = 1
    basis="identity",  # eq. 6
    components=0,  # eq. 6: one Gaussian
    std="learned",  # eq. 6
    advantage="drcm",  # eqs. 9–10
    clip_range=0.02,  # section 4.1: ε
    optimiser="adamw",  # section 4.1
    learning_rate=1e-3,  # section 4.1
    value_learning_rate=1e-4,  # the release: v_lr; the paper says nothing of it
    value_updates=1,  # the release: v_step, 5 passes over one batch, whose mean gradient makes one step
    history=True,  # eq. 12: importance sampling over historical samples
    antithetic=False,
)
#: `default` learns the weights of a mixture around noise that was tried; docs/find.md says why.
PRESETS = {
    "default": FindConfig(),
    "paper": _PAPER,
    "paper-no-drcm": replace(_PAPER, advantage="none"),  # table 3, without dynamic reward calibration
    "paper-no-rca": replace(_PAPER, clip_range=0.0),  # table 3, without ratio clipping
}
#: The release's pipeline, by its defaults. It samples with η = 1; here η is 0, so that x_T alone decides.
_RELEASE = {"num_steps": 50, "guidance_scale": 7.5, "scheduler": "ddim"}
#: By the name of a preset, settings of sampling that it sets too.
SAMPLING = {name: _RELEASE for name in PRESETS if name != "default"}
