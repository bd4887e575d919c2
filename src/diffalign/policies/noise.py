r"""A Gaussian, or a mixture of Gaussians, over the initial noise of one prompt.

    z = Bᵀ x_T ~ N(m, s²)  or  Σ_k w_k N(m_k, s_k²),    the rest of x_T ~ N(0, I)

Symbols:    B = basis, m = mean, s = std, w = weights, x_T = initial noise, ε = standard normal noise
With the identity basis the first is FIND's policy π_θ(x_T) = Π_i N(x_i; μ_i, σ_i²) (eq. 6).
References: Chen et al. (ACM MM 2024), eq. 6, https://arxiv.org/abs/2407.19453
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffalign.diffusion.fingerprint import differing
from diffalign.diffusion.sampler import seeded_noise
from diffalign.diffusion.transition import LOG_2PI
from diffalign.files import NOISE, ArtifactError, load_tensors, save_tensors
from diffalign.policies.basis import Basis
from diffalign.policies.reps import reps_weights
from diffalign.settings.fields import ConfigError

MAX_COEFFICIENT = 0.95  # of a variance-preserving mean, whose square must stay below 1
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
FORMAT = "diffalign.noise/2"


@dataclass(frozen=True)
class NoiseDistribution:
    """A Gaussian over initial noise, or a mixture of K.

    Arguments:
        mean, std: of the basis's coefficients, with the basis's shape; of a mixture `(K, *shape)`.
        latent: the shape of one latent, `(C, H, W)`.
        basis: "identity" or "dctK".
        metadata: what it was learned for (model, prompt, steps …); strings.
        weights: of a mixture's components, with shape `(K,)` and sum 1; None for one Gaussian.
        where: device and dtype of its samples, as `to` sets them; float32 on the CPU if empty.
    """

    mean: Tensor
    std: Tensor
    latent: tuple[int, ...]
    basis: str = "identity"
    metadata: Mapping[str, str] = field(default_factory=dict)
    weights: Tensor | None = None
    where: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        mixture = () if self.weights is None else self.weights.shape
        shape = (*mixture, *Basis(self.basis, self.latent).shape)
        if self.mean.shape != shape or self.std.shape != shape:
            raise ValueError(
                f"mean {tuple(self.mean.shape)} and std {tuple(self.std.shape)} must both have shape {shape}"
            )
        if self.weights is not None:
            weights = self.weights.detach()
            if weights.ndim != 1 or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-3:
                raise ValueError("a mixture's weights must be a vector of probabilities that sum to 1")

    def __repr__(self) -> str:
        kind = "Gaussian" if self.weights is None else f"mixture of {len(self.weights)}"
        size = "×".join(map(str, self.latent))
        return f"NoiseDistribution({', '.join([*about(self.metadata), f'{kind} over {size} latents'])})"

    def to(self, *where: Any) -> Self:
        """The same, with samples of another device, dtype or both, as `Tensor.to` takes them; they are drawn
        in float32 on the CPU all the same, so that no seed means another picture there."""
        torch.empty(0).to(*where)  # refuses what is neither
        return replace(self, where=where)

    @classmethod
    def standard(cls, latent: Sequence[int]) -> Self:
        """N(0, I): what a frozen model starts from."""
        return cls(torch.zeros(tuple(latent)), torch.ones(tuple(latent)), tuple(latent))

    def transform(self, epsilon: Tensor, components: Tensor | None = None) -> Tensor:
        """x_T of standard normal noise: both with shape `(B, *latent)`.

        Arguments:
            components: of a mixture, the component of each sample, with shape `(B,)`.
        """
        basis = Basis(self.basis, self.latent)
        chosen = ... if components is None else components
        z = self.mean[chosen] + (self.std[chosen] - 1) * basis.project(epsilon)
        return epsilon + basis.expand(z)

    def components(self, seed: int, stream: str, indices: Sequence[int]) -> Tensor | None:
        """The component of a mixture that each sample is drawn from, `(B,)`; None for one Gaussian.

        Multiples of the golden ratio, from a start that (`seed`, `stream`) determines, are spread
        evenly in [0, 1): any run of samples has each component by its weight, within about one.
        """
        if self.weights is None:
            return None
        key = hashlib.sha256(f"{seed}/{stream}/components".encode()).digest()
        start = int.from_bytes(key[:6], "big") / 2**48
        spread = (start + torch.as_tensor(indices, dtype=torch.float64) * GOLDEN_RATIO) % 1
        edges = self.weights.double().cumsum(0)
        return torch.searchsorted(edges, spread * edges[-1]).clamp(max=len(edges) - 1)

    def sample(self, n: int, seed: int, *, stream: str = "sample", start: int = 0) -> Tensor:
        """`n` initial latents with shape `(n, *latent)`, for `pipeline(…, latents=…)`; float32 on the CPU but
        for `to`.

        Sample i depends on `seed`, `stream` and i alone; `standard` with the same gives its paired baseline.

        Raises:
            ConfigError: if `n` is less than 1.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, not {n}")
        indices = range(start, start + n)
        epsilon = seeded_noise(self.latent, seed, stream, indices)
        x_T = self.transform(epsilon, self.components(seed, stream, indices))
        return x_T.to(*self.where) if self.where else x_T

    def effective_components(self) -> float:
        """How many components a mixture draws from, exp of its weights' entropy; 1 of one Gaussian."""
        if self.weights is None:
            return 1.0
        weights = self.weights.detach()
        return math.exp(-float(torch.xlogy(weights, weights).sum()))

    def with_diversity(self, diversity: float) -> Self:
        """A mixture of the same K components, drawn from about K^diversity of them.

        Weights become w_k ∝ w_k^τ, where τ is such that exp of their entropy is K^diversity: the most of what
        was learned that so many components can have (`reps_weights`).

        Arguments:
            diversity: from 0, the best component alone, to 1, all alike; of centres that were drawn from
                N(0, I) the latter is about N(0, I) again.

        Raises:
            ValueError: of one Gaussian, or of a number below 0 or above 1.
        """
        if self.weights is None:
            raise ValueError("one Gaussian has no components, of whose number diversity is a share")
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity must be from 0 to 1, not {diversity}")
        weights = self.weights.detach().double()
        logits = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
        tempered = reps_weights(logits, len(weights) ** diversity)
        return replace(self, weights=tempered.to(self.weights.dtype))

    def center(self) -> Tensor:
        """The mean of all samples' coefficients, with the basis's shape."""
        if self.weights is None:
            return self.mean
        mean: Tensor = torch.tensordot(self.weights, self.mean, 1)
        return mean

    def log_prob(self, x_T: Tensor, reduction: str = "mean") -> Tensor:
        """Log-density of `x_T`, `(B, *latent)` → `(B, 1)`: its mean (or sum) over the latent's elements."""
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
        z = Basis(self.basis, self.latent).project(x_T)
        if self.weights is None:
            log_prob = _gaussian(z, self.mean, self.std)
        else:
            each = [_gaussian(z, mean, std) for mean, std in zip(self.mean, self.std, strict=True)]
            smallest = torch.finfo(self.weights.dtype).tiny  # log 0 has no gradient
            log_prob = (torch.stack(each, 1) + self.weights.clamp_min(smallest).log()).logsumexp(1)
        rest = x_T.square().flatten(1).sum(1) - z.square().flatten(1).sum(1)
        elements = math.prod(self.latent)
        log_prob = log_prob - 0.5 * (rest + elements * LOG_2PI)
        return (log_prob / elements if reduction == "mean" else log_prob)[:, None]

    def kl(self) -> Tensor:
        """KL(π ‖ N(0, I)) in nats, a scalar; of a mixture its upper bound Σ_k w_k KL(π_k ‖ N(0, I))."""
        elements = self.mean.square() + self.std.square() - 1 - 2 * self.std.log()
        if self.weights is None:
            return 0.5 * elements.sum()
        return 0.5 * (self.weights * elements.flatten(1).sum(1)).sum()

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file, atomically."""
        header = dict(self.metadata, basis=self.basis, latent=",".join(map(str, self.latent)))
        tensors = {"mean": self.mean, "std": self.std}
        if self.weights is not None:
            tensors["weights"] = self.weights
        save_tensors(Path(path), tensors, header, FORMAT)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: if there is no such file, or it is not one of ours.
        """
        path = Path(path)
        path = path / NOISE if path.is_dir() else path
        tensors, header = load_tensors(path, FORMAT)
        try:
            latent = tuple(int(size) for size in header.pop("latent").split(","))
            basis, mean, std = header.pop("basis"), tensors["mean"], tensors["std"]
            if not all(tensor.is_floating_point() for tensor in tensors.values()) or not (std > 0).all():
                raise ValueError("its mean and std are no numbers, the latter positive")
            return cls(mean, std, latent, basis, header, tensors.get("weights"))
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{path} is no noise that can be read: {error}") from error

    def check_model(self, model: str, latent: Sequence[int]) -> None:
        """Raises an `ArtifactError` if it was learned for another fingerprint or latent shape."""
        if tuple(latent) != self.latent:
            raise ArtifactError(
                f"this noise has shape {self.latent}; the model's latents have {tuple(latent)}"
            )
        check_fingerprint(self.metadata, model)


