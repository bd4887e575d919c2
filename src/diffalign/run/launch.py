"""From plans to finished folders: loads what they ask for, makes their folders, and runs them in turn."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.evaluation import Summary
from diffalign.run.checkpoint import resumable
from diffalign.run.loading import Job, Loader, check_prompts
from diffalign.run.progress import Progress
from diffalign.run.session import Session, count_pictures
from diffalign.run.trackers import check_tracker, open_tracker
from diffalign.settings.plan import Plan

#: From the pictures of a run in all to whom it tells how far it is.
OpenProgress = Callable[[int], AbstractContextManager[Progress]]
Outcome = tuple[Session, Summary | Mapping[str, Any] | None]


def is_main() -> bool:
    """Whether this is the main one of the processes of `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", 0)) == 0


def start(
    runs: Sequence[tuple[Path, Plan]], open_progress: OpenProgress, *, overwrite: bool = False
) -> Iterator[Outcome]:
    """Begins runs in new folders; what does not fit leaves no folder.

    Raises:
        ArtifactError: if a folder holds something already.
        ConfigError, PipelineError, PromptError, RewardError: as `Loader.job`.
    """
    loader = Loader()
    if (tracker := runs[0][1].evaluation.tracker) is not None:
        check_tracker(tracker)
    for path, plan in runs:  # all, before the first has begun
        if is_main():
            RunFolder.check(path, overwrite)
        if isinstance(plan.prompts, tuple):
            check_prompts(plan.prompts, plan.reward, plan.evaluation.judge)
    first = loader.job(runs[0][1])
    folders = [RunFolder(path) for path, _ in runs]
    if is_main():
        folders = [RunFolder.create(path, plan.mapping(), overwrite=overwrite) for path, plan in runs]
    first.learner.processes.gather([None])  # the main process has made the folders
    for i, (folder, (_, plan)) in enumerate(zip(folders, runs, strict=True)):
        yield _run(folder, plan, partial(loader.job, plan) if i else lambda: first, open_progress)


def resume(runs: Sequence[tuple[RunFolder, Plan]], open_progress: OpenProgress) -> Iterator[Outcome]:
    """Goes on with runs that were begun, to the same results.

    Raises:
        ArtifactError: if a folder's state is corrupt, or was learned otherwise.
        ConfigError, PipelineError, PromptError, RewardError: as `Loader.job`.
    """
    loader = Loader()
    # those that need the same model and reward follow each other
    for folder, plan in sorted(runs, key=lambda run: repr((run[1].sampling, run[1].reward))):
        yield _run(folder, plan, partial(loader.job, plan), open_progress)


def _run(folder: RunFolder, plan: Plan, load: Callable[[], Job], open_progress: OpenProgress) -> Outcome:
    if plan.evaluation.tracker is not None:
        check_tracker(plan.evaluation.tracker)
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(folder.lock())
        job = load()
        stack.enter_context(resumable(folder.path, plan.method))
        total = count_pictures(job.learner, job.held_out, plan.evaluation)
        progress = stack.enter_context(open_progress(total))
        for warning in job.warnings:
            progress.warn(warning)
        tracker = None
        if plan.evaluation.tracker and job.learner.processes.is_main:
            tracker = open_tracker(plan.evaluation.tracker, folder.path, plan.mapping())
            stack.callback(tracker.finish)
        measured = job.held_out, plan.evaluation
        session = Session(folder, job.learner, job.setup, *measured, progress, plan.record(), tracker)
        return session, session.run()
