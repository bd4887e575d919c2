"""RUN: a method in its folder: learn, evaluate on fresh samples, write what is left."""

from diffalign.run.noise import Progress, Setup, Watched, align, pictures_of_a_run, written
from diffalign.run.trackers import check_tracker, open_tracker
from diffalign.run.tuning import Guard, TuneSetup, pictures_of_a_tuning, tune_in, written_by_tuning

__all__ = [
    "Guard",
    "Progress",
    "Setup",
    "TuneSetup",
    "Watched",
    "align",
    "check_tracker",
    "open_tracker",
    "pictures_of_a_run",
    "pictures_of_a_tuning",
    "tune_in",
    "written",
    "written_by_tuning",
]
