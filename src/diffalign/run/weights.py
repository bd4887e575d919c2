"""A tuned denoiser, read back into a pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from diffalign.diffusion.finite import NotFiniteError, check_finite
from diffalign.diffusion.learned_adapter import load_adapter, switch_adapter
from diffalign.diffusion.pipeline import denoiser, denoiser_name
from diffalign.files import DENOISER, LORA, ArtifactError


class TunedWeights:
    """The adapter, or the whole denoiser, of a run of `tune` in a pipeline, which then samples with it.

    Arguments:
        pipeline: of the model that was tuned; changed in place.
        folder: of the run.

    Raises:
        ArtifactError: if there are no weights, they are damaged, no numbers, or of another model.
    """

    def __init__(self, pipeline: Any, folder: Path) -> None:
        self.pipeline, self.part = pipeline, denoiser_name(pipeline)
        self.original: Any = denoiser(pipeline)
        self.tuned = self.original
        try:
            if (folder / LORA).is_dir():
                load_adapter(pipeline, folder / LORA)
            else:
                kind: Any = type(self.original)
                self.tuned = kind.from_pretrained(folder / DENOISER, torch_dtype=pipeline.dtype)
                setattr(pipeline, self.part, self.tuned.to(pipeline.device))
        except (
            SafetensorError,
            OSError,
            ValueError,
            RuntimeError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            raise ArtifactError(f"cannot read the weights in {folder}: {error}") from error
        try:
            check_finite("weights", self.tuned.parameters())
        except NotFiniteError as error:
            raise ArtifactError(f"cannot use the weights in {folder}: {error}") from error

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it the pipeline is as before any learning."""
        adapter = self.tuned is self.original
        setattr(self.pipeline, self.part, self.original)
        if adapter:
            switch_adapter(self.pipeline, False)
        try:
            yield
        finally:
            setattr(self.pipeline, self.part, self.tuned)
            if adapter:
                switch_adapter(self.pipeline, True)
