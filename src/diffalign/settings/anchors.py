"""Anchors: which of a set of fixed noises suits which prompt. Our own; docs/anchors.md says why."""

from dataclasses import dataclass
from typing import Annotated

from diffalign.settings.amortised import AmortisedConfig
from diffalign.settings.fields import Bounds, ConfigError, Share


@dataclass(frozen=True)
class AnchorConfig(AmortisedConfig):
    """How anchors, fixed noises that all prompts share, are weighed for each prompt.

    Attributes:
        components: How many anchors there are.
        correlation: How much a sample resembles its anchor, from 0 to 1.
        effective: How many anchors a prompt's noise is drawn from in the end: exp of its weights' entropy.
        explore: The same while learning, as a share of all anchors.
    """

    components: Annotated[int, Bounds(at_least=2)] = 96
    correlation: Share = 0.99
    effective: Annotated[float, Bounds(at_least=1)] = 4.0
    explore: Annotated[float, Bounds(above=0, at_most=1)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.effective >= self.components:
            raise ConfigError(
                f"effective must be below components, {self.components}, not {self.effective}: else all "
                "anchors weigh the same"
            )
        if self.explore < self.effective / self.components:
            raise ConfigError(
                f"explore is a share of the anchors, at least effective / components, not {self.explore}"
            )


PRESETS = {"default": AnchorConfig()}
