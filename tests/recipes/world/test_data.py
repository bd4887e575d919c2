"""What the recipe's batches hold."""

import numpy as np
import pytest
import torch

from diffalign.world.grammar import caption, parse
from diffalign.world.scenes import EVEN, Scene, Thing, sample_scene
from recipes.world.data import FREQUENCIES, contrast_batch, near_miss, scene_batch, spoil, truth


@pytest.mark.parametrize("name", FREQUENCIES)
def test_captions_are_true_of_their_scenes(name: str) -> None:
    rng = np.random.default_rng(3)
    scenes, images, captions = scene_batch(rng, 200, FREQUENCIES[name])
    assert images.shape == (200, 3, 64, 64)
    for scene, text in zip(scenes, captions, strict=True):
        assert all(parse(text).check(scene)), (text, scene)


def test_captions_tell_a_scene_from_its_near_miss() -> None:
    def holds(described: Scene, shown: Scene) -> bool:
        return all(all(parse(caption(described, rng, EVEN)).check(shown)) for _ in range(16))

    rng = np.random.default_rng(4)
    for _ in range(200):
        scene = sample_scene(rng, EVEN)
        miss = near_miss(scene, rng)
        # "a dog" is true of a green dog too, but "a green dog" is not of a dog
        assert not (holds(scene, miss) and holds(miss, scene)), (scene, miss)


def test_no_caption_is_true_of_a_spoilt_scene() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        scene = sample_scene(rng, EVEN)
        spoilt = spoil(scene, rng)
        assert 1 < len(spoilt.things) <= 5
        # a second one of a kind is "two dogs", which is not what the scene's own captions say
        assert not all(parse(caption(scene, rng, EVEN)).check(spoilt)), (scene, spoilt)


def test_near_misses_are_of_every_kind() -> None:
    rng = np.random.default_rng(8)
    two = Scene((Thing("dog", "red", 0, 0), Thing("cat", "blue", 40, 0)), "grass")
    captions = ["a red dog on the right of a blue cat", "a blue dog and a red cat", "a red dog"]
    captions += ["a red dog and a blue cat on the moon"]
    misses = [near_miss(two, rng) for _ in range(200)]
    assert truth(misses, captions).any(0).all()
    three = [near_miss(Scene(two.things[:1] * 3, "grass"), rng) for _ in range(200)]
    assert truth(three, ["two red dogs on the grass", "four red dogs on the grass"]).any(0).all()
    assert not truth(misses + three, ["a red dog on the left of a blue cat on the grass"]).any()


def test_a_batch_holds_each_scene_with_its_near_misses() -> None:
    pictures, captions, scenes = contrast_batch(np.random.default_rng(7), 12, EVEN, misses=2)
    assert pictures.shape == (12, 3, 64, 64) and len(captions) == 12
    for first, *misses in (scenes[i : i + 3] for i in range(0, 12, 3)):
        assert all(miss != first for miss in misses)


def test_batches_are_seeded() -> None:
    first, second = (contrast_batch(np.random.default_rng(5), 8, EVEN) for _ in range(2))
    assert torch.equal(first[0], second[0]) and first[1] == second[1]
