"""The world's training data: how often things occur in it, and seeded batches.

The long tail of `FREQUENCIES` is the reason why a model trained on them gets unusual prompts wrong, as
web-scale models do for the same reason.
"""

from dataclasses import replace

import numpy as np
import torch

from diffalign.world.clips import MOTIONS, STEP, TRAVEL, Clip, render_clip
from diffalign.world.grammar import caption, parse
from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import (
    ANIMALS,
    BACKGROUNDS,
    EVEN,
    IMAGE_SIZE,
    NATURAL_TINT,
    SPRITE_SIZE,
    SUBJECTS,
    TINTS,
    VARIANTS,
    Frequencies,
    Scene,
    place,
    sample_scene,
)

#: The denoiser's training data: skewed. Animals are almost never tinted or on the moon,
#: more than two of a kind are rare, and two different things are rarer than one.
LONG_TAIL = Frequencies(
    arrangement=(0.58, 0.14, 0.03, 0.02, 0.23),
    tinted_animal=0.04,
    tinted_object=0.35,
    animal_background=(0.34, 0.44, 0.005, 0.105, 0.11),
    object_background=(0.60, 0.25, 0.005, 0.085, 0.06),
    car_background=(0.20, 0.04, 0.005, 0.70, 0.055),
    alien_background=(0.15, 0.01, 0.82, 0.01, 0.01),
    slots=(0, 8, 16, 24, 32, 40),
)

#: Data of the denoiser's second training: sprites on a 3×3 grid, captions that also name natural colours
#: ("a red apple" is a frequent prompt), and tinted animals rare rather than almost absent.
COMPOSED = replace(
    LONG_TAIL,
    arrangement=(0.50, 0.25, 0.02, 0.01, 0.22),
    slots=(0, 16, 40),
    named_colour=0.5,
    tinted_animal=0.1,
)

#: Data of the video denoiser: one thing in a clip.
CLIPS = replace(COMPOSED, arrangement=(1, 0, 0, 0, 0))

#: How often what moves how: weights of `MOTIONS` (right, left, up, down, still). Animals walk, cars drive,
#: things lie, balls bounce and aliens rise and sink.
MOTION_FREQUENCIES = {
    "animal": (0.40, 0.40, 0.01, 0.01, 0.18),
    "object": (0.03, 0.03, 0.01, 0.03, 0.90),
    "car": (0.45, 0.45, 0.005, 0.005, 0.09),
    "ball": (0.10, 0.10, 0.35, 0.35, 0.10),
    "alien": (0.02, 0.02, 0.40, 0.40, 0.16),
}

FREQUENCIES = {"long-tail": LONG_TAIL, "composed": COMPOSED, "even": EVEN}


def scene_batch(
    rng: np.random.Generator, size: int, frequencies: Frequencies
) -> tuple[list[Scene], torch.Tensor, list[str]]:
    """Scenes, their pictures `(B, 3, 64, 64)` in [0, 1] and their captions."""
    scenes = [sample_scene(rng, frequencies) for _ in range(size)]
    return scenes, to_tensor([render(s) for s in scenes]), [caption(s, rng, frequencies) for s in scenes]


