"""The pictures that a search keeps, and their file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.files import NOISES, ArtifactError, load_tensors, save_tensors
from diffalign.policies.noise import about
from diffalign.rollout import contact_sheet

FORMAT = "diffalign.noises/2"


@dataclass(frozen=True)
class SearchResult:
    """The best of the pictures made so far, best first; of equal ones the earlier first.

    Attributes:
        x_T: initial noise with shape `(keep, *latent)`.
        images: pictures with shape `(keep, 3, H, W)`, float32 in [0, 1]; none if read from a file.
        rewards: of every picture made, with shape `(n,)`, in the order of their indices.
        indices: which of the n pictures were kept.
        metadata: what it was searched for (model, prompt, steps …); strings.
        previews: rewards of the previews of fewer steps whose best were drawn again as pictures, with shape
            `(m,)`; none of a search whose pictures all have all steps.
    """

    x_T: Tensor
    images: Tensor
    rewards: Tensor
    indices: tuple[int, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    previews: Tensor = field(default_factory=lambda: torch.empty(0))

    def __repr__(self) -> str:
        kept = [f"{reward:.3g}" for reward in self.kept_rewards().tolist()]
        rewards = f"rewards {kept[0]} to {kept[-1]}" if kept else "none yet"
        return f"SearchResult({', '.join([*about(self.metadata), self.described(), rewards])})"

    def _repr_png_(self) -> bytes | None:
        return contact_sheet(self.images)

    def to(self, *where: Any) -> Self:
        """The same with its noise on another device, of another dtype or both, as `Tensor.to` takes them."""
        return replace(self, x_T=self.x_T.to(*where))

    def kept_rewards(self) -> Tensor:
        """The rewards of the kept pictures, with shape `(keep,)`."""
        return self.rewards[list(self.indices)]

    def described(self) -> str:
        """What is kept of what: the best pictures, or pictures of the noise of the best previews."""
        if len(self.previews) and len(self.indices) < len(self.rewards):
            drawn, previews = len(self.rewards), len(self.previews)
            return f"the best {len(self.indices)} of {drawn} pictures of the best of {previews} previews"
        if len(self.previews):
            return f"pictures of the best {len(self.indices)} of {len(self.previews)} previews"
        return f"the best {len(self.indices)} of {len(self.rewards)}"

    def merged(self, x_T: Tensor, images: Tensor, rewards: Tensor, keep: int) -> "SearchResult":
        """The best `keep` of these and of a new batch `(B, …)` with rewards `(B,)`."""
        first = len(self.rewards)
        rewards = torch.cat([self.rewards, rewards])
        indices = (*self.indices, *range(first, len(rewards)))
        x_T = torch.cat([self.x_T, x_T])
        # stable: the kept come before the batch, and each is in order, so that ties go to the lower index
        order = rewards[list(indices)].argsort(descending=True, stable=True)[:keep]
        known = len(self.images)
        chosen = torch.stack([self.images[i] if i < known else images[i - known] for i in order.tolist()])
        indices = tuple(indices[i] for i in order.tolist())
        return replace(self, x_T=x_T[order], images=chosen, rewards=rewards, indices=indices)

    def save(self, path: Path | str) -> None:
        """Writes noise and rewards as a safetensors file, atomically."""
        tensors = {"x_T": self.x_T, "rewards": self.kept_rewards()}
        save_tensors(Path(path), tensors, self.metadata, FORMAT)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads what `save` wrote: the kept noises and their rewards, without pictures.

        Raises:
            ArtifactError: if there is no such file, or it is not one of ours.
        """
        path = Path(path)
        path = path / NOISES if path.is_dir() else path
        tensors, header = load_tensors(path, FORMAT)
        x_T, rewards = (tensors.get(name, torch.tensor(0)) for name in ("x_T", "rewards"))
        floats = x_T.is_floating_point() and rewards.is_floating_point()
        if not floats or x_T.ndim < 2 or x_T.shape[:1] != rewards.shape:
            raise ArtifactError(f"{path} holds no noises and rewards, one each")
        return cls(x_T, torch.empty(0), rewards, tuple(range(len(rewards))), header)
