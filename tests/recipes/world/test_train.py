"""The recipe's loop on a tiny stage, and its command."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffalign.world import WORLD_FOLDER
from recipes.world import train
from recipes.world.stages import STAGES
from recipes.world.stages.stage import Stage

ROOT = Path(__file__).parents[3]


class Line(Stage):
    """Fits a line; each batch depends on its number alone."""

    name = "line"
    steps = 400
    learning_rate = 0.05

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.from_numpy(self.batch_generator(step).normal(size=(16, 3)).astype(np.float32))
        noise = 0.01 * torch.randn(16)  # from the global generator, which the loop seeds
        return (self.model(x)[:, 0] - x.sum(1) + noise).square().mean(), {}

    def picture(self) -> torch.Tensor:
        return self.model.weight.detach().view(1, 1, 3).expand(3, 2, 3)


class Kill(BaseException):
    """Ends training from within."""


def test_training_reduces_the_loss_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    train.run_stage(Line(), tmp_path / "whole", threads=1)

    class Killed(Line):
        def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == 133:
                raise Kill
            return super().loss(step)

    with pytest.raises(Kill):
        train.run_stage(Killed(), tmp_path / "parts", threads=1)
    train.run_stage(Line(), tmp_path / "parts", threads=1)
    for name in ("checkpoint.safetensors", "ema.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    weight = load_file(tmp_path / "whole" / "checkpoint.safetensors")["model.weight"]
    torch.testing.assert_close(weight, torch.ones(1, 3), atol=0.15, rtol=0)
    assert (tmp_path / "whole" / "samples.png").exists()


def test_the_command_of_the_makefile_runs_from_the_root(tmp_path: Path) -> None:
    (module,) = re.findall(r"python -m (recipes\S+) --out", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", module, "--out", str(tmp_path), "--stage", "unpack"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert {folder.name for folder in tmp_path.iterdir()} == set(STAGES) - {
        "refine",
        "flow",
        "video",
    }
    unpacked = load_file(tmp_path / "vae" / "ema.safetensors")
    shipped = load_file(WORLD_FOLDER / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(unpacked[name], shipped[name]) for name in shipped)
