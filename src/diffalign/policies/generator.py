"""One generator of initial noise for all prompts: what each kind can do, and its file."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffalign.diffusion import fingerprint, load_pipeline
from diffalign.diffusion.additions import Additions
from diffalign.diffusion.probe import prompt_states
from diffalign.files import GENERATOR, ArtifactError, load_tensors, save_tensors
from diffalign.policies.noise import NoiseDistribution, about, check_fingerprint
from diffalign.settings.reading import parse_json

FORMAT = "diffalign.generator/3"
#: Classes by the kind that their files name.
_KINDS: dict[str, type["NoiseGenerator"]] = {}
States = Callable[[str], Tensor]


class NoiseGenerator(nn.Module, ABC):
    """Says of any prompt's initial noise how it is distributed.

    Arguments:
        shape: what it is made of, a dataclass with `latent` and `text_width`.
        states: the token states `(L, text_width)` of a prompt; None loads those of the model in `metadata`.
        metadata: what it was learned for (model, steps, reward …); strings.
        seed: of what it is made of at first.
    """

    #: Of the header, by which `load` finds the class.
    kind: ClassVar[str]
    #: The dataclass of what it is made of.
    shape_type: ClassVar[type[Any]]

    __call__: Callable[..., NoiseDistribution]

    @classmethod
    @abstractmethod
    def sizes(cls, shape: Any) -> Mapping[str, tuple[int, ...]]:
        """Shapes of some of its tensors, by name, which no other `shape` has: a file's are checked by them
        before anything is made."""

    def __init_subclass__(cls) -> None:
        _KINDS[cls.kind] = cls

    def __init__(
        self,
        shape: Any,
        states: States | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.metadata = shape, dict(metadata or {})
        self._states, self._known = states, dict[str, Tensor]()
        self.make(seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(about(self.metadata))})"

    @abstractmethod
    def make(self, seed: int) -> None:
        """Makes its parameters and buffers."""

    def states(self, prompt: str) -> Tensor:
        """The prompt's token states, `(L, text_width)`; each prompt is encoded once."""
        if self._states is None:
            if "model" not in self.metadata:
                raise ArtifactError(
                    "this generator names no model that could read prompts; give its pipeline"
                )
            pipeline = load_pipeline(self.metadata["model"], **asdict(Additions.read(self.metadata)))
            self._states = _reader(pipeline, self.metadata)
        if prompt not in self._known:
            self._known[prompt] = self._states(prompt)
        return self._known[prompt]

    @abstractmethod
    def forward(self, prompt: str) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise."""

    def start(self, prompt: str, n: int) -> NoiseDistribution:
        """What a search's or another learner's first `n` samples are drawn from."""
        return self(prompt)

    def divergence(self, noise: NoiseDistribution) -> Tensor:
        """Of a prompt's noise from what the generator starts as, such as N(0, I), in nats, a scalar."""
        return noise.kl()

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seed: int, *, stream: str = "sample") -> Tensor:
        """One initial latent a prompt, `(len(prompts), *latent)`, float32, for `pipeline(…, latents=…)`.

        Sample i depends on `seed`, `stream`, i and its prompt alone.
        """
        return torch.cat([self(p).sample(1, seed, stream=stream, start=i) for i, p in enumerate(prompts)])

    def fingerprint(self) -> str:
        """A hash of the weights, as 12 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file, atomically."""
        header = {**self.metadata, "kind": self.kind, "shape": json.dumps(asdict(self.shape))}
        save_tensors(Path(path), self.state_dict(), header, FORMAT)

    @classmethod
    def load(cls, path: Path | str, pipeline: Any = None) -> "NoiseGenerator":
        """Reads what `save` wrote, of any kind.

        Arguments:
            path: the file, or a run's folder.
            pipeline: whose text encoder reads prompts; by default the model that it was learned for.

        Raises:
            ArtifactError: if there is no such file, it is not one of ours, or is of another model.
        """
        path = Path(path)
        path = path / GENERATOR if path.is_dir() else path
        tensors, header = load_tensors(path, FORMAT)
        try:
            kind = _KINDS[header.pop("kind")]
            shape = kind.shape_type(**parse_json(header.pop("shape")))
            sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            if not kind.sizes(shape).items() <= sizes.items():
                raise ValueError(f"its tensors are not those of {shape}")
            if not isinstance(parse_json(header.get("call", "{}")), dict):
                raise ValueError(f"its call is {header['call']}")
            states = None if pipeline is None else _reader(pipeline, header)
            generator = kind(shape, states, header)
            generator.load_state_dict(tensors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{path} is no noise generator that can be read: {reason}") from error
        if pipeline is not None:
            check_fingerprint(header, fingerprint(pipeline), any_scheduler=True)
        return generator


def _reader(pipeline: Any, metadata: Mapping[str, str]) -> States:
    """What reads prompts, by a call with the arguments that it was learned with."""
    return partial(prompt_states, pipeline, **parse_json(metadata.get("call", "{}")))
