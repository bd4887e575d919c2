"""What one should know before a run, said once."""

from typing import Any

import pytest

from diffalign.run import loading
from diffalign.run.loading import make_setup


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (["a red dog"], None),
        (["a red dog", "a cat"], None),
        (["字 " * 3000], "no judge for this prompt: the embedded world cannot read '字"),
        (["a red dog", "x", "y"], "no judge for 2 of 3 prompts: the embedded world cannot read 'x'"),
    ],
)
def test_prompts_without_a_judge(
    prompts: list[str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "check_pictures", lambda *_: None)
    monkeypatch.setattr(loading, "try_out", lambda *_: None)
    sampler: Any = None
    setup = make_setup(
        sampler, lambda images, texts: images, lambda model: None, "world", "r", "auto", prompts
    )
    if said is None:
        assert setup.warnings == () and set(setup.judges) == set(prompts)
    else:
        (warning,) = setup.warnings
        assert warning.startswith(said) and len(warning) < 350
