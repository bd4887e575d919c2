r"""The judge: reads the scene in a picture, without a learned model, and checks a prompt's conditions.

A matched filter explains a picture as one of the known backgrounds and, greedily, sprites on it.
A sprite T with weights w (its squared opacity) explains, of a picture I with background B,

    gain = Σ w (I − B)² − Σ w (I − T)²,    Σ w (I − T)² = Σ w I² − 2 Σ w T I + Σ w T²

The greatest gain is sought every two pixels at half resolution, then refined at full resolution.
The sprite counts if its error is low on the whole and in each of its parts, and well below the error
of a smooth blob.

Symbols:    I = picture, B = backdrop, T = colour, w = weight
References: Turin (1960), "An introduction to matched filters"; Mallat and Zhang (1993), "Matching
            pursuits with time-frequency dictionaries"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from diffalign.world.grammar import parse
from diffalign.world.render import backgrounds, to_tensor
from diffalign.world.scenes import IMAGE_SIZE, NATURAL_TINT, SPRITE_SIZE, Scene, Thing
from diffalign.world.sprites import load_sprites

# Errors are mean squares for each channel. Blurs and autoencoders leave up to 0.014 on a sprite.
FIT_LIMIT = 0.017
PART_LIMIT = 0.036  # a half-drawn or two-coloured sprite fits on the whole but not in every part
BLOB_LIMIT = 0.6  # share of the error of a smooth blob that may remain
DETAIL_LIMIT = 0.5  # contrast of what distinguishes the sprite from its silhouette: 1 if drawn in full
LIKENESS_LIMIT = 0.2  # its correlation with that of the picture
COARSE_LIMIT = 0.07  # error at half resolution, where position and blur are not yet right
GAIN_LIMIT = -2.0  # a sprite in its background's colour gains little, and less than nothing if blurred
BACKDROP_LIMIT = 0.012  # error of a background that is recognised
BACKDROP_CAP = 0.05  # the most that a pixel counts against a background, as things cover some
NEAREST = 16  # pixels between two corners along an axis; the renderer keeps 24
POSITIONS = 8  # of possible sprites, examined in a picture at most: twice the number of things in a scene
CANDIDATES, FINALISTS = 12, 4  # sprites compared at each position by gain, and of these in detail
BLURS = (0.0, 1.0)  # pixels: a picture may be as sharp as the renderer's, or softer
SEARCH_BLUR = 0.7  # pixels, of the templates that are sought
PARTS = 3  # of a sprite, along each axis
LEAST_PART = 0.25  # mean weight of a part, below which its error counts less
COARSE_POSITIONS = (IMAGE_SIZE - SPRITE_SIZE) // 2 + 1


@dataclass(frozen=True)
class _Bank:
    """The K = 90 sprites and N = 15 backgrounds as tensors, by (subject, tint) and (background, variant)."""

    kinds: tuple[tuple[str, str | None], ...]
    weight: Tensor  # (K, 1, 24, 24)
    colour: Tensor  # (K, 3, 24, 24), by SEARCH_BLUR
    paint: Tensor  # (len(BLURS), K, 3, 24, 24), colour times opacity
    cover: Tensor  # (len(BLURS), K, 1, 24, 24), opacity
    coarse_colour: Tensor  # (K, 3, 12, 12), w T
    coarse_weight: Tensor  # (K, 1, 12, 12)
    coarse_energy: Tensor  # (K,), Σ w T²
    backgrounds: tuple[tuple[str, int], ...]
    backdrops: Tensor  # (N, 3, 64, 64)
    smooth: Tensor  # (3, 576), an orthonormal basis of the linear functions on a box


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """`maps` `(K, C, H, W)` blurred by a Gaussian of `sigma` pixels."""
    if sigma == 0:
        return maps
    reach = torch.arange(-3, 4)
    kernel = torch.exp(-reach.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(maps.shape[1], 1, 1, 7)
    maps = F.conv2d(maps, kernel, padding=(0, 3), groups=maps.shape[1])
    return F.conv2d(maps, kernel.mT, padding=(3, 0), groups=maps.shape[1])


@cache
def _bank() -> _Bank:
    sprites = {
        (subject, tint): sprite
        for (subject, tint), sprite in load_sprites().items()
        if tint is None or NATURAL_TINT.get(subject) != tint
    }
    sharp, opacity = (to_tensor([*maps]).contiguous() for maps in zip(*sprites.values(), strict=True))
    weight = opacity.square()
    # slightly blurred templates fit sharp and blurred pictures about equally well
    colour = _blur(opacity * sharp, SEARCH_BLUR) / _blur(opacity, SEARCH_BLUR).clamp_min(1e-3)
    axis = torch.linspace(-1, 1, SPRITE_SIZE)
    plane = torch.stack([torch.ones(SPRITE_SIZE, SPRITE_SIZE), *torch.meshgrid(axis, axis, indexing="ij")])
    return _Bank(
        kinds=tuple(sprites),
        weight=weight,
        colour=colour,
        paint=torch.stack([_blur(opacity * sharp, sigma) for sigma in BLURS]),
        cover=torch.stack([_blur(opacity, sigma) for sigma in BLURS]),
        coarse_colour=F.avg_pool2d(weight * colour, 2),
        coarse_weight=F.avg_pool2d(weight, 2),
        coarse_energy=F.avg_pool2d(weight * colour.square(), 2).sum((1, 2, 3)),
        backgrounds=tuple(backgrounds()),
        backdrops=to_tensor([*backgrounds().values()]).contiguous(),
        smooth=F.normalize(plane.flatten(1), dim=1),
    )


def _nearest_backdrop(images: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the nearest background and its capped error `(B,)`, where `free` `(B, 64, 64)` is 1."""
    error = torch.stack([(images - b).square().mean(1) for b in _bank().backdrops], 1)
    capped = (error.clamp_max(BACKDROP_CAP) * free[:, None]).sum((2, 3)) / free.sum((1, 2))[:, None]
    least, index = capped.min(1)
    return index, least


