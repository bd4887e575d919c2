"""A method that nobody listed: a learner and a row, and it has loop, resume, tracker, checks and report."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.artifacts import RunFolder
from diffalign.cli.learn import make_command
from diffalign.files import load_tensors, save_tensors
from diffalign.learners.contract import Learner, Request, Update
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import Rollout, collect
from diffalign.settings.evaluation import HeldOutEvaluation
from diffalign.settings.fields import Positive, Settings
from diffalign.settings.methods import METHODS, Method
from diffalign.settings.sampling import Sampling


@dataclass(frozen=True)
class ShiftConfig(Settings):
    """How a shift is learned.

    Attributes:
        rounds: How many rounds there are.
        samples: How many pictures a round makes.
        seed: The seed of everything.
    """

    rounds: Positive = 4
    samples: Positive = 3
    seed: int = 0

    @property
    def queries(self) -> int:
        return self.rounds * self.samples


class ShiftLearner(Learner):
    """Hill climbing: moves the mean of all noise to that of a round whose pictures earned more."""

    learned = "shifted noise"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shift, self.best = torch.zeros(()), torch.tensor(-torch.inf)

    @property
    def queries(self) -> int:
        return self.rounds * self.config.samples

    def ask(self) -> Request:
        numbers = range(self.queries, self.queries + self.config.samples)
        return Request(numbers, (self.prompts[0],) * len(numbers))

    def sample(self, request: Request) -> Iterator[Rollout]:
        proposal = self.noise("", self.shift + 0.1 * (self.rounds % 3 - 1))
        seed = self.config.seed
        yield collect(proposal, self.environment, request.prompts[0], request.groups, seed=seed)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        if rewards.mean() > self.best:
            self.best, self.shift = rewards.mean(), self.shift + 0.1 * (self.rounds % 3 - 1)
        self.rounds += 1
        forwards = len(rewards) * self.environment.forwards
        return Update(rollout.prompts, rewards, forwards, figures={"shift": float(self.shift)})

    def noise(self, prompt: str, shift: Tensor | None = None) -> NoiseDistribution:
        latent = self.environment.latent_shape
        mean = torch.zeros(latent) + (self.shift if shift is None else shift)
        return NoiseDistribution(mean, torch.ones(latent), latent)

    def tensors(self) -> dict[str, Tensor]:
        return {"shift": self.shift, "best": self.best}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        self.shift, self.best = tensors["shift"], tensors["best"]

    def result(self) -> NoiseDistribution:
        return self.noise("")

    def save(self, folder: Path) -> Path:
        save_tensors(folder / "shift.safetensors", {"shift": self.shift}, self.metadata, "toy/1")
        return folder / "shift.safetensors"


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be the same after an interruption."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    del summary["run"]["command"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"], row["sampling_seconds"]
    tensors, metadata = load_tensors(folder / "shift.safetensors", "toy/1")
    return {"summary": summary, "rows": rows, "shift": float(tensors["shift"]), "metadata": metadata}


def test_a_learner_and_a_row_are_a_method(
    workplace: Path, tiny_pipeline_folder: Path, tracked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import own_reward

    module: Any = ModuleType("toy_shift")
    module.build = ShiftLearner
    monkeypatch.setitem(sys.modules, "toy_shift", module)
    row = Method({"default": ShiftConfig()}, HeldOutEvaluation, False, "toy_shift", "Shift.\n")
    monkeypatch.setitem(METHODS, "shift", row)  # type: ignore[arg-type]
    monkeypatch.setattr("diffalign.run.session.SAVE_EVERY", 0.0)

    command = make_command("shift", row)
    given: dict[str, Any] = {
        "reward": "own_reward:red",
        "sampling": Sampling(str(tiny_pipeline_folder), num_steps=2),
        "evaluation": HeldOutEvaluation(
            images=2, check_every=2, check_images=2, keep=1, tracker="own", baselines=True
        ),
    }
    assert command("a dog", out=Path("whole"), **given) == 0
    _, settings, *rounds, last = tracked
    assert settings["method"] == "shift" and last == "finished"
    seen = [(step, "shift" in values, "held_out/reward" in values) for step, values in rounds]
    assert seen == [(i, True, i in (1, 2, 4)) for i in (1, 2, 3, 4)]
    whole = outcome(Path("whole"))
    assert set(whole["summary"]["rows"]) == {"baseline", "tuned", "best_of_n"}
    assert [bool(line.get("held_out")) for line in whole["rows"]] == [True, True, False, True]
    assert [file.name for file in Path("whole/checkpoints").iterdir()] == ["round-00004"]
    assert Path("whole/checkpoints/round-00004/shift.safetensors").is_file()
    for name in ("before_after.png", "reward_curve.png", "report.html"):
        assert Path("whole", name).stat().st_size > 1000
    assert "4 rounds, 12 reward queries" in Path("whole/report.html").read_text()

    own_reward.calls, own_reward.fail_at, own_reward.failure = 0, 4, None  # in the third round
    with pytest.raises(KeyboardInterrupt):
        command("a dog", out=Path("stopped"), **given)
    assert 0 < len(RunFolder(Path("stopped")).metrics()) < 4
    own_reward.fail_at = None
    assert command(resume="stopped") == 0
    assert outcome(Path("stopped")) == whole
