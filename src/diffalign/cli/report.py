"""`diffalign report`: a run's page anew, and charts for papers."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffalign.cli.tables import say, stdout


def report(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    charts: Literal["png", "svg", "pdf"] | None = None,
) -> None:
    """Write a run's report.html anew, from what its folder holds, and its charts.

    The page needs nothing beside it: it can be sent as it is.

        diffalign report runs/a-blue-car-on-the-moon
        diffalign report runs/compare-world-heldout --charts pdf

    Args:
        folder: The folder of a finished run, or of several, or of a comparison, which has no page but a
            chart.
        charts: Draw the reward curve of a run, or the chart of a comparison, anew in this format.
    """
    from diffalign.artifacts import RunFolder
    from diffalign.files import COMPARISON, SUMMARY, ArtifactError
    from diffalign.report.html import write_report
    from diffalign.run.charts import draw_comparison, redraw_curve

    suffix = f".{charts or 'png'}"
    if (folder / COMPARISON).exists():
        return say(stdout(), f"wrote {draw_comparison(RunFolder(folder), suffix)}")
    several = [] if (folder / SUMMARY).exists() else sorted(folder.glob(f"*/{SUMMARY}"))
    for each in [file.parent for file in several] or [folder]:
        try:
            if charts is not None and (path := redraw_curve(RunFolder(each), suffix)) is not None:
                say(stdout(), f"wrote {path}")
            say(stdout(), f"wrote {write_report(each)}")
        except (ArtifactError, OSError) as error:
            if not several:
                raise
            say(stdout(), f"{each} is left out: {error}", style="yellow")
    return None
