"""`diffalign compare`: all methods at the same number of reward queries."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffalign.cli.options import RUN, SamplingOptions
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import comparison_table, notice_own_reward, paths, show, stderr, stdout
from diffalign.settings.compare import CompareConfig
from diffalign.settings.sampling import Sampling


def compare(
    *,
    comparison: Annotated[CompareConfig | None, Parameter(name="*", group=RUN.group)] = None,
    out: Annotated[Path | None, RUN] = None,
    resume: Annotated[str | None, RUN] = None,
    sampling: SamplingOptions = Sampling(),
) -> None:
    """Compare methods at the same number of reward queries a prompt: a table, a chart of quality against
    cost, and a grid of pictures a method.

    Search keeps the best pictures that it saw, so that their reward flatters; what learns gives fresh
    ones. anchors and tune learn from all prompts at once, with as many queries in all (but at least a
    round, of which tune's has 96). What is done already in the folder is not done again, so that a stopped
    comparison goes on, and one with more methods or seeds adds to it.

        diffalign compare --prompts world/heldout --queries 150 --seeds 3
        diffalign compare --resume runs/compare-world-heldout

    Args:
        out: The folder; runs/compare- and the set by default.
        resume: Go on with the comparison in this folder; without one, in that of --out or of the set.
    """
    from diffalign.artifacts import RunFolder
    from diffalign.files import CHART, COMPARISON, PICTURES, ROWS
    from diffalign.run.comparison import Comparison, read_settings
    from diffalign.run.folders import RUNS, slug

    named = RUNS if comparison is None else RUNS / f"compare-{slug(comparison.prompts)}"
    if resume is not None:
        folder = RunFolder.resume(Path(resume) if resume else out or named)
        comparison, sampling = read_settings(folder)
    else:
        folder = RunFolder(out or named)
        notice_own_reward(None if comparison is None else comparison.reward, sampling.model)
    running = Comparison.of(folder, comparison or CompareConfig(), sampling)
    with folder.lock(), RunProgress(stderr(), running.count_pictures()) as progress:
        table = running.run(progress)
    rows = ({"folder": folder.path, "method": method, **row} for method, row in table.items())
    show(comparison_table(table, running.config), *rows)
    paths(stdout(), [folder / name for name in (CHART, PICTURES, COMPARISON, ROWS)])
