"""ROLLOUT: what a policy decided and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.packing import Grid
from diffalign.diffusion.sampler import seeded_noise
from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.policies.noise import NoiseDistribution

#: Decisions are numbered like sampler steps, from the noise; the initial noise comes before step 0.
INITIAL_NOISE = range(-1, 0)


class Environment(Protocol):
    """From initial noise to pictures, such as a `Sampler`.

    Attributes:
        latent_shape: of one latent, `(C, H, W)`, `(C, F, H, W)` or packed `(F·h·w, C)`.
        grid: of packed latents.
        batch_size: pictures made at a time.
        forwards: denoiser evaluations that a picture takes.
    """

    @property
    def latent_shape(self) -> tuple[int, ...]: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def forwards(self) -> int: ...

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        """Pictures `(B, 3, H, W)`, float32 in [0, 1], of initial noise `(B, *latent)`."""


@dataclass(frozen=True)
class Rollout:
    """A batch of samples and their K decisions.

    Attributes:
        x: float32; of a noise policy the initial noise x_T, `(1, B, *latent)`; of a denoiser policy the
            latents around its decisions, `(K + 1, B, *latent)`.
        log_prob: of the decisions under the policy that made them, with shape `(B, K)`.
        interval: the decisions, numbered from the noise.
        images: pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)`, float32 in [0, 1]; see `scored`.
        prompts: one prompt a sample.
        indices: each sample's number, which with the seed determines its noise.
    """

    x: Tensor
    log_prob: Tensor
    interval: range
    images: Tensor
    prompts: tuple[str, ...]
    indices: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Rollout({len(self.indices)} samples, decisions {list(self.interval)})"

    def _repr_png_(self) -> bytes | None:
        return contact_sheet(self.images)

    @property
    def x_T(self) -> Tensor:
        """The initial noise of a noise policy, `(B, *latent)`."""
        return self.x[0]

    def scored(self) -> Self:
        """The same once it is scored: videos as uint8, a quarter of their size."""
        return self if self.images.ndim < 5 else replace(self, images=as_bytes(self.images))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """One batch of several of the same interval."""
        return cls(
            torch.cat([part.x for part in parts], 1),
            torch.cat([part.log_prob for part in parts]),
            parts[0].interval,
            torch.cat([part.images for part in parts]),
            tuple(prompt for part in parts for prompt in part.prompts),
            tuple(index for part in parts for index in part.indices),
        )


def as_bytes(images: Tensor) -> Tensor:
    """Pictures of any shape, float in [0, 1], as uint8, rounded as diffusers does; uint8 stays as it is."""
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def contact_sheet(images: Tensor, columns: int = 8) -> bytes | None:
    """Pictures side by side as a PNG, for notebooks; of videos the first frames. None without pictures."""
    if not len(images):
        return None
    pictures = as_bytes(images[:, 0] if images.ndim == 5 else images)
    columns = min(columns, len(pictures))
    blank = pictures.new_full((-len(pictures) % columns, *pictures.shape[1:]), 255)
    rows = torch.cat([pictures, blank]).unflatten(0, (-1, columns))
    sheet = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (rows · H, columns · W, 3)
    file = BytesIO()
    Image.fromarray(sheet.numpy()).save(file, "png")
    return file.getvalue()


def repeated(prompts: Sequence[str], times: int) -> tuple[str, ...]:
    """One prompt a sample, of groups with `times` samples each."""
    return tuple(prompt for prompt in prompts for _ in range(times))


def collect(
    distribution: NoiseDistribution,
    environment: Environment,
    prompt: str,
    indices: Sequence[int],
    *,
    seed: int,
    stream: str = "train",
    antithetic: bool = False,
) -> Rollout:
    """Draws one sample an index from `distribution` and runs it through `environment`.

    Arguments:
        antithetic: samples 2j and 2j + 1 use the noise ε and −ε.
    """
    drawn = [index // 2 for index in indices] if antithetic else indices
    epsilon = seeded_noise(distribution.latent, seed, stream, drawn)
    if antithetic:
        signs = torch.tensor([1.0 if index % 2 == 0 else -1.0 for index in indices])
        epsilon = epsilon * signs.view(-1, *[1] * (epsilon.ndim - 1))
    with torch.no_grad():
        x_T = distribution.transform(epsilon, distribution.components(seed, stream, indices))
        log_prob = distribution.log_prob(x_T)
    return sample_noise(environment, prompt, x_T, indices, log_prob)


def sample_noise(
    environment: Environment, prompt: str, x_T: Tensor, indices: Sequence[int], log_prob: Tensor | None = None
) -> Rollout:
    """The pictures of initial noise `(B, *latent)`; a search, which decides nothing, has no `log_prob`."""
    if log_prob is None:
        log_prob = torch.zeros(len(x_T), 1)
    images = environment(x_T, prompt)
    return Rollout(x_T[None], log_prob, INITIAL_NOISE, images, (prompt,) * len(x_T), tuple(indices))


@torch.no_grad()
def collect_trajectories(
    policy: DenoiserPolicy,
    groups: Sequence[int],
    prompts: Sequence[str],
    interval: range,
    branches: int = 1,
    *,
    seed: int,
    stream: str = "train",
    quiet: bool = False,
) -> Rollout:
    """Draws the samples of `groups`, whose steps before `interval` are made once a group and not kept.

    So the rewards of a group differ by decisions in the interval alone (Hu et al., CVPR 2025, section 4.2,
    https://arxiv.org/abs/2503.11240). Steps after it have no noise.

    Arguments:
        groups: their numbers, which with the seed determine the noise.
        prompts: one a group.
        interval: the decisions that are kept, numbered from the noise.
        branches: b samples a group, that part where `interval` starts; sample i is of group i // b.
        quiet: whether steps before it have no noise either.

    Raises:
        ValueError: if `interval` is empty or has other steps than decisions, or the prompts are not one a
            group.
        NotFiniteError: if latents, log-probabilities or pictures hold values that are no numbers.
    """
    if not interval or interval.start < 0 or interval.stop > len(policy.decisions):
        raise ValueError(f"an interval is of {len(policy.decisions)} decisions, not {interval}")
    indices = [group * branches + branch for group in groups for branch in range(branches)]
    if len(prompts) != len(groups):
        raise ValueError(f"{len(groups)} groups need as many prompts, not {len(prompts)}")
    device, latent = policy.device, policy.sampler.latent_shape

    def noise(step: int, numbers: Sequence[int]) -> Tensor:
        return seeded_noise(latent, seed, f"{stream}/{step}", numbers).to(device)

    x_t = noise(INITIAL_NOISE.start, groups)
    for step in range(interval.start):
        mean, std = policy(x_t, step, prompts, 0.0 if quiet else policy.eta)
        x_t = mean if quiet else mean + std * noise(step, groups)
    x_t, each = x_t.repeat_interleave(branches, 0), repeated(prompts, branches)
    x, log_prob = [x_t], []
    for step in interval:
        mean, std = policy(x_t, step, each)
        x_t = mean + std * noise(step, indices)
        x.append(x_t)
        log_prob.append(gaussian_log_prob(x_t, mean, std))
    for step in range(interval.stop, len(policy.timesteps)):
        x_t, _ = policy(x_t, step, each, 0.0)
    check_finite("latents", x_t, remedy(policy.dtype))
    check_finite("log-probabilities", torch.stack(log_prob, 1), remedy(policy.dtype))
    images = policy.decode(x_t, each)
    return Rollout(torch.stack(x), torch.stack(log_prob, 1), interval, images, each, tuple(indices))
