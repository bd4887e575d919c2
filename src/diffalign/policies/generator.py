"""One generator of initial noise for all prompts: what each kind can do, and its file."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffalign.diffusion import fingerprint, load_pipeline
from diffalign.diffusion.conditions import prompt_states
from diffalign.policies.noise import ArtifactError, NoiseDistribution

FORMAT = "diffalign.generator/2"
States = Callable[[str], Tensor]


class NoiseGenerator(nn.Module, ABC):
    """Says of any prompt's initial noise how it is distributed.

    Arguments:
        shape: what it is made of, a dataclass with `latent` and `text_width`.
        states: the token states `(L, text_width)` of a prompt; None loads those of the model in `metadata`.
        metadata: what it was learned for (model, steps, reward …); strings.
    """

    #: Of the header, by which `load` finds the class.
    kind: ClassVar[str]

    def __init__(
        self, shape: Any, states: States | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.shape, self.metadata = shape, dict(metadata or {})
        self._states, self._known = states, dict[str, Tensor]()

    def states(self, prompt: str) -> Tensor:
        """The prompt's token states, `(L, text_width)`; each prompt is encoded once."""
        if self._states is None:
            pipeline = load_pipeline(self.metadata["model"])
            self._states = lambda text: prompt_states(pipeline, text)
        if prompt not in self._known:
            self._known[prompt] = self._states(prompt)
        return self._known[prompt]

    @abstractmethod
    def forward(self, prompt: str) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise."""

    def start(self, prompt: str, n: int) -> NoiseDistribution:
        """What a search's or another learner's first `n` samples are drawn from."""
        return self(prompt)

    @abstractmethod
    def divergence(self, noise: NoiseDistribution) -> Tensor:
        """Of a prompt's noise from what the generator starts as, in nats, a scalar."""

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seed: int, *, stream: str = "sample") -> Tensor:
        """One initial latent a prompt, `(len(prompts), *latent)`, float32, for `pipeline(…, latents=…)`.

        Sample i depends on `seed`, `stream`, i and its prompt alone.
        """
        drawn = [self(p).sample(1, seed, stream=stream, start=i) for i, p in enumerate(prompts)]
        return torch.cat(drawn)

    def fingerprint(self) -> str:
        """A hash of the weights, as 12 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file, atomically."""
        path = Path(path)
        shape = json.dumps(asdict(self.shape))
        header = {**self.metadata, "format": FORMAT, "kind": self.kind, "shape": shape}
        partial = path.with_name(path.name + ".partial")
        try:
            tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
            save_file(tensors, partial, header)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str, pipeline: Any = None) -> NoiseGenerator:
        """Reads what `save` wrote, of any kind.

        Arguments:
            path: the file, or a run's folder.
            pipeline: whose text encoder reads prompts; by default the model that it was learned for.

        Raises:
            ArtifactError: if there is no such file, it is not one of ours, or is of another model.
        """
        from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
        from diffalign.policies.place_generator import PlaceGenerator, PlaceShape

        kinds: dict[str, tuple[Any, Any]] = {
            GaussianGenerator.kind: (GaussianGenerator, GaussianShape),
            PlaceGenerator.kind: (PlaceGenerator, PlaceShape),
        }
        path = Path(path)
        if path.is_dir():
            path = path / "generator.safetensors"
        if not path.is_file():
            raise ArtifactError(f"there is no noise generator {path}")
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ArtifactError(f"{path} is a safetensors file, but not a noise generator ({FORMAT})")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            shape = json.loads(header.pop("shape"))
            make, make_shape = kinds[header.pop("kind")]
            del header["format"]
            shape["latent"] = tuple(shape["latent"])
            states = None if pipeline is None else lambda text: prompt_states(pipeline, text)
            generator: NoiseGenerator = make(make_shape(**shape), states, header)
            generator.load_state_dict(tensors)
            learned_for = generator.metadata.get("model_fingerprint")
            if pipeline is not None and learned_for not in (None, own := fingerprint(pipeline)):
                model = generator.metadata.get("model")
                raise ArtifactError(
                    f"{path} was learned for the model {model!r}, whose fingerprint is {learned_for}; "
                    f"the given model's is {own}"
                )
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"{path} is corrupt, truncated or no safetensors file (pickles are never read): {error}"
            ) from error
        return generator
