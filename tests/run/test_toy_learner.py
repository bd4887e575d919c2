"""A new method is a learner and a row: all that a run has, it gets without a line changed elsewhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cyclopts import App
from torch import Tensor

from diffalign import NoiseDistribution, Sampler, load_pipeline, methods, open_artifact
from diffalign.artifacts import RunFolder
from diffalign.cli.learn import make_command
from diffalign.cli.settings import fill, spell_out
from diffalign.diffusion.sampler import seeded_noise
from diffalign.files import ArtifactError
from diffalign.learners.contract import Learner, Request, Update, check_rewards
from diffalign.metrics import embedder
from diffalign.rewards import RewardError, RewardFunction
from diffalign.rollout import Rollout, collect
from diffalign.run import session as sessions
from diffalign.run.asked import Asked
from diffalign.run.conclusion import conclude, count_evaluated
from diffalign.run.session import Session
from diffalign.run.setup import Setup
from diffalign.run.trackers import Tracker
from diffalign.settings.evaluation import FindEvaluation
from diffalign.settings.fields import ConfigError, Positive, PositiveFloat, Seed, Settings
from diffalign.settings.methods import METHODS, Method
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling

# The method


@dataclass(frozen=True)
class ShiftConfig(Settings):
    """How one shift of all the noise is learned.

    Attributes:
        rounds: How many shifts are tried.
        samples: How many pictures each of them is judged by.
        step: How far a try lies from the best shift so far.
        seed: The seed of everything.
    """

    rounds: Positive = 6
    samples: Positive = 4
    step: PositiveFloat = 0.5
    seed: Seed = 0

    @property
    def queries(self) -> int:
        return self.rounds * self.samples


class ShiftLearner(Learner):
    """Hill climbing: the noise is N(shift, I), and a shift that earns more takes its place."""

    config: ShiftConfig
    learned = "shifted noise"
    shift, best = 0.0, -1e9

    @property
    def queries(self) -> int:
        return self.rounds * self.config.samples

    def tried(self) -> float:
        away = seeded_noise((1,), self.config.seed, "try", [self.rounds])
        return self.shift + self.config.step * float(away) * (self.rounds > 0)

    def at(self, shift: float, **metadata: str) -> NoiseDistribution:
        latent = self.environment.latent_shape
        return NoiseDistribution(torch.full(latent, shift), torch.ones(latent), latent, metadata=metadata)

    def ask(self) -> Request:
        numbers = range(self.queries, self.queries + self.config.samples)
        return Request(numbers, self.prompts * len(numbers))

    def sample(self, request: Request) -> Iterator[Rollout]:
        noise, seed = self.at(self.tried()), self.config.seed
        yield collect(noise, self.environment, self.prompts[0], request.groups, seed=seed)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        check_rewards(rollout, rewards)
        if float(rewards.mean()) > self.best:
            self.shift, self.best = self.tried(), float(rewards.mean())
        self.rounds += 1
        forwards = len(rewards) * self.environment.forwards
        return Update(rollout.prompts, rewards, forwards, figures={"shift": self.shift})

    def tensors(self) -> dict[str, Tensor]:
        return {"shift": torch.tensor([self.shift, self.best], dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        self.shift, self.best = tensors["shift"].tolist()

    def result(self) -> NoiseDistribution:
        return self.at(self.shift, **self.metadata)

    def noise(self, prompt: str) -> NoiseDistribution:
        return self.at(self.shift)

    def save(self, folder: Path) -> Path:
        self.result().save(folder / "noise.safetensors")
        return folder / "noise.safetensors"


def build(
    sampler: Sampler, prompts: Sequence[str], config: ShiftConfig, metadata: Mapping[str, str]
) -> ShiftLearner:
    return ShiftLearner(sampler, prompts, config, metadata)


PRESETS = {"default": ShiftConfig(), "short": ShiftConfig(rounds=2, samples=3)}
ROW = Method(PRESETS, FindEvaluation, True, __name__, "Learn a shift of the noise.")

# Its runs

PROMPT, REWARD = "a dog", f"{__name__}:red"
FILES = {
    *("config.yaml", "metrics.jsonl", "state.safetensors", "noise.safetensors"),
    *("before_after.png", "reward_curve.png", "summary.json", "report.html"),
}
EVALUATION = FindEvaluation(images=4, check_every=2, check_images=2, keep=2)


@pytest.fixture(autouse=True, scope="module")
def row() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "shift", ROW)  # type: ignore[arg-type]
        patch.setattr(sessions, "SAVE_EVERY", 0.0)
        yield


def red(images: Tensor, prompts: list[str]) -> Tensor:
    return 100 * images[:, 0].mean((1, 2))


class Told(Tracker):
    """A progress, and a tracker that was started, which remember."""

    def __init__(self) -> None:
        super().__init__()
        self._started = SimpleNamespace(log=self.logged_at)
        self.phases: list[tuple[str, int, int]] = []
        self.pictures = 0
        self.warnings: list[str] = []
        self.logged: dict[int, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[None]:
        self.phases.append((name, total, done))
        yield

    def advance(self, pictures: int) -> None:
        self.pictures += pictures

    def reward(self, mean: float, best: float) -> None:
        assert mean <= best

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def logged_at(self, figures: dict[str, float], step: int) -> None:
        self.logged[step] = figures


def session(pipeline_folder: Path, path: Path, reward: RewardFunction, told: Told) -> Session:
    sampler = Sampler(load_pipeline(pipeline_folder, device="cpu"), num_steps=2, batch_size=4)
    plan = Plan("shift", (PROMPT,), ShiftConfig(), EVALUATION, Sampling(num_steps=2, batch_size=4))
    learner = methods.build("shift", sampler, [PROMPT], plan.learning, "red")
    setup = Setup(sampler, reward, {PROMPT: None}, embedder("other"), "tiny", "red")
    begun = (path / "config.yaml").is_file()
    folder = RunFolder.resume(path) if begun else RunFolder(path).begin(plan.mapping())
    return Session(folder, Asked(plan, (PROMPT,), (PROMPT,), told), setup, learner)


def run(session: Session, told: Told) -> None:
    session.learn(told)
    conclude(session, told)


def figures(path: Path) -> dict[str, Any]:
    """What a run leaves, without seconds and memory."""
    folder, summary = RunFolder(path), json.loads((path / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    rows = [{key: v for key, v in row.items() if "seconds" not in key} for row in folder.metrics()]
    noise = NoiseDistribution.load(path)
    kept = sorted(file.name for file in (path / "checkpoints").iterdir())
    return {
        "summary": summary,
        "rows": rows,
        "noise": (float(noise.mean.mean()), dict(noise.metadata)),
        "kept": kept,
    }


@pytest.fixture(scope="module")
def whole(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    path, told = tmp_path_factory.mktemp("whole") / "run", Told()
    run(session(tiny_pipeline_folder, path, red, told), told)
    return path, told


def test_it_has_all_that_a_run_has(whole: tuple[Path, Told]) -> None:
    path, told = whole
    assert {file.name for file in path.iterdir()} == {*FILES, "checkpoints", "validation"}
    left = figures(path)
    rows, summary = left["rows"], left["summary"]
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["round"] for row in rows if row.get("held_out")] == [1, 2, 4, 6]
    assert left["kept"] == ["round-00004", "round-00006"]
    assert NoiseDistribution.load(path / "checkpoints" / "round-00006").mean.equal(
        NoiseDistribution.load(path).mean
    )
    assert sorted(told.logged) == [1, 2, 3, 4, 5, 6]
    assert told.logged[6]["shift"] == rows[-1]["shift"] == pytest.approx(left["noise"][0])
    assert told.logged[2]["held_out/reward"] == rows[1]["held_out"]["reward"]
    assert [name for name, _, _ in told.phases] == ["learn", "evaluate", "search"]
    assert told.pictures == sum(total for _, total, _ in told.phases)
    assert summary["rows"].keys() == {"baseline", "tuned", "best_of_n"}
    assert summary["rows"]["tuned"]["reward"]["mean"] > summary["rows"]["baseline"]["reward"]["mean"]
    assert summary["cost"]["tuned"]["reward_queries"] == 24
    assert summary["run"]["method"] == "shift" and summary["run"]["command"].startswith("diffalign shift")
    assert "data:image/png" in (path / "report.html").read_text()
    assert RunFolder(path).finished()


def test_what_is_made_is_counted_before(tiny_pipeline_folder: Path, whole: tuple[Path, Told]) -> None:
    own = session(tiny_pipeline_folder, whole[0].parent / "count", red, Told())
    assert own.count_learned() + count_evaluated(own) == whole[1].pictures


@pytest.mark.parametrize("stops_at", [1, 3, 6, 9, 11, 14])  # while it learns, is checked, and is measured
def test_a_run_that_is_stopped_goes_on_to_the_same_result(
    stops_at: int,
    tiny_pipeline_folder: Path,
    whole: tuple[Path, Told],
    tmp_path: Path,
) -> None:
    calls, failure = 0, KeyboardInterrupt if stops_at % 2 else RewardError

    def stopping(images: Tensor, prompts: list[str]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == stops_at:
            raise failure("stop")
        return red(images, prompts)

    path = tmp_path / "run"
    with pytest.raises(failure):
        run(session(tiny_pipeline_folder, path, stopping, Told()), Told())
    assert (path / "state.safetensors").is_file() and not (path / "report.html").exists()
    told = Told()
    run(session(tiny_pipeline_folder, path, red, told), told)
    assert figures(path) == figures(whole[0])
    name, total, done = told.phases[0]
    assert (name, total, 0) == whole[1].phases[0]
    assert done + told.pictures == whole[1].pictures


def test_a_run_of_other_settings_is_not_gone_on_with(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    own = session(tiny_pipeline_folder, tmp_path / "run", red, Told())
    run(own, Told())
    other = methods.build("shift", own.setup.sampler, [PROMPT], ShiftConfig(step=0.1), "red")
    with pytest.raises(ArtifactError, match="does not fit its config"):
        replace(own, learner=other).learn(Told())
    reward = methods.build("shift", own.setup.sampler, [PROMPT], ShiftConfig(), "green")
    with pytest.raises(ArtifactError, match="reward 'red' then, 'green' now"):
        replace(own, learner=reward).learn(Told())


# Its command


def command(*tokens: object) -> int:
    app = App(result_action="return_value", exit_on_error=False, print_error=False)
    app.command(make_command("shift", METHODS["shift"]), name="shift", config=fill)
    code: int = app(spell_out([str(token) for token in tokens]))
    return code


def test_its_row_makes_it_a_command(
    tiny_pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", tiny_pipeline_folder, "--reward", REWARD, "--num-steps", 2, "--images", 4]
    path = tmp_path / "out"
    assert command("shift", PROMPT, *own, "--preset", "short", "--samples", 2, "--out", path) == 0
    assert "learned" in capsys.readouterr().out
    assert {file.name for file in path.iterdir()} == FILES
    plan = Plan.of(RunFolder(path).config())
    assert plan.learning == ShiftConfig(rounds=2, samples=2) and plan.preset == "short"
    assert plan.command().split()[:3] == ["diffalign", "shift", "'a"]
    assert command("shift", "--resume", path) == 0
    assert "is finished" in capsys.readouterr().err
    (path / "report.html").unlink()
    before = figures_of(path)
    assert command("shift", "--resume", path) == 0
    assert figures_of(path) == before

    opened = open_artifact(path)
    assert opened.check_prompt(None) == PROMPT and opened.metadata["reward"] == REWARD
    assert torch.equal(opened.latents(PROMPT, 3, 5), NoiseDistribution.load(path).sample(3, 5))
    with pytest.raises(ConfigError, match="step must be above 0"):
        command("shift", PROMPT, *own, "--step", 0)


def figures_of(path: Path) -> dict[str, Any]:
    summary = json.loads((path / "summary.json").read_text())
    return {"rows": summary["rows"], "gain": summary["gain"], "n": summary["n"]}
