"""The state of learning in a run's folder, and what it was learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from torch import Tensor

from diffalign.artifacts import STATE, RunFolder
from diffalign.policies.noise import ArtifactError

SAVE_EVERY: Final = 5.0  # seconds
State = tuple[dict[str, Tensor], dict[str, str]]


class Stateful(Protocol):
    """What learns."""

    def state(self) -> State:
        """Everything that `load` needs to go on to the same result."""

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Restores what `state` returned."""


def snapshot(learner: Stateful, origin: Mapping[str, str]) -> State:
    """A copy of the learner's state, and what it was learned from."""
    tensors, metadata = learner.state()
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    return copies, {**metadata, **origin}


def restore(folder: RunFolder, learner: Stateful, origin: Mapping[str, str]) -> None:
    """Goes on from the folder's state, if there is one.

    Raises:
        ArtifactError: if the state is corrupt, or of another run.
    """
    state = folder.load_state()
    if state is None:
        return
    check_origin(folder, state[1], origin)
    try:
        learner.load(*state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ArtifactError(
            f"the state in {folder.path} does not fit its config.yaml ({error}); undo the change there, "
            "or delete state.safetensors to start the run again"
        ) from error


def check_origin(folder: RunFolder, saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compares what a saved state was learned from with what is given now.

    Raises:
        ArtifactError: if they differ.
    """
    differing = [
        f"{name.replace('_', ' ')} {saved[name]!r} then, {value!r} now"
        for name, value in now.items()
        if saved.get(name, value) != value
    ]
    if differing:
        raise ArtifactError(
            f"the state in {folder.path} was learned otherwise: {'; '.join(differing)}; undo the change, "
            f"or delete {folder / STATE} to start the run again"
        )
