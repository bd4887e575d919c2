"""`diffalign distil`: a noise generator from what FIND learned."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.text import Text

from diffalign.cli.options import RUN, SWITCH, Positive, SamplingOptions, Seed
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import show, stderr
from diffalign.settings.noise_ppo import NoisePPOConfig
from diffalign.settings.sampling import Sampling


def distil(
    runs: Annotated[Path, Parameter(name="RUNS", group=RUN.group)],
    /,
    *,
    steps: Positive = 300,
    learning_rate: Annotated[float, Parameter(group=RUN.group, validator=validators.Number(gt=0))] = 1e-3,
    basis: Annotated[str, RUN] = "identity",
    std: Annotated[Literal["learned", "preserving"], RUN] = "learned",
    seed: Annotated[Seed, RUN] = 0,
    out: Annotated[Path, RUN] = Path("runs/distilled"),
    overwrite: Annotated[bool, SWITCH] = False,
    sampling: SamplingOptions = Sampling(),
) -> None:
    """Learn one noise generator from a folder of `find` runs, without a reward query.

    It says of each prompt's tokens what noise FIND learned, and can start other runs:
    `diffalign find PROMPT --start runs/distilled`.

        diffalign find --prompts world/unusual
        diffalign distil runs/world-unusual --out runs/distilled

    Args:
        runs: A folder of runs of `diffalign find`, or one of them.
        steps: How many optimiser steps it takes.
        learning_rate: The learning rate of Adam.
        basis: Where it decides: identity, or dctK, the K×K lowest frequencies.
        std: Whether the std is learned, or preserves second moments (s² = 1 − m²).
        seed: The seed of its first weights and of the samples.
        out: The generator's folder.
        overwrite: Replace what the folder holds.
    """
    from diffalign.artifacts import RunFolder
    from diffalign.files import GENERATOR
    from diffalign.methods.distil import distillation
    from diffalign.run.loading import load_sampler

    folder = RunFolder(out, overwrite).check()
    config = NoisePPOConfig(basis=basis, std=std, seed=seed)
    generator, losses = distillation(
        runs, load_sampler(sampling), config, steps=steps, learning_rate=learning_rate
    )
    settings = {"method": "distil", "runs": str(runs), "steps": steps, **asdict(config), **asdict(sampling)}
    folder.begin(settings | {"learning_rate": learning_rate})
    with folder.lock(), RunProgress(stderr(), steps, "steps") as progress, progress.phase("distil", steps):
        for loss in losses:
            progress.newest = f"loss {loss:.4g}"
            progress.advance(1)
        generator.save(folder / GENERATOR)
    written = folder / GENERATOR
    show(Text(f"wrote {written}"), {"generator": written, "loss": loss})
