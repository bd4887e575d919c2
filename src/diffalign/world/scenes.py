"""What the embedded world contains: a `Scene` is a background and one to four things on it.

The frequencies that its models learned from stand in its recipe, `recipes/world/data.py`.
"""

from dataclasses import dataclass

import numpy as np

IMAGE_SIZE = 64  # pixels a side
SPRITE_SIZE = 24  # pixels a side: two fit beside each other
ATTEMPTS = 40  # at placing a sprite before placing starts anew

ANIMALS = ("dog", "cat", "panda", "rabbit", "frog", "lion", "pig", "monkey")
OBJECTS = ("apple", "banana", "car", "flower", "ball")
SUBJECTS = (*ANIMALS, *OBJECTS, "alien")
TINTS = ("red", "green", "blue", "yellow", "purple", "pink")
BACKGROUNDS = ("plain", "grass", "moon", "street", "snow")
VARIANTS = 3  # of each background

#: Subjects whose natural colour has the name of a tint: "a red apple" is an ordinary apple.
NATURAL_TINT = {
    "apple": "red",
    "car": "red",
    "banana": "yellow",
    "flower": "yellow",
    "cat": "yellow",
    "lion": "yellow",
    "frog": "green",
    "pig": "pink",
}


@dataclass(frozen=True)
class Frequencies:
    """How often things occur. Weights within a field are relative."""

    #: one thing, two, three, four of a kind, two different things
    arrangement: tuple[float, ...]
    #: probability that an animal or alien / an object has another colour than its natural one
    tinted_animal: float
    tinted_object: float
    #: weights of BACKGROUNDS for animals, objects, cars and aliens
    animal_background: tuple[float, ...]
    object_background: tuple[float, ...]
    car_background: tuple[float, ...]
    alien_background: tuple[float, ...]
    #: positions of a sprite's corner along each axis, in pixels
    slots: tuple[int, ...]
    #: probability that a caption leaves out the background
    silent_background: float = 0.1
    #: probability that a caption names a natural colour ("a red apple")
    named_colour: float = 0.0


#: Training data of autoencoder and CLIP: everything equally often, as such models are trained on far
#: more data than a denoiser.
EVEN = Frequencies(
    arrangement=(0.30, 0.12, 0.10, 0.10, 0.38),
    tinted_animal=0.6,
    tinted_object=0.6,
    animal_background=(1, 1, 1, 1, 1),
    object_background=(1, 1, 1, 1, 1),
    car_background=(1, 1, 1, 1, 1),
    alien_background=(1, 1, 1, 1, 1),
    slots=tuple(range(0, 41, 4)),
)


@dataclass(frozen=True)
class Thing:
    """A sprite in a scene: `tint` None is the natural colour; `x`, `y` are the top left corner in pixels."""

    subject: str
    tint: str | None
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    """Things on a background, which is one of `BACKGROUNDS`, or None if none is recognised in a picture."""

    things: tuple[Thing, ...]
    background: str | None
    variant: int = 0


def relations_between(a: Thing, b: Thing) -> set[str]:
    """The relations of `a` to `b`: those along an axis on which they are half a sprite apart or more, and
    no closer than on the other axis.
    """
    dx, dy = b.x - a.x, b.y - a.y
    least = max(SPRITE_SIZE // 2, abs(dx), abs(dy))
    held = {"left": dx, "right": -dx, "above": dy, "below": -dy}
    return {relation for relation, distance in held.items() if distance >= least}


def place(
    rng: np.random.Generator, number: int, slots: tuple[int, ...], apart: int = SPRITE_SIZE
) -> list[tuple[int, int]]:
    """Corners (x, y) of `number` sprites in the slots, at least `apart` pixels from each other on an axis."""
    while True:
        corners: list[tuple[int, int]] = []
        for _ in range(ATTEMPTS):
            x, y = (slots[i] for i in rng.integers(0, len(slots), 2))
            if all(max(abs(x - u), abs(y - v)) >= apart for u, v in corners):
                corners.append((x, y))
                if len(corners) == number:
                    return corners


def _tint(rng: np.random.Generator, subject: str, frequencies: Frequencies) -> str | None:
    probability = frequencies.tinted_object if subject in OBJECTS else frequencies.tinted_animal
    if rng.random() >= probability:
        return None
    tints = [tint for tint in TINTS if tint != NATURAL_TINT.get(subject)]
    return tints[rng.integers(len(tints))]


def _background(rng: np.random.Generator, subject: str, frequencies: Frequencies) -> str:
    kind = subject if subject in ("car", "alien") else "animal" if subject in ANIMALS else "object"
    weights = getattr(frequencies, f"{kind}_background")
    probabilities = np.asarray(weights, dtype=float) / sum(weights)
    return BACKGROUNDS[rng.choice(len(BACKGROUNDS), p=probabilities)]


def sample_scene(rng: np.random.Generator, frequencies: Frequencies) -> Scene:
    """Draws a scene."""
    arrangement = int(rng.choice(5, p=np.asarray(frequencies.arrangement)))
    first, second = (SUBJECTS[i] for i in rng.choice(len(SUBJECTS), 2, replace=False))
    tint = _tint(rng, first, frequencies)
    if arrangement == 4:
        members = [(first, tint), (second, _tint(rng, second, frequencies))]
    else:
        members = [(first, tint)] * (arrangement + 1)
    corners = place(rng, len(members), frequencies.slots)
    things = tuple(Thing(s, t, x, y) for (s, t), (x, y) in zip(members, corners, strict=True))
    return Scene(things, _background(rng, first, frequencies), int(rng.integers(VARIANTS)))
