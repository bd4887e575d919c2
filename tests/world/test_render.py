from dataclasses import replace

import numpy as np
import pytest

from diffalign.world.render import backgrounds, render
from diffalign.world.scenes import (
    BACKGROUNDS,
    EVEN,
    IMAGE_SIZE,
    NATURAL_TINT,
    SPRITE_SIZE,
    SUBJECTS,
    TINTS,
    VARIANTS,
    Scene,
    Thing,
    sample_scene,
)
from diffalign.world.sprites import load_sprites
from recipes.world.data import LONG_TAIL, near_miss, scene_batch


def test_there_is_a_sprite_of_each_subject_in_each_colour():
    sprites = load_sprites()
    assert set(sprites) == {(subject, tint) for subject in SUBJECTS for tint in (None, *TINTS)}
    for colour, opacity in sprites.values():
        assert colour.shape == (SPRITE_SIZE, SPRITE_SIZE, 3) and opacity.shape == (
            SPRITE_SIZE,
            SPRITE_SIZE,
            1,
        )
        assert colour.min() >= 0 and colour.max() <= 1
        assert 0.3 < opacity.mean() < 0.9


def test_backgrounds_differ_from_each_other():
    pictures = list(backgrounds().items())
    assert len(pictures) == len(BACKGROUNDS) * VARIANTS
    for i, (_, a) in enumerate(pictures):
        assert a.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and a.dtype == np.float32
        assert a.min() >= 0 and a.max() <= 1
        for _, b in pictures[:i]:
            assert np.square(a - b).mean() > 1e-4


def test_a_thing_changes_only_its_own_box():
    empty = render(Scene((), "moon", 1))
    drawn = render(Scene((Thing("dog", "green", 12, 28),), "moon", 1))
    changed = np.abs(drawn - empty).max(2) > 0
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 28 and rows.max() < 28 + SPRITE_SIZE
    assert columns.min() >= 12 and columns.max() < 12 + SPRITE_SIZE
    colour, opacity = load_sprites()["dog", "green"]
    solid = opacity[..., 0] == 1
    assert solid.any()
    np.testing.assert_allclose(drawn[28:52, 12:36][solid], colour[solid], atol=1e-6)


def test_rendering_leaves_the_backgrounds_as_they_are():
    before = backgrounds()["grass", 0].copy()
    render(Scene((Thing("lion", None, 0, 0),), "grass", 0))
    np.testing.assert_array_equal(backgrounds()["grass", 0], before)


def test_a_scene_without_a_background_is_refused():
    with pytest.raises(ValueError, match="needs a background out of"):
        render(Scene((), None))


@pytest.mark.parametrize("frequencies", [EVEN, LONG_TAIL])
def test_scenes_lie_within_the_picture_and_do_not_overlap(frequencies):
    rng = np.random.default_rng(0)
    for _ in range(300):
        things = sample_scene(rng, frequencies).things
        assert 1 <= len(things) <= 4
        for i, a in enumerate(things):
            assert min(a.x, a.y) >= 0 and max(a.x, a.y) <= IMAGE_SIZE - SPRITE_SIZE
            assert a.tint is None or a.tint != NATURAL_TINT.get(a.subject)
            assert all(max(abs(a.x - b.x), abs(a.y - b.y)) >= SPRITE_SIZE for b in things[:i])


def test_a_batch_depends_on_its_seed_alone():
    scenes, pictures, captions = scene_batch(np.random.default_rng(5), 6, EVEN)
    again, same, words = scene_batch(np.random.default_rng(5), 6, EVEN)
    other, _, _ = scene_batch(np.random.default_rng(6), 6, EVEN)
    assert scenes == again and captions == words and pictures.equal(same)
    assert scenes != other
    assert pictures.shape == (6, 3, IMAGE_SIZE, IMAGE_SIZE)
    np.testing.assert_array_equal(pictures[2].permute(1, 2, 0), render(scenes[2]))


def test_a_near_miss_looks_different():
    rng = np.random.default_rng(1)
    for _ in range(200):
        scene = sample_scene(rng, EVEN)
        missed = near_miss(scene, rng)
        assert replace(missed, variant=0) != replace(scene, variant=0)
        assert np.abs(render(missed) - render(scene)).max() > 0.05
