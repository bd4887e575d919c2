"""The state of a learner in a run's folder, and what it was learned from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from diffalign.artifacts import RunFolder
from diffalign.diffusion.finite import NotFiniteError
from diffalign.files import CONFIG, STATE, ArtifactError, WriteError
from diffalign.learners.contract import Learner, State
from diffalign.methods.provenance import decisive, disagreeing

SAVE_EVERY: Final = 5.0  # seconds: what a kill may cost


def snapshot(learner: Learner) -> State:
    """A copy of the learner's state, and what it was learned from."""
    tensors, strings = learner.state()
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    return copies, {**strings, **decisive(learner.metadata)}


def restore(folder: RunFolder, learner: Learner) -> None:
    """Goes on from the folder's state, if there is one."""
    if (state := folder.load_state()) is None:
        return
    differing = [
        f"{name.replace('_', ' ')} {state[1][name]!r} then, {learner.metadata[name]!r} now"
        for name in disagreeing(state[1], decisive(learner.metadata))
    ]
    if differing:
        raise ArtifactError(
            f"the state in {folder.path} was learned otherwise: {'; '.join(differing)}; undo the change, "
            f"or delete {folder / STATE} to start the run again"
        )
    try:
        learner.load(*state)
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"the state in {folder.path} does not fit its config.yaml ({reason}); undo the change there, "
            f"or delete {STATE} to start the run again"
        ) from error


@contextmanager
def resumable(path: Path, command: str) -> Iterator[None]:
    """Adds to what stops a run, Ctrl-C included, how to go on with it; not where that would stop it again, or
    the run is gone."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, NotFiniteError):
            error.add_note(f"as it is, diffalign {command} --resume {path} would stop here again")
        elif not (path / CONFIG).is_file():
            error.add_note(f"there is no run in {path} to go on with")
        elif isinstance(error, WriteError) or not isinstance(error, ArtifactError):
            saved = (path / STATE).is_file() and not isinstance(error, WriteError)
            error.add_note(f"{'state saved, ' * saved}go on with: diffalign {command} --resume {path}")
        raise