def about(metadata: Mapping[str, str]) -> list[str]:
    """What an artefact was learned for, in words for its `repr`."""
    prompt, model = metadata.get("prompt"), metadata.get("model")
    learned = f"{metadata['queries']} queries of {metadata.get('reward')}" if "queries" in metadata else None
    parts = (prompt and repr(prompt), model and f"model {model}", learned)
    return [part for part in parts if part]


def check_fingerprint(metadata: Mapping[str, str], model: str, *, any_scheduler: bool = False) -> None:
    """Raises an `ArtifactError` if `metadata` is of another model than that with the fingerprint `model`.

    Arguments:
        any_scheduler: whether the scheduler, or its settings, may be another.
    """
    learned = metadata.get("model_fingerprint", model)
    parts = differing(learned, model)
    if any_scheduler and parts == ["scheduler"]:
        return
    if parts:
        raise ArtifactError(
            f"this was learned for the model {metadata.get('model')!r}, whose fingerprint is {learned}; the "
            f"given model's is {model}: it has another {' and another '.join(parts)}"
        )


def _gaussian(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density `(B,)` of `z`, `(B, *shape)`, without its constant."""
    return -0.5 * (((z - mean) / std).square() + 2 * std.log()).flatten(1).sum(1)


class NoisePolicy(nn.Module):
    """The learnable `NoiseDistribution`; it starts as N(0, I).

    Arguments:
        latent: the shape of one latent.
        basis: where it learns: "identity" (FIND) or "dctK", the K×K lowest frequencies.
        std: "learned", or "preserving": s² = 1 − m², which keeps each coefficient's second moment
            at 1 and so the sample in the set that the model was trained on; then |m| < 1.
    """

    __call__: Callable[..., NoiseDistribution]

    def __init__(self, latent: Sequence[int], basis: str = "identity", std: str = "learned") -> None:
        super().__init__()
        if std not in ("learned", "preserving"):
            raise ValueError(f"std must be 'learned' or 'preserving', not {std!r}")
        self.latent, self.basis, self.std_mode = tuple(latent), basis, std
        shape = Basis(basis, self.latent).shape
        self.mean = nn.Parameter(torch.zeros(shape))
        if std == "learned":
            self.log_std = nn.Parameter(torch.zeros(shape))

    def forward(self) -> NoiseDistribution:
        """The current distribution, differentiable in the parameters."""
        if self.std_mode == "learned":
            return NoiseDistribution(self.mean, self.log_std.exp(), self.latent, self.basis)
        std = (1 - self.mean.square()).clamp_min(1e-4).sqrt()
        return NoiseDistribution(self.mean, std, self.latent, self.basis)
