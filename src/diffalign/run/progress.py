"""How far a run is."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Whom a run tells how far it is."""

    def phase(self, name: str, total: int, done: int = 0) -> AbstractContextManager[None]:
        """A phase of `total` pictures, of which `done` were made by the run that this one resumes."""

    def advance(self, pictures: int) -> None:
        """Pictures that were made and scored."""

    def reward(self, mean: float, best: float) -> None:
        """The newest figures."""

    def warn(self, warning: str) -> None:
        """What the user should know before the end."""
