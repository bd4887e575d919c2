"""What a pipeline was loaded with, beside its name: recorded, and given again where it is loaded anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_ATTRIBUTE = "loaded_with"


@dataclass(frozen=True)
class Additions:
    """What `load_pipeline` was given beside a name.

    Attributes:
        config: of a single file, the pipeline whose configuration fits.
    """

    config: str | None = None

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """That of a pipeline; of one that `load_pipeline` did not load, nothing."""
        given: Self = getattr(pipeline, _ATTRIBUTE, cls())
        return given

    def attach(self, pipeline: Any) -> None:
        """Notes it at a pipeline; copies of that have it too."""
        vars(pipeline)[_ATTRIBUTE] = self

    def record(self) -> dict[str, str]:
        """It as metadata."""
        return {} if self.config is None else {"model_config": self.config}

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Self:
        """What `record` returned."""
        return cls(metadata.get("model_config"))
