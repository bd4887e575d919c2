"""`report.html`: a run as one page, without scripts, which loads nothing from elsewhere."""

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from diffalign import files
from diffalign.artifacts import RunFolder
from diffalign.evaluation import SCHEMA
from diffalign.files import BEFORE_AFTER, BEST, CONFIG, CURVE, REPORT, SUMMARY, ArtifactError, replacing
from diffalign.settings.choices import shortened
from diffalign.settings.reading import ReadError, read_json

SEARCH_SCHEMA = "diffalign.search/1"
#: By a summary's schema: the page, and the picture at its top.
PAGES = {SCHEMA: ("report.html", BEFORE_AFTER), SEARCH_SCHEMA: ("search.html", BEST)}


def write_report(folder: Path | str) -> Path:
    """Writes `report.html` into a run's folder, and returns its path; the page contains the pictures.

    Needs `summary.json`; `metrics.jsonl`, `config.yaml` and pictures are shown if they exist.

    Raises:
        ArtifactError: if the folder holds no finished run, or its summary is corrupt.
        WriteError: if the page cannot be written.
    """
    run = RunFolder(Path(folder))
    config = run / CONFIG
    summary = read_summary(run / SUMMARY)
    template, pictures = PAGES[summary["schema"]]
    shown = {
        "summary": summary,
        "metrics": run.metrics(),
        "config": config.read_text("utf-8", "replace").strip() if config.is_file() else None,
        "pictures": _encoded(run / pictures),
        "curve": _encoded(run / CURVE),
        "files": files,
    }
    try:
        page = _environment().get_template(template).render(shown)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ArtifactError(
            f"{run / SUMMARY} does not follow the schema {summary['schema']}: {error!r}"
        ) from error
    with replacing(run / REPORT) as file:
        file.write_text(page, "utf-8")
    return run / REPORT


def read_summary(path: Path) -> dict[str, Any]:
    """What `summary.json` holds, of a run or of a search.

    Raises:
        ArtifactError: if it is not there, corrupt, or something else.
    """
    if not path.is_file():
        raise ArtifactError(f"there is no finished run in {path.parent}: it has no {path.name}")
    try:
        summary = read_json(path)
    except (OSError, ReadError) as error:
        raise ArtifactError(
            f"{path} is corrupt: {error}; go on with the run (--resume) to write it again"
        ) from error
    if not isinstance(summary, dict) or summary.get("schema") not in list(PAGES):
        raise ArtifactError(f"{path} is no summary of the schema {SCHEMA}, nor of {SEARCH_SCHEMA}")
    return summary


def _encoded(picture: Path) -> str | None:
    """The file in base64; None if there is none."""
    return base64.b64encode(picture.read_bytes()).decode("ascii") if picture.is_file() else None


@cache
def _environment() -> Environment:
    """What reads the template beside this file; whatever it prints is escaped, and must be there."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "rounded": _rounded, "repr": repr, "shortened": shortened}
    return environment


def _number(value: float, percent: bool, signed: bool = False) -> str:
    digits = 2 if abs(value) >= 10 else 3
    text = f"{100 * value:+.1f}" if percent else f"{value:+.{digits}f}"
    return (text if signed else text.removeprefix("+")).replace("-", "−")


def _rounded(value: float | None, digits: int) -> str:
    """A number with so many decimal digits; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", " ")