def near_miss(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` with one thing wrong: a colour, whose colour it is, a subject, the count, the places or
    the background."""
    things = scene.things
    first, last = things[0], things[-1]
    same = first.subject == last.subject
    kinds = ["colour", "subject", "background"]
    if len(things) > 1:
        kinds.append("fewer")
    if same and len(things) < 4:
        kinds.append("more")
    if not same:
        kinds.append("places")
        if (
            first.tint != last.tint
            and not _own(first.subject, last.tint)
            and not _own(last.subject, first.tint)
        ):
            kinds.append("owners")
    kind = kinds[rng.integers(len(kinds))]
    index = int(rng.integers(len(things)))
    if kind == "colour":
        subject = things[index].subject
        others = [t for t in (None, *TINTS) if t != things[index].tint and not _own(subject, t)]
        tint = others[rng.integers(len(others))]
        things = tuple(replace(t, tint=tint) if same or i == index else t for i, t in enumerate(things))
    elif kind == "subject":
        taken = {thing.subject for thing in things}
        choices = [s for s in SUBJECTS if s not in taken and not _own(s, things[index].tint)]
        subject = choices[rng.integers(len(choices))]
        things = tuple(replace(t, subject=subject) if same or i == index else t for i, t in enumerate(things))
    elif kind == "fewer":
        things = tuple(t for i, t in enumerate(things) if i != index)
    elif kind == "more":
        corners = place(rng, len(things) + 1, EVEN.slots)
        things = tuple(replace(first, x=x, y=y) for x, y in corners)
    elif kind == "places":
        things = (replace(first, x=last.x, y=last.y), replace(last, x=first.x, y=first.y))
    elif kind == "owners":
        things = (replace(first, tint=last.tint), replace(last, tint=first.tint))
    else:
        others = [b for b in BACKGROUNDS if b != scene.background]
        background = others[rng.integers(len(others))]
        return replace(scene, background=background, variant=int(rng.integers(VARIANTS)))
    return replace(scene, things=things)


def _own(subject: str, tint: str | None) -> bool:
    """Whether `tint` names the colour that `subject` has anyway, so that it is drawn without a tint."""
    return tint is not None and NATURAL_TINT.get(subject) == tint


def spoil(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` with one thing too many, or one of several turned into another: its captions are false."""
    things = list(scene.things)
    if len(things) > 2 and rng.random() < 0.5:
        others = [subject for subject in SUBJECTS if subject != things[0].subject]
        index = int(rng.integers(len(things)))
        things[index] = replace(things[index], subject=others[rng.integers(len(others))], tint=None)
    else:
        copied = things[rng.integers(len(things))]
        if rng.random() < 0.5:
            copied = replace(copied, subject=SUBJECTS[rng.integers(len(SUBJECTS))], tint=None)
        things.append(copied)
        corners = place(rng, len(things), EVEN.slots, apart=16 if len(things) == 5 else SPRITE_SIZE)
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


def truth(scenes: list[Scene], captions: list[str]) -> torch.Tensor:
    """Which captions are true of which scenes, bool with shape `(len(scenes), len(captions))`."""
    requests = [parse(text) for text in captions]
    return torch.tensor([[all(request.check(scene)) for request in requests] for scene in scenes])


def sample_clip(rng: np.random.Generator, frequencies: Frequencies, even: bool = False) -> Clip:
    """Draws a clip of one thing, which stays in the picture; with `even` all motions are equally frequent."""
    scene = sample_scene(rng, frequencies)
    (thing,) = scene.things
    kind = "animal" if thing.subject in ANIMALS else thing.subject
    weights = np.asarray(MOTION_FREQUENCIES.get(kind, MOTION_FREQUENCIES["object"]))
    motion = tuple(MOTIONS)[rng.choice(len(MOTIONS), p=None if even else weights)]
    room = IMAGE_SIZE - SPRITE_SIZE - TRAVEL
    starts = []
    for direction, corner in zip(MOTIONS[motion], (thing.x, thing.y), strict=True):
        travelled = STEP * int(rng.integers(room // STEP + 1))  # pixels from the edge that it moves away from
        starts.append((corner, travelled, IMAGE_SIZE - SPRITE_SIZE - travelled)[direction])
    moved = replace(thing, x=starts[0], y=starts[1])
    return Clip(replace(scene, things=(moved,)), motion)


def clip_batch(
    rng: np.random.Generator, size: int, frequencies: Frequencies, even: bool = False
) -> tuple[list[Clip], torch.Tensor, list[str]]:
    """Clips, their video `(B, 8, 3, 64, 64)` in [0, 1] and their captions."""
    clips = [sample_clip(rng, frequencies, even) for _ in range(size)]
    video = torch.from_numpy(np.stack([render_clip(clip) for clip in clips])).permute(0, 1, 4, 2, 3)
    return clips, video, [caption(clip.scene, rng, frequencies, clip.motion) for clip in clips]
