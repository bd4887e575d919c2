"""What a run says while it works: one bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from diffalign.cli.tables import say

LINE_EVERY = 10.0  # seconds


class RunProgress:
    """Counts the pictures of all phases of a run, so that the time left is that of the whole.

    Arguments:
        console: where it shows.
        total: pictures in all.
        unit: what is counted.
    """

    def __init__(self, console: Console, total: int, unit: str = "images") -> None:
        self.console: Final = console
        self.total, self.unit = total, unit
        self.done = 0  # of all, those of a resumed run's earlier part included
        self.made = 0  # since `began`
        self.phase_name, self.phase_done, self.phase_total, self.depth = "", 0, 0, 0
        self.newest = ""  # figures
        self.began = self.spoke = time.monotonic()
        self.bar: Progress | None = None
        if console.is_terminal and not console.quiet:
            self.bar = Progress(
                TextColumn("{task.fields[phase]}", style="bold", markup=False),
                BarColumn(bar_width=max(8, min(40, console.width - 74))),  # what the figures leave
                _Figures(self),
                console=console,
            )
            self.task = self.bar.add_task("", total=total, phase="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[None]:
        """A phase of `total` pictures, of which `done` were made by the run that this one resumes."""
        outer, self.depth = (self.phase_name, self.phase_done, self.phase_total), self.depth + 1
        self.phase_name, self.phase_done, self.phase_total = name, done, total
        self.newest = ""
        self.done += done
        self._show()
        yield
        short = max(0, self.phase_total - self.phase_done)  # of what it need not make, as it stopped early
        self.total -= short
        self._show(last=True)
        self.depth -= 1
        if self.depth:  # such as of a method of a comparison, of which learning is a part
            name, before, total = outer
            self.phase_name, self.phase_done, self.phase_total = name, before + self.phase_done, total - short

    def advance(self, pictures: int) -> None:
        self.phase_done += pictures
        self.done += pictures
        self.made += pictures
        self._show()

    def reward(self, mean: float, best: float) -> None:
        self.newest = f"reward {_short(mean)}, best {_short(best)}"
        self._show()

    def warn(self, warning: str) -> None:
        say(self.console, warning, style="yellow")

    def figures(self) -> str:
        """Queries, reward, speed and time left, as a line."""
        parts = [f"{self.phase_done}/{self.phase_total}"]
        if self.newest:
            parts.append(self.newest)
        seconds = time.monotonic() - self.began
        if self.made and seconds > 0:
            speed = self.made / seconds
            parts.append(f"{speed:.1f} {self.unit}/s")
            parts.append(f"{_clock(max(0, self.total - self.done) / speed)} left in all")
        return " · ".join(parts)

    def _show(self, last: bool = False) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, total=self.total, phase=self.phase_name)
        elif last or time.monotonic() - self.spoke >= LINE_EVERY:
            self.spoke = time.monotonic()
            say(self.console, f"{self.phase_name}: {self.figures()}")


class _Figures(ProgressColumn):
    def __init__(self, progress: RunProgress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.figures(), no_wrap=True, overflow="ellipsis")


def _short(value: float) -> str:
    return f"{value:.{2 if abs(value) >= 10 else 3}f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
