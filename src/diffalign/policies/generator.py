r"""One generator of initial noise for all prompts.

    π_φ(x_T | c) = N(μ_φ(c), σ_φ(c)²)                        a Gaussian
    π_φ(x_T | c) = Σ_k w_k(c) N(a c_k, (1 − a²) I)           a mixture around K places that prompts share

A learned query reads the prompt's token states by cross-attention: one for each patch of the latent (each
mode of a basis), which says mean and log std there, or one for each place, which says its weight. The last
layer starts at zero, so that the first policy is N(0, I), or all places alike, which are samples of it.

Symbols:    c = prompt, μ = mean, σ = std, x_T = initial noise, φ = the generator's weights, w = weights,
            c_k = places, a = correlation
References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffalign.diffusion import load_pipeline
from diffalign.diffusion.conditions import prompt_states
from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies.basis import make_basis
from diffalign.policies.noise import ArtifactError, NoiseDistribution

FORMAT = "diffalign.generator/1"
MAX_COEFFICIENT = 0.95  # of a variance-preserving mean, whose square must stay below 1
States = Callable[[str], Tensor]


@dataclass(frozen=True)
class GeneratorShape:
    """What a generator is made of.

    Attributes:
        latent: the shape of one latent, `(C, H, W)`.
        text_width: d of the prompt's token states.
        basis: where it decides: identity, or dctK, the K×K lowest frequencies.
        std: of a Gaussian: learned, or preserving (σ² = 1 − μ², so that second moments stay 1).
        components: K of the mixture; 0 for a Gaussian.
        correlation: a, of a mixture's samples with their place.
        patch: side of a query's patch; in a dct basis each mode has its query.
        width: of the queries.
        layers: of cross-attention.
        heads: of attention.
    """

    latent: tuple[int, ...]
    text_width: int
    basis: str = "identity"
    std: str = "preserving"
    components: int = 0
    correlation: float = 0.99
    patch: int = 2
    width: int = 64
    layers: int = 2
    heads: int = 4


class NoiseGenerator(nn.Module):
    """The learnable generator; it starts alike for every prompt.

    Arguments:
        shape: what it is made of.
        states: the token states `(L, text_width)` of a prompt; None loads those of the model in `metadata`.
        metadata: what it was learned for (model, steps, reward …); strings.
        seed: of its first weights.
    """

    def __init__(
        self,
        shape: GeneratorShape,
        states: States | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.metadata = shape, dict(metadata or {})
        self._states, self._known = states, dict[str, Tensor]()
        coefficients = make_basis(shape.basis, shape.latent).shape
        *channels, height, width = coefficients
        self.patch = shape.patch if shape.basis == "identity" else 1
        if height % self.patch or width % self.patch:
            raise ValueError(f"patches of {self.patch} do not tile a latent of {height} × {width}")
        self.channels = math.prod(channels)
        self.grid = height // self.patch, width // self.patch
        self.coefficients = coefficients
        outputs = (2 if shape.std == "learned" else 1) * self.channels * self.patch**2
        self.places: Tensor
        if shape.components:
            self.register_buffer(
                "places", seeded_noise(coefficients, seed, "places", range(shape.components))
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.queries = nn.Parameter(torch.randn(shape.components or math.prod(self.grid), shape.width))
            self.read = nn.Linear(shape.text_width, shape.width)
            layer = nn.TransformerDecoderLayer(
                shape.width, shape.heads, 4 * shape.width, dropout=0.0, batch_first=True, norm_first=True
            )
            self.decoder = nn.TransformerDecoder(layer, shape.layers, nn.LayerNorm(shape.width))
            self.head = nn.Linear(shape.width, 1 if shape.components else outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def states(self, prompt: str) -> Tensor:
        """The prompt's token states, `(L, text_width)`; each prompt is encoded once."""
        if self._states is None:
            pipeline = load_pipeline(self.metadata["model"])
            self._states = lambda text: prompt_states(pipeline, text)
        if prompt not in self._known:
            self._known[prompt] = self._states(prompt)
        return self._known[prompt]

    def forward(self, prompt: str) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise, differentiable in the weights."""
        memory = self.read(self.states(prompt))[None]
        out = self.head(self.decoder(self.queries[None], memory))[0]
        if self.shape.components:
            correlation = self.shape.correlation
            std = torch.full_like(self.places, math.sqrt(1 - correlation**2))
            weights = out[:, 0].softmax(0)
            return NoiseDistribution(
                correlation * self.places, std, self.shape.latent, self.shape.basis, weights=weights
            )
        rows, columns = self.grid
        out = out.view(rows, columns, -1, self.channels, self.patch, self.patch)
        out = out.permute(2, 3, 0, 4, 1, 5).reshape(-1, *self.coefficients)
        if self.shape.std == "preserving":
            mean = MAX_COEFFICIENT * out[0].tanh()
            std = (1 - mean.square()).sqrt()
        else:
            mean, std = out[0], out[1].clamp(-3, 3).exp()
        return NoiseDistribution(mean, std, self.shape.latent, self.shape.basis)

    def divergence(self, noise: NoiseDistribution) -> Tensor:
        """KL(π ‖ the first policy) in nats, a scalar; of a mixture that of its weights from equal ones."""
        if noise.weights is None:
            return noise.kl()
        weights = noise.weights
        return torch.xlogy(weights, weights).sum() + math.log(len(weights))

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
        header = {**self.metadata, "format": FORMAT, "shape": json.dumps(asdict(self.shape))}
        partial = path.with_name(path.name + ".partial")
        try:
            save_file(
                {name: value.contiguous() for name, value in self.state_dict().items()}, partial, header
            )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str, pipeline: Any = None) -> NoiseGenerator:
        """Reads what `save` wrote.

        Arguments:
            path: the file, or a run's folder.
            pipeline: whose text encoder reads prompts; by default the model that it was learned for.

        Raises:
            ArtifactError: if there is no such file, or it is not one of ours.
        """
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
            del header["format"]
            shape["latent"] = tuple(shape["latent"])
            states = None if pipeline is None else lambda text: prompt_states(pipeline, text)
            generator = cls(GeneratorShape(**shape), states, header)
            generator.load_state_dict(tensors)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"{path} is corrupt, truncated or no safetensors file (pickles are never read): {error}"
            ) from error
        return generator
