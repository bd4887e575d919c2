"""All rewards load and score in one environment and one process."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign.rewards import REWARDS, load_reward, score
from diffalign.rewards.remote import TOKEN
from diffalign.rewards.server import RewardServer

from .test_vlm import Faulty
from .tiny import (
    pictures,
    save_aesthetic,
    save_clip,
    save_hps,
    save_image_reward,
    save_llava,
    save_viclip,
)

NETWORKS: dict[str, Callable[[Path], Any]] = {
    "clip": save_clip,
    "pickscore": save_clip,
    "hps": save_hps,
    "image-reward": save_image_reward,
    "aesthetic": save_aesthetic,
    "bert-score": save_llava,
    "viclip": save_viclip,
    "frame-consistency": save_clip,
}
SERVED = ("remote", "vlm")
VIDEO = ("frame-consistency",)  # of pictures they say nothing
PROMPTS = ["a blue car", "three dogs on the moon", "a cat"]


def shown(name: str, *size: int) -> torch.Tensor:
    """Pictures, or videos of two frames where a reward reads nothing else."""
    images = pictures(*size)
    return torch.stack([images, images.flip(0)], 1) if name in VIDEO else images


def test_every_reward_runs_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "secret")
    remote, judge = RewardServer(load_reward("jpeg-compressibility"), "secret"), Faulty([])
    names = {name: name for name in REWARDS if name not in NETWORKS}
    names |= {"remote": f"remote@{remote.url}", "vlm": f"vlm@{judge.url}#judge"}
    for name, save in NETWORKS.items():
        save(tmp_path / name)
        names[name] = f"{name}@{tmp_path / name}"
    for server in (remote, judge):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        rewards = {name: load_reward(full) for name, full in names.items()}
        assert rewards.keys() == REWARDS.keys()
        once = {name: score(reward, shown(name, 3, 64), PROMPTS) for name, reward in rewards.items()}
        for name, reward in rewards.items():  # all are loaded; none changed another
            torch.testing.assert_close(score(reward, shown(name, 3, 64), PROMPTS), once[name])
    finally:
        remote.close()
        judge.shutdown()
        judge.server_close()


@pytest.mark.parametrize("name", ["clip", "pickscore", "hps", "image-reward", "aesthetic"])
def test_half_precision_makes_no_ties(name: str, tmp_path: Path) -> None:
    NETWORKS[name](tmp_path)
    near = pictures(1) + 0.02 * torch.randn(40, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    reward = type(load_reward(f"{name}@{tmp_path}"))(tmp_path, dtype=torch.float16)  # type: ignore[call-arg]
    assert len(set(score(reward, near.clamp(0, 1), ["a cat"] * 40).tolist())) >= 38


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_and_offload(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NETWORKS[name](tmp_path)
    whole = load_reward(f"{name}@{tmp_path}")
    halved = type(whole)(tmp_path, dtype=torch.bfloat16, offload=True, batch_size=2)  # type: ignore[call-arg]
    precise = (*halved.precise, "logit_scale")  # type: ignore[attr-defined]
    for part, parameter in halved.network.named_parameters():  # type: ignore[attr-defined]
        expected = torch.float32 if part.startswith(precise) else torch.bfloat16
        assert parameter.dtype == expected, part
    moved: list[str] = []
    to = halved.network.to  # type: ignore[attr-defined]
    monkeypatch.setattr(halved.network, "to", lambda place: [moved.append(str(place)), to(place)][1])  # type: ignore[attr-defined]
    if name == "bert-score":  # in which one other word may lead to another description
        halved.describe = whole.describe  # type: ignore[attr-defined]
    near, exact = score(halved, shown(name), PROMPTS), score(whole, shown(name), PROMPTS)
    torch.testing.assert_close(near, exact, rtol=0.1, atol=0.1 if name != "image-reward" else 0.5)
    assert moved == [str(halved.device), "cpu"]  # type: ignore[attr-defined]


def test_a_reward_is_imported_when_it_is_asked_for() -> None:
    modules = sorted({row.factory.partition(":")[0] for row in REWARDS.values()})
    script = f"""
import importlib, sys, diffalign.rewards
print({{'transformers', 'bert_score', 'httpx2'}} & sys.modules.keys() or 'light')
for name in {modules}:
    importlib.import_module(name)
print('torchvision' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["light", "False"]
