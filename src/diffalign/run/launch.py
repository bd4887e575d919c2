"""From plans to finished folders: reads and loads what they ask for, begins folders, and runs in turn."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.evaluation import Summary
from diffalign.run.asked import Asked
from diffalign.run.checkpoint import resumable
from diffalign.run.conclusion import conclude, count_evaluated
from diffalign.run.loading import Loader
from diffalign.run.progress import Progress
from diffalign.run.session import Session
from diffalign.settings.plan import Plan

#: From the pictures of a run in all to whom it tells how far it is.
OpenProgress = Callable[[int], AbstractContextManager[Progress]]
Outcome = tuple[Session, Summary | Mapping[str, Any] | None]


def is_main() -> bool:
    """Whether this is the main one of the processes of `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", 0)) == 0


def start(runs: Sequence[tuple[RunFolder, Plan]], open_progress: OpenProgress) -> Iterator[Outcome]:
    """Begins runs in folders that were claimed for them; what does not fit leaves no folder."""
    loader = Loader()
    asked = [Asked.of(plan) for _, plan in runs]  # all, before the first has begun
    folders = [folder for folder, _ in runs]
    first = loader.session(folders[0], asked[0])
    if is_main():
        for folder, plan in runs:
            folder.begin(plan.mapping())
    first.learner.processes.gather([None])  # the main process has made the folders
    return _run(runs, chain([first], map(loader.session, folders[1:], asked[1:])), open_progress)


def resume(runs: Sequence[tuple[RunFolder, Plan]], open_progress: OpenProgress) -> Iterator[Outcome]:
    """Goes on with runs that were begun, to the same results."""
    loader = Loader()
    # those that need the same model and reward follow each other
    runs = sorted(runs, key=lambda run: repr((run[1].sampling, run[1].reward)))
    return _run(runs, (loader.session(folder, Asked.of(plan)) for folder, plan in runs), open_progress)


def _run(
    runs: Sequence[tuple[RunFolder, Plan]], sessions: Iterator[Session], open_progress: OpenProgress
) -> Iterator[Outcome]:
    for folder, plan in runs:
        with ExitStack() as stack:
            if is_main():
                stack.enter_context(folder.lock())
            session = next(sessions)  # is loaded now
            total = session.count_learned() + count_evaluated(session)
            stack.enter_context(resumable(folder.path, plan.method))
            progress = stack.enter_context(open_progress(total))
            for warning in (*session.setup.warnings, *session.learner.warnings):
                progress.warn(warning)
            main = session.learner.processes.is_main
            if main:
                stack.enter_context(session.asked.tracker.started(folder))
            session.learn(progress)
            summary = conclude(session, progress) if main else None
            session.learner.processes.attend()
            session.learner.release()
        yield session, summary
