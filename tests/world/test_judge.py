from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffalign.world.grammar import PromptError, parse
from diffalign.world.judge import judge, read_scenes
from diffalign.world.render import backgrounds, render, to_tensor
from diffalign.world.scenes import EVEN, Scene, Thing
from diffalign.world.sprites import load_sprites
from recipes.world.data import LONG_TAIL, near_miss, scene_batch


def contents(scene):
    return Counter((thing.subject, thing.tint) for thing in scene.things), scene.background


def agreement(pictures, scenes):
    read = [scene for chunk in pictures.split(32) for scene in read_scenes(chunk)]
    return np.mean([contents(a) == contents(b) for a, b in zip(read, scenes, strict=True)])


def blur(pictures, sigma):
    reach = torch.arange(-4, 5)
    kernel = torch.exp(-reach.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
    padded = F.pad(pictures, (4, 4, 4, 4), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


def noisy(pictures, sigma):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(2))
    return (pictures + sigma * noise).clamp(0, 1)


def shifted(pictures):
    return F.pad(pictures[:, :, :-1, :-1], (1, 0, 1, 0), mode="replicate")


def picture(*things, background="plain", variant=0):
    return to_tensor([render(Scene(tuple(Thing(*thing) for thing in things), background, variant))])


@pytest.fixture(scope="module")
def held_out():
    return scene_batch(np.random.default_rng(20_251), 64, EVEN)


@pytest.mark.parametrize("frequencies", [EVEN, LONG_TAIL])
def test_judge_agrees_with_the_renderer(frequencies):
    scenes, pictures, captions = scene_batch(np.random.default_rng(77), 128, frequencies)
    assert agreement(pictures, scenes) >= 0.99
    verdict, score = judge(pictures[:32], captions[:32])
    assert verdict.float().mean() >= 0.99
    assert score[verdict].eq(1).all()


def test_places_are_read_to_the_pixel(held_out):
    scenes, pictures, _ = held_out
    for read, scene in zip(read_scenes(pictures[:32]), scenes, strict=False):
        assert set(read.things) == set(scene.things)


def test_near_misses_are_read_for_what_they_are():
    rng = np.random.default_rng(4)
    scenes, _, captions = scene_batch(rng, 64, EVEN)
    missed = [near_miss(scene, rng) for scene in scenes]
    pictures = to_tensor([render(scene) for scene in missed])
    assert agreement(pictures, missed) >= 0.99
    verdict, score = judge(pictures, captions)
    held = [parse(text).check(scene) for text, scene in zip(captions, missed, strict=True)]
    assert verdict.tolist() == [all(conditions) for conditions in held]
    torch.testing.assert_close(score, torch.tensor([np.mean(conditions) for conditions in held]).float())
    assert not verdict.all()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: blur(p, 0.8),
        lambda p: blur(p, 1.0),
        lambda p: noisy(p, 0.04),
        lambda p: noisy(blur(p, 1.0), 0.04),
        lambda p: 0.93 * p + 0.03,
        shifted,
    ],
    ids=["blur 0.8", "blur 1", "noise", "blur and noise", "contrast", "one pixel off"],
)
def test_judge_bears_what_decoders_do(held_out, change):
    scenes, pictures, _ = held_out
    assert agreement(change(pictures), scenes) >= 0.97


def empty_pictures():
    draw = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    corners = torch.rand(16, 3, 2, 2, generator=draw)
    patches = torch.rand(16, 3, 8, 8, generator=draw)
    return {
        "uniform noise": torch.rand(16, 3, 64, 64, generator=draw),
        "gaussian noise": (0.5 + 0.25 * torch.randn(16, 3, 64, 64, generator=draw)).clamp(0, 1),
        "white, grey, black": torch.tensor([1, 0.5, 0])[:, None, None, None].expand(3, 3, 64, 64),
        "ramps": torch.stack([ramp, ramp.mT]),
        "gradients": F.interpolate(corners, (64, 64), mode="bilinear", align_corners=True),
        "clouds": F.interpolate(patches, (64, 64), mode="bicubic").clamp(0, 1),
        "backgrounds": to_tensor(list(backgrounds().values())),
    }


