"""Seeded batches of the world's training data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from diffalign.world.grammar import caption
from diffalign.world.render import VARIANTS, render
from diffalign.world.scenes import (
    BACKGROUNDS,
    NATURAL_TINT,
    SUBJECTS,
    TINTS,
    Frequencies,
    Scene,
    sample_scene,
)


def to_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """`(64, 64, 3)` pictures in [0, 1] → `(B, 3, 64, 64)` in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def scene_batch(
    rng: np.random.Generator, size: int, frequencies: Frequencies
) -> tuple[list[Scene], torch.Tensor, list[str]]:
    """Scenes, their pictures `(B, 3, 64, 64)` in [0, 1] and their captions."""
    scenes = [sample_scene(rng, frequencies) for _ in range(size)]
    return scenes, to_tensor([render(s) for s in scenes]), [caption(s, rng, frequencies) for s in scenes]


def near_miss(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` with one thing wrong: a colour, a subject, a count, the places or the background."""
    things = scene.things
    kind = rng.integers(5)
    index = int(rng.integers(len(things)))
    same = len({thing.subject for thing in things}) == 1
    if kind == 0:
        others = [
            t
            for t in (None, *TINTS)
            if t != things[index].tint and t != NATURAL_TINT.get(things[index].subject)
        ]
        tint = others[rng.integers(len(others))]
        changed = tuple(replace(t, tint=tint) if same or i == index else t for i, t in enumerate(things))
    elif kind == 1:
        taken = {thing.subject for thing in things}
        choices = [s for s in SUBJECTS if s not in taken and NATURAL_TINT.get(s) != things[index].tint]
        subject = choices[rng.integers(len(choices))]
        changed = tuple(
            replace(t, subject=subject) if same or i == index else t for i, t in enumerate(things)
        )
    elif kind == 2 and len(things) > 1:
        changed = tuple(t for i, t in enumerate(things) if i != index)
    elif kind == 3 and not same:
        a, b = things
        changed = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))
    else:
        others = [b for b in BACKGROUNDS if b != scene.background]
        return replace(
            scene, background=others[rng.integers(len(others))], variant=int(rng.integers(VARIANTS))
        )
    return replace(scene, things=changed)


def contrast_batch(
    rng: np.random.Generator, size: int, frequencies: Frequencies
) -> tuple[torch.Tensor, list[str]]:
    """Pictures and captions of `size / 2` scenes and of a near miss of each."""
    scenes = [sample_scene(rng, frequencies) for _ in range(size // 2)]
    scenes += [near_miss(scene, rng) for scene in scenes]
    return to_tensor([render(s) for s in scenes]), [caption(s, rng, frequencies) for s in scenes]
