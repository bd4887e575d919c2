"""`diffalign evaluate`: what was learned against the frozen model, on fresh pairs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffalign.cli.options import OpeningOptions, Positive, Seed
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import notice, paths, results, show, stderr, stdout
from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.fields import ConfigError
from diffalign.settings.sampling import Opening


def evaluate(
    artifact: Annotated[Path, Parameter(name="RUN")],
    /,
    *,
    reward: str | None = None,
    judge: JudgeChoice = "auto",
    images: Positive = 64,
    seed: Seed = 0,
    prompt: str | None = None,
    prompts: str | None = None,
    out: Path | None = None,
    opening: OpeningOptions = Opening(),
) -> None:
    """Compare what was learned with the frozen model on fresh pictures, in pairs of the same noise.

    Another reward or judge than the one it was learned with tells whether the gain is real.

        diffalign evaluate runs/a-blue-car-on-the-moon --reward world-scene --images 256
        diffalign evaluate runs/anchors-default --prompt "three pandas"
        diffalign evaluate runs/tune-default --prompts world/heldout --reward world-scene --images 16

    Args:
        artifact: A run's folder, or its noise or generator file.
        reward: What scores the pictures; the reward it was learned with by default.
        judge: What gives verdicts; auto takes the world's exact judge where it can read the prompt.
        images: How many fresh pictures each row has.
        seed: The seed of the pictures; that of the run with as many pictures gives the run's own figures.
        prompt: What the pictures should show, where all prompts were learned for; else it is the run's own.
        prompts: Likewise, a set or a file of prompts, instead of one.
        out: A JSON file of the figures, as in summary.json; evaluation.json, with the prompt if one
            is given, beside what was learned by default.
    """
    from diffalign.run.asked import read_prompts
    from diffalign.run.opening import open_artifact
    from diffalign.run.reevaluation import reevaluate

    if prompts is not None and prompt is not None:
        raise ConfigError("give --prompt or --prompts, not both")
    texts = [prompt] if prompt is not None else []
    if prompts is not None:
        texts = [*read_prompts(prompts)]
    opened = open_artifact(artifact, opening)
    notice(*opened.notes, style="yellow")
    with RunProgress(stderr(), 2 * images * max(1, len(texts))) as progress:
        summary, written = reevaluate(opened, texts, progress, reward, judge, images, seed, opening, out)
    show(results(summary), {"file": written, **summary})
    notice("seconds of what was learned are without those of learning", style="dim")
    paths(stdout(), [written])