@pytest.mark.parametrize("name", empty_pictures())
def test_nothing_is_read_where_nothing_is(name):
    assert [scene.things for scene in read_scenes(empty_pictures()[name]) if scene.things] == []


def test_backgrounds_are_named_and_noise_has_none():
    assert [scene.background for scene in read_scenes(empty_pictures()["backgrounds"])] == [
        name for name, _ in backgrounds()
    ]
    assert {scene.background for scene in read_scenes(empty_pictures()["uniform noise"])} == {None}


@pytest.mark.parametrize("tint", ["red", "green", "blue", "purple"])
def test_a_coloured_blob_is_no_thing(tint):
    colour = load_sprites()["pig", tint][0].mean((0, 1))
    rows, columns = np.mgrid[0:64, 0:64]
    disc = 1 / (1 + np.exp(np.hypot(rows - 30, columns - 34) - 11))[..., None]
    blobs = [(1 - disc) * back + disc * colour for back in backgrounds().values()]
    scenes = read_scenes(to_tensor([blob.astype(np.float32) for blob in blobs]))
    assert [scene.things for scene in scenes if scene.things] == []


@pytest.mark.parametrize("subject", ["dog", "panda", "lion", "apple", "car", "ball"])
def test_a_smeared_sprite_is_no_thing(subject):
    smeared = blur(blur(picture((subject, "blue", 20, 24), background="snow"), 4), 4)
    assert read_scenes(smeared)[0].things == ()


@pytest.mark.parametrize("subject", ["dog", "cat", "panda", "rabbit", "frog", "pig", "apple", "ball"])
def test_half_a_sprite_is_not_the_whole(subject):
    whole = picture((subject, None, 20, 20), background="grass")
    half = torch.where(torch.arange(64) < 32, whole, picture(background="grass"))
    other = torch.where(
        torch.arange(64) < 32, whole, picture((subject, "purple", 20, 20), background="grass")
    )
    verdict, _ = judge(torch.cat([whole, half, other]), [f"a {subject} on the grass"] * 3)
    assert verdict.tolist() == [True, False, False]


def test_scores_worked_by_hand():
    pictures = torch.cat(
        [
            picture(("dog", "green", 20, 24), background="grass"),
            picture(("dog", None, 20, 24), background="grass"),
            picture(("dog", None, 0, 24), ("cat", None, 40, 24)),
            torch.full((1, 3, 64, 64), 0.5),
        ]
    )
    prompts = ["a green dog on the grass", "a green dog on the grass", "a cat on the left of a dog", "a dog"]
    verdict, score = judge(pictures, prompts)
    assert verdict.tolist() == [True, False, False, False]
    assert verdict.dtype == torch.bool and score.dtype == torch.float32
    # of: there, colour, count, background, nothing else; twice there and count, relation, nothing else
    torch.testing.assert_close(score, torch.tensor([1, 3 / 5, 5 / 6, 0]))


def test_a_picture_is_judged_alike_in_any_batch(held_out):
    _, pictures, _ = held_out
    together = read_scenes(pictures[:8])
    assert [read_scenes(one[None])[0] for one in pictures[:8]] == together
    assert read_scenes(pictures[:8].double()) == together


def test_no_pictures_and_broken_pixels():
    assert read_scenes(torch.empty(0, 3, 64, 64)) == []
    verdict, score = judge(torch.empty(0, 3, 64, 64), [])
    assert verdict.shape == score.shape == (0,)
    assert read_scenes(torch.full((1, 3, 64, 64), torch.nan))[0].things == ()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"have shape \(B, 3, 64, 64\), not \(1, 3, 32, 32\)"):
        read_scenes(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="2 pictures but 1 prompts"):
        judge(torch.zeros(2, 3, 64, 64), ["a dog"])
    with pytest.raises(PromptError):
        judge(torch.zeros(1, 3, 64, 64), ["a house"])
