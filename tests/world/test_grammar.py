import numpy as np
import pytest

from diffalign.world.grammar import Group, PromptError, Request, caption, parse
from diffalign.world.scenes import EVEN, Scene, Thing, relations_between, sample_scene
from recipes.world.data import LONG_TAIL


def scene(*things, background="plain"):
    return Scene(tuple(Thing(*thing) for thing in things), background)


@pytest.mark.parametrize(
    ("prompt", "request_"),
    [
        ("a dog", Request((Group("dog", None, 1),), None, None)),
        ("A green dog on the grass.", Request((Group("dog", "green", 1),), None, "grass")),
        ("four pandas", Request((Group("panda", None, 4),), None, None)),
        ("an  alien on the moon", Request((Group("alien", None, 1),), None, "moon")),
        ("a red apple", Request((Group("apple", None, 1, natural=True),), None, None)),
        (
            "a red apple on the left of a car on the street",
            Request((Group("apple", None, 1, natural=True), Group("car", None, 1)), "left", "street"),
        ),
        (
            "two blue cats below a lion",
            Request((Group("cat", "blue", 2), Group("lion", None, 1)), "below", None),
        ),
        ("a panda walking up", Request((Group("panda", None, 1),), None, None, "up")),
        (
            "a blue car moving from left to right on the snow",
            Request((Group("car", "blue", 1),), None, "snow", "right"),
        ),
        ("a pig standing still", Request((Group("pig", None, 1),), None, None, "still")),
    ],
)
def test_parse(prompt, request_):
    assert parse(prompt, video=True) == request_


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a dgo", r"unknown thing 'dgo'; .*\(did you mean 'dog'\?\)"),
        ("a gren dog", r"unknown colour 'gren'; .*\(did you mean 'green'\?\)"),
        ("a dog and a dog", "names one subject twice"),
        ("a dog on the beach", "cannot read 'a dog on the beach'"),
        ("five dogs", "cannot read"),
        ("dog", "cannot read"),
        ("", "cannot read"),
        ("a dog walking up", "names a motion, which no picture shows; take the model world-video"),
        ("a dog moving sideways", "cannot read"),
        ("a dog and a cat moving up", "cannot read"),
    ],
)
def test_parse_says_what_it_cannot_read(prompt, message):
    with pytest.raises(PromptError, match=message):
        parse(prompt)


def test_a_video_moves_one_thing():
    with pytest.raises(PromptError, match="names a motion of several things"):
        parse("two dogs moving up", video=True)
    assert parse("two dogs", video=True).motion is None
    with pytest.raises(PromptError, match=r"such as .*'a dog moving up'"):
        parse("a dog moves up", video=True)


@pytest.mark.parametrize("frequencies", [EVEN, LONG_TAIL])
def test_a_caption_is_true_of_its_scene(frequencies):
    rng = np.random.default_rng(3)
    for _ in range(300):
        drawn = sample_scene(rng, frequencies)
        text = caption(drawn, rng, frequencies)
        assert all(parse(text).check(drawn)), text


DOG, CAT = ("dog", None, 0, 20), ("cat", None, 40, 20)


@pytest.mark.parametrize(
    ("prompt", "shown", "held"),
    [
        # there, its count, nothing else
        ("a dog", scene(DOG), [True, True, True]),
        ("a dog", scene(), [False, False, False]),
        ("a dog", scene(DOG, CAT), [True, True, False]),
        ("two dogs", scene(DOG), [True, False, True]),
        # there, its colour, its count, nothing else
        ("a green dog", scene(DOG), [True, False, False, True]),
        ("a green dog", scene(("dog", "green", 0, 0)), [True, True, True, True]),
        ("a green dog", scene(("dog", "green", 0, 40), DOG), [True, True, True, False]),
        ("a red apple", scene(("apple", "green", 0, 0)), [True, False, False, True]),
        ("an apple", scene(("apple", "green", 0, 0)), [True, True, True]),
        # both groups, the relation, nothing else
        ("a dog on the left of a cat", scene(DOG, CAT), [True, True, True, True, True, True]),
        ("a cat on the left of a dog", scene(DOG, CAT), [True, True, True, True, False, True]),
        ("a dog above a cat", scene(DOG, CAT), [True, True, True, True, False, True]),
        ("a dog and a cat", scene(DOG), [True, True, False, False, True]),
        # the background
        ("a dog on the moon", scene(DOG, background="moon"), [True, True, True, True]),
        ("a dog on the moon", scene(DOG, background=None), [True, True, False, True]),
    ],
)
def test_check_worked_by_hand(prompt, shown, held):
    assert parse(prompt).check(shown) == held


@pytest.mark.parametrize(
    ("dx", "dy", "relations"),
    [(30, 0, {"left"}), (-30, 8, {"right"}), (0, 30, {"above"}), (4, -30, {"below"}), (8, 8, set())],
)
def test_relations_follow_the_longer_axis(dx, dy, relations):
    assert relations_between(Thing("dog", None, 30, 30), Thing("cat", None, 30 + dx, 30 + dy)) == relations