def _coarse_gains(images: Tensor, deviation: Tensor) -> Tensor:
    """The gain `(B, K, 21, 21)` of each sprite every two pixels; −∞ where it does not fit at all."""
    bank = _bank()
    small = F.avg_pool2d(images, 2)
    energy = F.conv2d(small.square().sum(1, keepdim=True), bank.coarse_weight)
    error = energy - 2 * F.conv2d(small, bank.coarse_colour) + bank.coarse_energy[:, None, None]
    empty = F.conv2d(F.avg_pool2d(deviation, 2), bank.coarse_weight)
    mass = 3 * bank.coarse_weight.sum((1, 2, 3))[:, None, None]
    return torch.where(error < COARSE_LIMIT * mass, empty - error, -torch.inf)


def _crops(maps: Tensor, corners: Tensor, size: int) -> Tensor:
    """Squares `(B, C, size, size)` of `maps` whose top left corners are `corners` `(B, 2)` as (y, x)."""
    span = torch.arange(size)
    batch = torch.arange(len(maps))[:, None, None]
    rows, columns = corners[:, 0, None, None] + span[:, None], corners[:, 1, None, None] + span
    return maps.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)


def _refine(images: Tensor, deviation: Tensor, corners: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The finalists of `kinds` `(B, M)` within a pixel of `corners` `(B, 2)`, by falling gain.

    The result is their corners `(B, FINALISTS, 2)` and kinds `(B, FINALISTS)`.
    """
    bank = _bank()
    near = _crops(F.pad(images, (1, 1, 1, 1), mode="replicate"), corners, SPRITE_SIZE + 2)
    away = _crops(F.pad(deviation, (1, 1, 1, 1)), corners, SPRITE_SIZE + 2)
    change = F.unfold(away - near.square().sum(1, keepdim=True), SPRITE_SIZE)  # (B, 576, 9)
    colour, weight = bank.colour[kinds], bank.weight[kinds]
    gain = weight.flatten(2) @ change + 2 * (weight * colour).flatten(2) @ F.unfold(near, SPRITE_SIZE)
    gain = gain - (weight * colour.square()).sum((2, 3, 4))[..., None]
    gain, shift = gain.max(2)
    best = gain.topk(FINALISTS).indices
    shift = shift.gather(1, best)
    return corners[:, None] + torch.stack([shift // 3 - 1, shift % 3 - 1], 2), kinds.gather(1, best)


def _off_colour(picture: Tensor, cover: Tensor) -> Tensor:
    """The residual of `picture` `(B, 3, 24, 24)` after `cover` `(B, 1, 24, 24)` in the best single colour."""
    colour = (picture * cover).sum((2, 3), keepdim=True) / cover.square().sum((2, 3), keepdim=True)
    return picture - colour * cover


def _measure(images: Tensor, backdrop: Tensor, corners: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """How well sprites fit at `corners` `(B, 2)`, with the blur and on the ground that fit each best.

    The result is their error as a share of a smooth blob's and whether they are clearly present, both `(B,)`.
    """
    bank = _bank()
    box = _crops(F.pad(images, (1, 1, 1, 1), mode="replicate"), corners + 1, SPRITE_SIZE)
    behind = _crops(backdrop, corners.clamp(0, IMAGE_SIZE - SPRITE_SIZE), SPRITE_SIZE)
    weight = bank.weight[kinds]
    mass = weight.sum((1, 2, 3))
    part_mass = F.avg_pool2d(weight[:, 0], SPRITE_SIZE // PARTS)
    pixels = box.flatten(2)
    blob = (pixels - pixels @ bank.smooth.T @ bank.smooth).square().sum((1, 2)).clamp_min(1e-6)
    lefts, clears = [], []
    for paint, cover in zip(bank.paint[:, kinds], bank.cover[:, kinds], strict=True):
        bare = 1 - cover
        flat = (bare * (box - paint)).sum((2, 3), keepdim=True) / bare.square().sum((2, 3), keepdim=True)
        for ground in (behind, flat):
            square = (box - paint - bare * ground).square()
            fit = (weight * square).sum((1, 2, 3)) / (3 * mass)
            part = F.avg_pool2d((weight * square).mean(1), SPRITE_SIZE // PARTS)
            worst = (part / part_mass.clamp_min(LEAST_PART)).flatten(1).amax(1)
            left = square.sum((1, 2, 3)) / blob
            drawn, seen = _off_colour(paint, cover), _off_colour(box - bare * ground, cover)
            shared, whole = (drawn * seen).sum((1, 2, 3)), drawn.square().sum((1, 2, 3))
            likeness = shared / (whole * seen.square().sum((1, 2, 3)).clamp_min(1e-9)).sqrt()
            fits = (fit < FIT_LIMIT) & (worst < PART_LIMIT) & (left < BLOB_LIMIT)
            lefts.append(left)
            clears.append(fits & (shared / whole > DETAIL_LIMIT) & (likeness > LIKENESS_LIMIT))
    left, best = torch.stack(lefts, 1).min(1)
    return left, torch.stack(clears, 1).gather(1, best[:, None])[:, 0]


@torch.inference_mode()
def read_scenes(images: Tensor) -> list[Scene]:
    """The scenes of B pictures `(B, 3, 64, 64)` in [0, 1].

    A scene has the things that are clearly present (none in noise or blank pictures), from top to bottom, and
    the background, None if none is recognised.

    Raises:
        ValueError: if the shape is another.
    """
    if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(
            f"pictures to judge have shape (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), not {tuple(images.shape)}"
        )
    bank, batch = _bank(), len(images)
    images = images.detach().to("cpu", torch.float32).nan_to_num().clamp(0, 1)
    free = torch.ones(batch, IMAGE_SIZE, IMAGE_SIZE)
    nearest, _ = _nearest_backdrop(images, free)
    backdrop = bank.backdrops[nearest]
    deviation = (images - backdrop).square().sum(1, keepdim=True)
    gains = _coarse_gains(images, deviation)
    things: list[list[Thing]] = [[] for _ in range(batch)]
    lattice = 2 * torch.arange(COARSE_POSITIONS)
    active = torch.arange(batch)
    for _ in range(POSITIONS):
        active = active[gains[active].flatten(1).amax(1) > GAIN_LIMIT]
        if not len(active):
            break
        rows = torch.arange(len(active))
        spot = gains[active].amax(1).flatten(1).argmax(1)
        corners = 2 * torch.stack([spot // COARSE_POSITIONS, spot % COARSE_POSITIONS], 1)
        kinds = gains[active].flatten(2)[rows, :, spot].topk(CANDIDATES).indices
        corners, kinds = _refine(images[active], deviation[active], corners, kinds)
        again = active.repeat_interleave(FINALISTS)
        left, clear = _measure(images[again], backdrop[again], corners.flatten(0, 1), kinds.flatten())
        best = left.view(-1, FINALISTS).argmin(1)
        corners, kind, clear = corners[rows, best], kinds[rows, best], clear.view(-1, FINALISTS)[rows, best]
        y, x = corners[:, :1, None], corners[:, 1:, None]
        distance = (y - lattice[:, None]).abs().maximum((x - lattice).abs())
        near = distance < torch.where(clear, NEAREST, NEAREST // 2)[:, None, None]
        gains[active] = gains[active].masked_fill(near[:, None], -torch.inf)
        for i, (top, edge), k in zip(
            active[clear].tolist(), corners[clear].tolist(), kind[clear].tolist(), strict=True
        ):
            subject, tint = bank.kinds[k]
            things[i].append(Thing(subject, tint, edge, top))
            free[i, max(top, 0) : top + SPRITE_SIZE, max(edge, 0) : edge + SPRITE_SIZE] = 0
    nearest, errors = _nearest_backdrop(images, free)
    scenes = []
    for of_picture, index, error in zip(things, nearest.tolist(), errors.tolist(), strict=True):
        name, variant = bank.backgrounds[index] if error < BACKDROP_LIMIT else (None, 0)
        scenes.append(Scene(tuple(sorted(of_picture, key=lambda thing: (thing.y, thing.x))), name, variant))
    return scenes


def judge(images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Whether each picture `(B, 3, 64, 64)` or video `(B, F, 3, 64, 64)` in [0, 1] shows its prompt.

    The result is the verdicts (all conditions of the prompt hold), bool with shape `(B,)`, and the graded
    scores (the share of conditions that hold), float32 in [0, 1] with shape `(B,)`.

    Raises:
        PromptError: if a prompt is not in the world's language.
        ValueError: if the shape is another or the numbers of pictures and prompts differ.
    """
    if len(images) != len(prompts):
        raise ValueError(
            f"{len(images)} pictures but {len(prompts)} prompts: judge takes one prompt for each picture"
        )
    video = images.ndim == 5
    requests = [parse(prompt, video) for prompt in prompts]
    if video:
        scenes = read_scenes(images.flatten(0, 1))
        videos = [scenes[i : i + images.shape[1]] for i in range(0, len(scenes), images.shape[1])]
        held = [request.check_video(each) for request, each in zip(requests, videos, strict=True)]
    else:
        held = [request.check(scene) for request, scene in zip(requests, read_scenes(images), strict=True)]
    score = torch.tensor([sum(conditions) / len(conditions) for conditions in held], dtype=torch.float32)
    return torch.tensor([all(conditions) for conditions in held], dtype=torch.bool), score
