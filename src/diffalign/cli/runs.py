"""`diffalign runs`: the runs in a folder, beside each other."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffalign.cli.tables import run_table, show


def runs(*folders: Annotated[Path, Parameter(name="FOLDER")]) -> None:
    """List the runs in a folder: what they learned, how far they are, what they gained, how they differ.

    Reward and share judged right are those of the frozen model → of what was learned; of a search those of
    all pictures, or previews, → of the kept ones. The last column has the settings in which runs of a method
    differ.

        diffalign runs
        diffalign runs runs/a runs/b
        diffalign --json runs | jq .reward_after

    Args:
        folders: Runs, or folders with runs at any depth; runs/ by default.
    """
    from diffalign.run.folders import RUNS
    from diffalign.run.listing import list_runs

    rows = list_runs(folders or [RUNS])
    show(run_table(rows), *rows)
