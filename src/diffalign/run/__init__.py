"""RUN: a method in its folder: learn, evaluate on fresh samples, write what is left."""

from diffalign.run.generating import generate_in, pictures_of_a_generator, written_by_a_generator
from diffalign.run.guard import Guard, TuneSetup
from diffalign.run.noise import Setup, align, pictures_of_a_run, written
from diffalign.run.progress import Progress, Watched
from diffalign.run.trackers import check_tracker, open_tracker
from diffalign.run.tuning import pictures_of_a_tuning, tune_in, written_by_tuning

__all__ = [
    "Guard",
    "Progress",
    "Setup",
    "TuneSetup",
    "Watched",
    "align",
    "check_tracker",
    "generate_in",
    "open_tracker",
    "pictures_of_a_generator",
    "pictures_of_a_run",
    "pictures_of_a_tuning",
    "tune_in",
    "written",
    "written_by_a_generator",
    "written_by_tuning",
]
