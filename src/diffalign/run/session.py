"""One run in its folder: learn → check held-out prompts → evaluate → write.

    learn     metrics.jsonl a line a round; state.safetensors every few seconds and whenever it stops
    check     now and then fresh pictures of held-out prompts: an alarm when the reward rises alone
    evaluate  frozen and learned, the same noise in pairs, prompt by prompt; best-of-N at equal cost
    write     what was learned, pictures, reward curve, summary.json, report.html (these two: `conclude`)

All figures but seconds and memory follow from the settings, so a run that is killed and resumed ends with
those of one that was not: learning goes on from the last state, the rest is done again.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diffalign.artifacts import RunFolder
from diffalign.evaluation import Cost
from diffalign.files import CHECKPOINTS, OUTPUTS, PARTIAL, VALIDATION, replacing_folder
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.report.pictures import grid
from diffalign.rewards import component_means
from diffalign.run.asked import Asked
from diffalign.run.checkpoint import SAVE_EVERY, restore, snapshot
from diffalign.run.held_out import alarm, check_held_out, is_due
from diffalign.run.progress import Progress
from diffalign.run.setup import Setup


@dataclass(frozen=True)
class Session:
    """A run that may begin, or go on.

    Attributes:
        folder: where it is kept; the caller holds its lock.
        asked: its plan and prompts.
        setup: what it samples, scores and measures with.
        learner: what learns, or searches.
    """

    folder: RunFolder
    asked: Asked
    setup: Setup
    learner: Learner

    def learn(self, progress: Progress) -> None:
        """Learns, from the last saved state if there is one, and saves the state, whatever ends it."""
        learner, folder, main = self.learner, self.folder, self.learner.processes.is_main
        evaluation = self.asked.plan.evaluation
        restore(folder, learner)
        checks, best = list[Mapping[str, Any]](), {True: float("-inf"), False: float("-inf")}
        if main:
            folder.truncate_metrics(learner.rounds)
            rows = folder.metrics(learner.rounds)
            checks = [row["held_out"] for row in rows if row.get("held_out")]
            for row in rows:
                previews = bool(row.get("previews"))  # whose rewards are no pictures'
                best[previews] = max(best[previews], *row["rewards"])
        done = learner.queries + len(checks) * self._check_size()
        # a copy: Ctrl-C may come while a round is half done, and the learner changes in place
        state, saved = snapshot(learner), time.monotonic()
        try:
            with progress.phase("learn", self.count_learned(), done) if main else nullcontext():
                if self._stops(alarm(checks)):
                    return
                for round in train(learner, self.setup.reward, on_batch=progress.advance):
                    problem = None
                    if main:
                        previews = bool(round.update.figures.get("previews"))
                        best[previews] = max(best[previews], float(round.rewards.max()))
                        progress.reward(float(round.rewards.mean()), best[previews])
                        problem = self._record(round, checks, progress)
                        state = snapshot(learner)
                        if time.monotonic() - saved >= SAVE_EVERY:
                            folder.save_state(*state)
                            saved = time.monotonic()
                    if is_due(evaluation, round.round) and self._stops(problem):
                        return
                if main and learner.stopped:
                    progress.warn(f"stopped after {learner.queries} queries: {learner.stopped}")
        finally:
            if main:
                folder.save_state(*state)

    def _stops(self, problem: str | None) -> bool:
        """Whether an alarm, which the main process alone knows, ends the run, in all processes."""
        stops = bool(self.asked.plan.evaluation.stop_on_alarm)
        return stops and any(self.learner.processes.gather([problem is not None]))

    def _record(self, round: Round, checks: list[Mapping[str, Any]], progress: Progress) -> str | None:
        """Writes a round's metrics, after a check where one is due; returns what is alarming."""
        row: dict[str, Any] = {**round.figures(), **component_means(self.setup.reward)}
        if len(self.learner.prompts) > 1:  # for the reward curve
            row["prompts"] = [self.learner.prompts.index(prompt) for prompt in round.update.prompts]
        problem, evaluation = None, self.asked.plan.evaluation
        if is_due(evaluation, round.round):
            held_out, images = self.asked.held_out, evaluation.check_images
            means, pictures = check_held_out(self.setup, self.learner, held_out, images, progress)
            checks.append(means)
            problem = alarm(checks)
            self._draw(round.round, pictures, means)
            row |= {"held_out": checks[-1], "alarm": problem}
            if evaluation.keep:
                self._keep(evaluation.keep)
        self.folder.append_metrics(row)
        self.asked.tracker.log(row)
        for warning in (problem and f"round {round.round}: {problem}", round.warning):
            if warning:
                progress.warn(warning)
        return problem

    def _draw(self, round: int, pictures: Tensor, means: Mapping[str, float | None]) -> None:
        """Writes pictures of held-out prompts `(n, 3, H, W)` to `validation`, and to the tracker."""
        title = f"Round {round}: {self.setup.reward_name} {means['reward']:.4g}"
        if means["judged"] is not None:
            title += f", {means['judged']:.0%} right"
        (self.folder / VALIDATION).mkdir(exist_ok=True)
        grid(pictures, self.folder / VALIDATION / f"round-{round:05d}.png", title=title)
        self.asked.tracker.log_pictures(pictures, round)

    def _keep(self, number: int) -> None:
        """Writes what was learned so far to `checkpoints`, of which the last `number` stay."""
        checkpoints = self.folder / CHECKPOINTS
        with replacing_folder(checkpoints / f"round-{self.learner.rounds:05d}") as partial:
            self.learner.save(partial)
        for old in [*checkpoints.glob(f"*{PARTIAL}"), *sorted(checkpoints.glob("round-*"))[:-number]]:
            shutil.rmtree(old)

    def spent(self) -> Cost:
        """What learning cost so far."""
        rows = self.folder.metrics(self.learner.rounds)
        forwards, seconds = (sum(row[name] for row in rows) for name in ("denoiser_forwards", "seconds"))
        return Cost(self.learner.queries, forwards, seconds, self.setup.memory)

    def output_files(self) -> list[Path]:
        """The files of a finished run, for its user."""
        return [self.folder / name for name in OUTPUTS if (self.folder / name).exists()]

    def count_learned(self) -> int:
        """How many pictures learning makes, those of checks included."""
        rounds = getattr(self.learner.config, "rounds", 0)  # a search, which is not checked, has none
        checks = sum(is_due(self.asked.plan.evaluation, round) for round in range(1, rounds + 1))
        return self.learner.total + checks * self._check_size()

    def _check_size(self) -> int:
        return len(self.asked.held_out) * int(self.asked.plan.evaluation.check_images)
