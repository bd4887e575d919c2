"""The registry of rewards and the check of what they return."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import REWARDS, RewardError, component_means, load_reward, score
from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import Scene, Thing

DOG = Scene((Thing("dog", "green", 20, 20),), "grass")
CAT = Scene((Thing("cat", None, 20, 20),), "snow")
IMAGES = to_tensor([render(DOG), render(CAT)])
PROMPTS = ["a green dog on the grass"] * 2


WORLD = [name for name in REWARDS if name.startswith("world")]


@pytest.mark.parametrize("name", WORLD)
def test_the_world_s_rewards_prefer_the_picture_of_the_prompt(name: str) -> None:
    right, wrong = score(load_reward(name), IMAGES, PROMPTS)
    assert right > wrong


@pytest.mark.parametrize("name", [*WORLD, "jpeg-compressibility"])
def test_rewards_score_each_picture_alone(name: str) -> None:
    reward = load_reward(name)
    apart = torch.cat([score(reward, IMAGES[i : i + 1], PROMPTS[:1]) for i in range(2)])
    torch.testing.assert_close(score(reward, IMAGES, PROMPTS), apart, atol=1e-4, rtol=1e-5)


def test_a_reward_that_changes_its_pictures_changes_a_copy() -> None:
    images = IMAGES.clone()
    score(lambda pictures, prompts: pictures.zero_().mean((1, 2, 3)), images, PROMPTS)
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("great", [3e38, -1e17])
def test_rewards_too_great_to_compute_with_are_named(great: float) -> None:
    def huge(images: Tensor, prompts: list[str]) -> Tensor:
        return torch.tensor([0.0, great])

    with pytest.raises(RewardError, match=r"the reward huge returned .*scale it down"):
        score(huge, IMAGES, PROMPTS)


B = len(PROMPTS)
NUMBERS = torch.arange(B, dtype=torch.float32)


@pytest.mark.parametrize(
    "returned",
    [
        list(NUMBERS.clone().requires_grad_()),
        NUMBERS.clone().requires_grad_(),
        NUMBERS.bfloat16(),
        NUMBERS.numpy()[::-1].copy()[::-1],
        NUMBERS.numpy().astype(">f8"),
        tuple(NUMBERS.tolist()),
    ],
)
def test_numbers_are_taken_however_they_come(returned: Any) -> None:
    assert torch.equal(score(lambda images, prompts: returned, IMAGES, PROMPTS), NUMBERS)


@pytest.mark.parametrize(
    "returned",
    [
        [10**400] * B,
        NUMBERS.to_sparse(),
        NUMBERS.to("meta"),
        NUMBERS * 1j,
        NUMBERS.numpy() * 1j,
        [1j] * B,
        (number for number in range(B)),
    ],
)
def test_what_is_no_numbers_is_refused_in_a_line(returned: Any) -> None:
    with pytest.raises(RewardError, match=r"the reward <lambda> returned a \w+, not B numbers"):
        score(lambda images, prompts: returned, IMAGES, PROMPTS)


def test_only_a_sum_has_components() -> None:
    class Own:
        components = 3

    assert component_means(Own()) == {}  # type: ignore[arg-type]


def test_a_network_that_overflows_is_told_its_precision() -> None:
    class Half:
        dtype = torch.float16

        def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
            return torch.tensor([0.0, torch.inf])

    with pytest.raises(RewardError, match="returned inf for picture 1 of 2; compute it in float32"):
        score(Half(), IMAGES, PROMPTS)


def test_unknown_rewards_are_named() -> None:
    with pytest.raises(RewardError, match="did you mean 'world-clip'"):
        load_reward("world-clap")
    with pytest.raises(RewardError, match=r"unknown reward .clp.*did you mean .clip"):
        load_reward("clp@http://host/folder")
    with pytest.raises(RewardError, match="cannot import"):
        load_reward("no_such_module:reward")
    with pytest.raises(RewardError, match="has no 'nothing'"):
        load_reward("math:nothing")
    with pytest.raises(RewardError, match="a reward is a function"):
        load_reward("math:pi")


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    for module in ("remote", "connection"):
        monkeypatch.delitem(sys.modules, f"diffalign.rewards.{module}", raising=False)
    with pytest.raises(RewardError, match=r"httpx2.*pip install 'diffalign\[rewards\]'"):
        load_reward("remote@http://127.0.0.1:1")


def test_own_reward_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_reward_module.py").write_text(
        "def brightness(images, prompts):\n    return images.mean((1, 2, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    values = score(load_reward("own_reward_module:brightness"), IMAGES, PROMPTS)
    torch.testing.assert_close(values, IMAGES.mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def reward(:", "SyntaxError"),
        ("raise OSError('no weights')", "OSError: no weights"),
        ("import math\nmath.nothing", "AttributeError: module 'math'"),
        ("class reward:\n    def __init__(self, scale): ...", "TypeError"),
    ],
)
def test_a_module_that_fails_is_said(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_reward_module.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_reward_module", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(RewardError, match=message):
        load_reward("failing_reward_module:reward")


def test_lists_and_arrays_are_rewards_too() -> None:
    def listed(images: Tensor, prompts: list[str]) -> list[float]:
        return [1.0, 2.0]

    assert score(listed, IMAGES, PROMPTS).tolist() == [1.0, 2.0]
    assert score(lambda images, prompts: np.array([3, 4]), IMAGES, PROMPTS).tolist() == [3.0, 4.0]


def test_rewards_of_trl_and_ddpo_pytorch_are_taken() -> None:
    def rewarded(images: Tensor, prompts: list[str], metadata: Any) -> tuple[Tensor, dict[str, str]]:
        assert len(metadata) == len(prompts) == 2
        return images.mean((1, 2, 3)), {}

    torch.testing.assert_close(score(rewarded, IMAGES, PROMPTS), IMAGES.mean((1, 2, 3)))


def test_a_function_of_no_argument_makes_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_reward_module.py").write_text(
        "def jpeg():\n"
        "    def _fn(images, prompts, metadata):\n"
        "        return images.mean((1, 2, 3)), {}\n"
        "    return _fn\n"
    )
    monkeypatch.chdir(tmp_path)
    values = score(load_reward("made_reward_module:jpeg"), IMAGES, PROMPTS)
    torch.testing.assert_close(values, IMAGES.mean((1, 2, 3)))


def test_pictures_are_pil_on_request() -> None:
    def widths(images: list[Image.Image], prompts: list[str]) -> list[int]:
        return [image.width for image in images]

    widths.pictures = "pil"  # type: ignore[attr-defined]
    assert score(widths, IMAGES[..., :20], PROMPTS).tolist() == [20, 20]
    videos = IMAGES[:, None].expand(-1, 3, -1, -1, -1)

    def frames(images: list[list[Image.Image]], prompts: list[str]) -> list[int]:
        return [len(video) for video in images]

    frames.pictures = "pil"  # type: ignore[attr-defined]
    assert score(frames, videos, PROMPTS).tolist() == [3, 3]


def test_what_a_reward_is_given_and_must_return_is_said() -> None:
    with pytest.raises(RewardError, match=r"returned None; it must return a number for each picture"):
        score(lambda images, prompts: None, IMAGES, PROMPTS)  # type: ignore[arg-type,return-value]
    with pytest.raises(RewardError, match="raised AttributeError") as raised:
        score(lambda images, prompts: [image.width for image in images], IMAGES, PROMPTS)
    assert "tensors (B, 3, H, W)" in raised.value.__notes__[0]
