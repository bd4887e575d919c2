"""Seeded batches of the world's training data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from diffalign.world.grammar import caption
from diffalign.world.render import VARIANTS, render
from diffalign.world.scenes import (
    BACKGROUNDS,
    LONG_TAIL,
    NATURAL_TINT,
    SUBJECTS,
    TINTS,
    Frequencies,
    Scene,
    place,
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


def spoil(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` with one thing too many, or one of several turned into another: its captions are false."""
    things = list(scene.things)
    if len(things) == 4 or (len(things) == 3 and rng.random() < 0.5):  # five do not fit
        others = [subject for subject in SUBJECTS if subject != things[0].subject]
        index = int(rng.integers(len(things)))
        things[index] = replace(things[index], subject=others[rng.integers(len(others))], tint=None)
    else:
        copied = things[rng.integers(len(things))]
        if rng.random() < 0.5:
            copied = replace(copied, subject=SUBJECTS[rng.integers(len(SUBJECTS))], tint=None)
        things.append(copied)
        corners = place(rng, len(things), LONG_TAIL.slots)
        things = [replace(thing, x=x, y=y) for thing, (x, y) in zip(things, corners, strict=True)]
    return replace(scene, things=tuple(things))


def contrast_batch(
    rng: np.random.Generator, size: int, frequencies: Frequencies, misses: int = 1
) -> tuple[torch.Tensor, list[str], list[Scene]]:
    """Pictures and captions of `size` scenes: in each run of `misses + 1`, near misses of the first."""
    scenes = []
    for _ in range(size // (misses + 1)):
        scene = sample_scene(rng, frequencies)
        scenes += [scene, *(near_miss(scene, rng) for _ in range(misses))]
    pictures = to_tensor([render(scene) for scene in scenes])
    return pictures, [caption(scene, rng, frequencies) for scene in scenes], scenes
