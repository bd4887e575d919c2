"""What a pipeline was loaded with, beside its name: recorded, and given again where it is loaded anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from diffalign.diffusion.pipeline import is_tiled
from diffalign.settings.reading import parse_json

_ATTRIBUTE = "loaded_with"


@dataclass(frozen=True)
class Additions:
    """What `load_pipeline` was given beside a name.

    Attributes:
        config: of a single file, the pipeline whose configuration fits.
        lora: adapters, with their scales.
        textual_inversion: added tokens.
        tiling: whether it decodes tile by tile.
    """

    config: str | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[str, ...] = ()
    tiling: bool = False

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """That of a pipeline; of one that `load_pipeline` did not load, its tiling alone."""
        given: Self = getattr(pipeline, _ATTRIBUTE, cls())
        return replace(given, tiling=is_tiled(pipeline))

    def attach(self, pipeline: Any) -> None:
        """Notes it at a pipeline; copies of that have it too."""
        vars(pipeline)[_ATTRIBUTE] = self

    def record(self) -> dict[str, str]:
        """It as metadata."""
        lists = {"lora": self.lora, "textual_inversion": self.textual_inversion}
        found = {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items() if values}
        config = {} if self.config is None else {"model_config": self.config}
        return {**config, **found, **({"tiling": "true"} if self.tiling else {})}

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Self:
        """What `record` returned."""
        lora, inversions = (
            tuple(parse_json(metadata.get(name, "[]"))) for name in ("lora", "textual_inversion")
        )
        return cls(metadata.get("model_config"), lora, inversions, metadata.get("tiling") == "true")
