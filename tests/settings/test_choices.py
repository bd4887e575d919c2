import pytest

from diffalign.settings.choices import unknown

REWARDS = ("aesthetic", "clip", "image-reward")
CHOICES = "choose one of: aesthetic, clip, image-reward"


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ("clipp", {}, f"unknown reward 'clipp'; {CHOICES} (did you mean 'clip'?)"),
        ("zzz", {}, f"unknown reward 'zzz'; {CHOICES}"),
        ("zzz", {"alternative": "or a file"}, f"unknown reward 'zzz'; {CHOICES}, or a file"),
        ("clipp", {"hint": "no blanks"}, f"unknown reward 'clipp'; {CHOICES} (no blanks)"),
        ("clipp", {"hint": ""}, f"unknown reward 'clipp'; {CHOICES}"),
    ],
)
def test_a_mistyped_name_gets_the_choices_and_the_nearest(
    given: str, more: dict[str, str], message: str
) -> None:
    assert unknown("reward", given, REWARDS, **more) == message


def test_names_may_be_an_iterator() -> None:
    assert unknown("reward", "clipp", iter(REWARDS)).endswith(f"{CHOICES} (did you mean 'clip'?)")
