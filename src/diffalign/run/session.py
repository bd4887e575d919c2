"""One run in its folder: learn → check held-out prompts → evaluate → write.

    learn     metrics.jsonl a line a round; state.safetensors every few seconds and whenever it stops
    check     now and then fresh pictures of held-out prompts: an alarm when the reward rises alone
    evaluate  frozen and learned, the same noise in pairs, prompt by prompt; best-of-N at equal cost
    write     what was learned, pictures, reward curve, summary.json, report.html

All figures but seconds and memory follow from the settings, so a run that is killed and resumed ends with
those of one that was not: learning goes on from the last state, the rest is done again.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.evaluation import Summary
from diffalign.files import CHECKPOINTS, OUTPUTS, PARTIAL, replacing_folder
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.rewards import component_means
from diffalign.run.checkpoint import SAVE_EVERY, restore, snapshot
from diffalign.run.conclusion import conclude, count_evaluated
from diffalign.run.held_out import alarm, check_held_out, is_due
from diffalign.run.loading import Setup
from diffalign.run.progress import Progress
from diffalign.run.trackers import numbers
from diffalign.settings.evaluation import Evaluation, SearchEvaluation


@dataclass(frozen=True)
class Session:
    """A run, from its folder and its learner to its summary.

    Attributes:
        folder: where it is kept; the caller holds its lock.
        learner: what learns, or searches.
        setup: what it samples, scores and measures with.
        held_out: the prompts that it is measured on.
        evaluation: what is measured and kept.
        progress: whom it tells how far it is.
        record: what else `summary.json` says of it.
        tracker: what `open_tracker` returned.
    """

    folder: RunFolder
    learner: Learner
    setup: Setup
    held_out: tuple[str, ...]
    evaluation: Evaluation | SearchEvaluation
    progress: Progress
    record: Mapping[str, Any]
    tracker: Any = None

    def run(self) -> Summary | Mapping[str, Any] | None:
        """All phases; returns what `summary.json` holds, and None in all processes but the main one.

        Raises:
            ArtifactError: if the folder's state is corrupt or of another run, or cannot be written.
            RewardError: if the reward fails; the state is saved.
        """
        self.learn()
        if not self.learner.processes.is_main:
            return None
        return conclude(
            self.folder, self.learner, self.setup, self.held_out, self.evaluation, self.progress, self.record
        )

    def learn(self) -> None:
        """Learns, from the last saved state if there is one, and saves the state at the end, whatever ends
        it.

        Raises:
            ArtifactError: if the state is corrupt, or of another run.
        """
        learner, folder, main = self.learner, self.folder, self.learner.processes.is_main
        restore(folder, learner)
        checks, best = list[Mapping[str, Any]](), float("-inf")
        if main:
            folder.truncate_metrics(learner.rounds)
            rows = folder.metrics()
            checks = [row["held_out"] for row in rows if row.get("held_out")]
            best = max((row["reward_best"] for row in rows), default=best)
        done = learner.queries + len(checks) * _count_check(self.held_out, self.evaluation)
        total = _count_learned(learner, self.held_out, self.evaluation)
        # a copy: Ctrl-C may come while a round is half done, and the learner changes in place
        state, saved = snapshot(learner), time.monotonic()
        try:
            with self.progress.phase("learn", total, done) if main else nullcontext():
                if self._stops(alarm(checks)):
                    return
                for round in train(learner, self.setup.reward, on_batch=self.progress.advance):
                    problem = None
                    if main:
                        best = max(best, float(round.rewards.max()))
                        self.progress.reward(float(round.rewards.mean()), best)
                        problem = self._record(round, checks)
                        state = snapshot(learner)
                        if time.monotonic() - saved >= SAVE_EVERY:
                            folder.save_state(*state)
                            saved = time.monotonic()
                    if is_due(self.evaluation, round.round) and self._stops(problem):
                        return
        finally:
            if main:
                folder.save_state(*state)

    def _stops(self, problem: str | None) -> bool:
        """Whether an alarm, which the main process alone knows, ends the run, in all processes."""
        if not getattr(self.evaluation, "stop_on_alarm", False):
            return False
        return any(self.learner.processes.gather([problem is not None]))

    def _record(self, round: Round, checks: list[Mapping[str, Any]]) -> str | None:
        """Writes a round's metrics, after a check where one is due; returns what is alarming."""
        row: dict[str, Any] = {**round.figures(), **component_means(self.setup.reward)}
        problem = None
        if isinstance(self.evaluation, Evaluation) and is_due(self.evaluation, round.round):
            seed, noise = self.learner.config.seed, self.learner.noise
            checks.append(
                check_held_out(self.setup, self.held_out, noise, self.evaluation, seed, self.progress)
            )
            problem = alarm(checks)
            row |= {"held_out": checks[-1], "alarm": problem}
            self._keep(self.evaluation.keep)
        self.folder.append_metrics(row)
        if self.tracker is not None:
            self.tracker.log(numbers(row), step=round.round)
        for warning in (problem and f"round {round.round}: {problem}", round.update.warning):
            if warning:
                self.progress.warn(warning)
        return problem

    def _keep(self, number: int) -> None:
        """Writes what was learned so far to `checkpoints`, of which the last `number` stay."""
        if not number:
            return
        checkpoints = self.folder / CHECKPOINTS
        with replacing_folder(checkpoints / f"round-{self.learner.rounds:05d}") as partial:
            self.learner.save(partial)
        for old in [*checkpoints.glob(f"*{PARTIAL}"), *sorted(checkpoints.glob("round-*"))[:-number]]:
            shutil.rmtree(old)

    def output_files(self) -> list[Path]:
        """The files of a finished run, for its user."""
        return [self.folder / name for name in OUTPUTS if (self.folder / name).exists()]


def count_pictures(
    learner: Learner, held_out: Sequence[str], evaluation: Evaluation | SearchEvaluation
) -> int:
    """How many pictures a run makes in all."""
    learned = _count_learned(learner, held_out, evaluation)
    return learned + count_evaluated(learner, held_out, evaluation)


def _count_learned(
    learner: Learner, held_out: Sequence[str], evaluation: Evaluation | SearchEvaluation
) -> int:
    rounds = getattr(learner.config, "rounds", 0)  # a search, which is not checked, has none
    checks = sum(is_due(evaluation, round) for round in range(1, rounds + 1))
    return learner.total + checks * _count_check(held_out, evaluation)


def _count_check(held_out: Sequence[str], evaluation: Evaluation | SearchEvaluation) -> int:
    return len(held_out) * getattr(evaluation, "check_images", 0)
