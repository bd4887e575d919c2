"""A tuned denoiser, read back into a pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from diffalign.diffusion.faults import said
from diffalign.diffusion.finite import NotFiniteError, check_finite
from diffalign.diffusion.learned_adapter import load_adapter, switch_adapter
from diffalign.diffusion.pipeline import denoiser, denoiser_name
from diffalign.diffusion.weights import read_weights
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
        weights = folder / (LORA if (folder / LORA).is_dir() else DENOISER)
        try:
            if weights.name == LORA:
                load_adapter(pipeline, weights)
            else:  # the network is the model's: its configuration, and that of the folder is not read
                self.tuned = deepcopy(self.original)
                self.tuned.load_state_dict(read_weights(*weights.glob("*.safetensors")))
                setattr(pipeline, self.part, self.tuned)
        except Exception as error:  # of damaged weights the libraries may raise anything
            raise ArtifactError(
                f"cannot read the weights in {weights} ({said(error)}); delete this folder, and "
                f"diffalign tune --resume {folder} writes it anew"
            ) from error
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
