"""`diffalign distil`: a noise generator from what FIND found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from diffalign.cli.errors import UsageError
from diffalign.cli.options import RUN, Positive, Sampling

_SAMPLING = Sampling()


def distil(
    runs: Annotated[Path, Parameter(name="RUNS", group=RUN)],
    /,
    *,
    steps: Annotated[Positive, Parameter(group=RUN)] = 300,
    learning_rate: Annotated[float, Parameter(group=RUN, validator=validators.Number(gt=0))] = 1e-3,
    basis: Annotated[str, Parameter(group=RUN)] = "identity",
    std: Annotated[str, Parameter(group=RUN)] = "learned",
    seed: Annotated[int, Parameter(group=RUN)] = 0,
    out: Annotated[Path, Parameter(group=RUN)] = Path("runs/distilled"),
    overwrite: Annotated[bool, Parameter(negative="", group=RUN)] = False,
    sampling: Sampling = _SAMPLING,
) -> None:
    """Learn one noise generator from a folder of `find` runs, without a reward query.

    It says of each prompt's tokens what noise FIND found, and can start other runs:
    `diffalign find PROMPT --start runs/distilled`.

        diffalign find --prompts world/unusual
        diffalign distil runs/world-unusual --out runs/distilled

    Args:
        runs: a folder of runs of `diffalign find`, or one of them.
        steps: optimiser steps.
        learning_rate: of Adam.
        basis: where it decides: identity, or dctK, the K×K lowest frequencies.
        std: learned, or preserving (s² = 1 − m²).
        seed: of its first weights and of the samples.
        out: the generator's folder.
        overwrite: replace what the folder holds.
    """
    from diffalign.artifacts import GENERATOR, NOISE, RunFolder, replacing, versions
    from diffalign.cli.loading import load_sampler
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, stdout
    from diffalign.diffusion.conditions import prompt_states
    from diffalign.methods.origins import origin
    from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
    from diffalign.policies.noise import NoiseDistribution
    from diffalign.training.distilling import distil as fit

    files = sorted(runs.glob(f"**/{NOISE}")) if runs.is_dir() else []
    if not files:
        raise UsageError(f"{runs} holds no {NOISE}; give a folder of runs of diffalign find")
    RunFolder.check(out, overwrite)
    sampler = load_sampler(sampling)
    found = {}
    for file in files:
        noise = NoiseDistribution.load(file)
        if "prompt" not in noise.metadata:
            raise UsageError(f"{file} does not say for which prompt it was learned")
        found[noise.metadata["prompt"]] = noise
    pipeline, described = sampler.pipeline, origin(sampler, "distilled")
    for noise in found.values():
        noise.check_model(described["model_fingerprint"], sampler.latent_shape)
    width = prompt_states(pipeline, next(iter(found))).shape[-1]
    generator = GaussianGenerator(
        GaussianShape(sampler.latent_shape, width, basis, std),
        lambda prompt: prompt_states(pipeline, prompt),
        {"model": sampling.model, **described, **versions()},
        seed=seed,
    )
    settings = {"runs": str(runs), "steps": steps, "learning_rate": learning_rate, "basis": basis}
    folder = RunFolder.create(out, settings | {"std": std, "seed": seed}, overwrite=overwrite)
    console = stdout()
    with folder.lock(), RunProgress(console, steps) as progress, progress.phase("distil", steps):
        for loss in fit(generator, found, steps=steps, learning_rate=learning_rate, seed=seed):
            progress.advance(1)
            progress.reward(-loss, -loss)
        with replacing(folder / GENERATOR) as file:
            generator.save(file)
    paths(console, [folder / GENERATOR])
