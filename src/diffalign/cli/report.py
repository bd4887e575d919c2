"""`diffalign report`: a run's page anew, and charts for papers."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.tables import notice, show


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
        chart = draw_comparison(RunFolder(folder), suffix)
        return show(Text(f"wrote {chart}"), {"chart": chart})
    several = [] if (folder / SUMMARY).exists() else sorted(folder.glob(f"*/{SUMMARY}"))
    for each in [file.parent for file in several] or [folder]:
        try:
            if charts is not None and (path := redraw_curve(RunFolder(each), suffix)) is not None:
                show(Text(f"wrote {path}"), {"chart": path})
            written = write_report(each)
            show(Text(f"wrote {written}"), {"report": written})
        except (ArtifactError, OSError) as error:
            if not several:
                raise
            notice(f"{each} is left out: {error}", style="yellow")
