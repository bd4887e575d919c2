"""Clips: what is drawn, what is said of it, and what the judge reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffalign.world.clips import FRAMES, MOTIONS, STEP, Clip, motion_of
from diffalign.world.grammar import PromptError, parse
from diffalign.world.judge import judge
from diffalign.world.scenes import EVEN, IMAGE_SIZE, SPRITE_SIZE, Scene, Thing
from recipes.world.data import CLIPS, clip_batch, sample_clip

EVEN_CLIPS = replace(EVEN, arrangement=(1, 0, 0, 0, 0))


def places(motion: str, step: int = STEP) -> list[tuple[int, int, int]]:
    """Of a thing that begins at (24, 24)."""
    x, y = MOTIONS[motion]
    return [(i, 24 + step * x * (i // 2), 24 + step * y * (i // 2)) for i in range(FRAMES)]


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_moves_as_it_says(motion: str) -> None:
    clip = Clip(Scene((Thing("dog", None, 24, 24),), "plain"), motion)
    things = [scene.things[0] for scene in clip.scenes()]
    assert [(i, thing.x, thing.y) for i, thing in enumerate(things)] == places(motion)
    assert motion_of(places(motion), FRAMES) == motion


@pytest.mark.parametrize("even", [True, False])
def test_clips_stay_in_the_picture(even: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        for scene in sample_clip(rng, CLIPS, even).scenes():
            (thing,) = scene.things
            assert min(thing.x, thing.y) >= 0 and max(thing.x, thing.y) <= IMAGE_SIZE - SPRITE_SIZE


def test_a_slow_or_slanting_path_is_no_motion() -> None:
    assert motion_of(places("right", 3), FRAMES) is None  # 9 pixels in all: less than half of the way
    assert motion_of([(i, 20 + 4 * i, 20 + 3 * i) for i in range(FRAMES)], FRAMES) is None
    assert motion_of([(i, 20 + i % 2, 20) for i in range(FRAMES)], FRAMES) == "still"
    assert motion_of(places("up")[:3], FRAMES) is None  # of a thing seen in three frames
    assert motion_of(places("up")[::2], FRAMES) == "up"
    assert motion_of([], FRAMES) is None


@pytest.mark.parametrize("even", [True, False])
def test_the_judge_reads_what_was_drawn(even: bool) -> None:
    rng = np.random.default_rng(5)
    _, video, captions = clip_batch(rng, 24, EVEN_CLIPS if even else CLIPS, even)
    verdict, graded = judge(video, captions)
    assert verdict.all() and graded.eq(1).all()
    wrong, _ = judge(video[1:], captions[:-1])
    assert wrong.float().mean() < 0.1


@pytest.mark.parametrize("motion", MOTIONS)
def test_each_condition_has_its_share(motion: str) -> None:
    phrases = {"right": "moving from left to right", "up": "moving up", "still": "standing still"}
    clip = Clip(Scene((Thing("dog", "blue", 6, 6),), "snow"), motion)
    clip = replace(clip, scene=replace(clip.scene, things=(Thing("dog", "blue", 20, 20),)))
    for asked, phrase in phrases.items():
        held = parse(f"a blue dog {phrase} on the snow", video=True).check_video(clip.scenes())
        assert held == [True] * 5 + [asked == motion]
    held = parse("a red dog", video=True).check_video(clip.scenes())
    assert held == [True, False, False, True]


def test_a_condition_must_hold_in_most_frames() -> None:
    frames = Clip(Scene((Thing("dog", None, 6, 20),), "plain"), "right").scenes()
    cat = replace(frames[0], things=(Thing("cat", None, 20, 20),))
    request = parse("a dog moving from left to right", video=True)
    assert all(request.check_video([*frames[:6], cat, cat]))
    assert request.check_video([*frames[:5], cat, cat, cat])[0] is False


def test_noise_is_no_video_and_a_picture_shows_no_motion() -> None:
    noise = torch.rand(2, FRAMES, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    verdict, graded = judge(noise, ["a dog moving up", "a cat standing still"])
    assert not verdict.any() and graded.max() == 0
    with pytest.raises(PromptError, match="which no picture shows"):
        judge(noise[:, 0], ["a dog moving up", "a dog"])
