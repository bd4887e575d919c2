"""`diffalign generate`: pictures from what was learned."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.options import OpeningOptions, Positive, Seed
from diffalign.cli.tables import count, notice, show
from diffalign.settings.sampling import Opening


def generate(
    artifact: Annotated[Path, Parameter(name="RUN")],
    /,
    *,
    number: Annotated[Positive, Parameter(name=["--number", "-n"])] = 8,
    seed: Seed = 0,
    prompt: str | None = None,
    frozen: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    opening: OpeningOptions = Opening(),
) -> None:
    """Make pictures from what a run learned: noise of its prompt, or any prompt's by a generator or a tuned
    model; of a search the pictures that it kept.

    Steps, guidance and scheduler are those of learning. The pictures are the same, bit by bit, as plain
    diffusers makes of `noise.sample(n, seed)` in batches of the same size.

        diffalign generate runs/a-blue-car-on-the-moon -n 16 --seed 1
        diffalign generate runs/anchors-default --prompt "three pandas"

    Args:
        artifact: A run's folder, or its noise or generator file; or a folder of runs of single prompts.
        number: How many pictures are made, of each run.
        seed: The seed of the noise; other seeds give other pictures.
        prompt: What the pictures should show, where all prompts were learned for; else it is the run's own.
        frozen: Make what the model makes without what was learned, of the same noise ε, to compare with.
        out: The folder of the pictures; pictures/ (or frozen/) beside what was learned by default, and in it
            one of the prompt if one is given. Of a folder of runs, each gets a folder in it.
    """
    from diffalign.run.opening import open_artifact, single_prompt_runs
    from diffalign.run.pictures import write_pictures

    runs, left_out = single_prompt_runs(artifact, prompt)
    if left_out:
        notice(f"without noise, and so left out: {', '.join(left_out)}", style="yellow")
    for path in runs or [artifact]:
        opened = open_artifact(path, opening)
        notice(*opened.notes, style="yellow")
        if opened.diversity is not None:
            text = opened.check_prompt(prompt)
            now, learned = (
                f"{each.noise(text).effective_components():.3g}"
                for each in (opened, replace(opened, diversity=None))
            )
            notice(f"noise is drawn from about {now} components; as it was learned, from {learned}")
        folder = None if out is None else out / path.name if runs else out
        written = write_pictures(opened, number, seed, prompt, frozen=frozen, out=folder)
        line = f"wrote {count(number, 'picture')} and seed{seed}-grid.png to {written}"
        show(Text(line), {"folder": written, "pictures": number, "seed": seed})
