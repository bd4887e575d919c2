"""`diffalign report`: a run's page anew."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.tables import notice, show


def report(folder: Annotated[Path, Parameter(name="FOLDER")], /) -> None:
    """Write a run's report.html anew, from what its folder holds.

    The page needs nothing beside it: it can be sent as it is.

        diffalign report runs/a-blue-car-on-the-moon

    Args:
        folder: The folder of a finished run, or of several.
    """
    from diffalign.files import SUMMARY, ArtifactError
    from diffalign.report.html import write_report

    several = [] if (folder / SUMMARY).exists() else sorted(folder.glob(f"*/{SUMMARY}"))
    for each in [file.parent for file in several] or [folder]:
        try:
            written = write_report(each)
            show(Text(f"wrote {written}"), {"report": written})
        except ArtifactError as error:  # such as of a search, which has no page
            if not several:
                raise
            notice(f"{each} is left out: {error}", style="yellow")
