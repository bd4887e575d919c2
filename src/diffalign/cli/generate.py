"""`diffalign generate`: pictures from learned noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.errors import UsageError
from diffalign.cli.options import Dtype, Opening, Positive, Sampling

if TYPE_CHECKING:
    from diffalign.diffusion import Sampler
    from diffalign.policies.noise import NoiseDistribution

_OPENING = Opening()


def generate(
    noise: Annotated[Path, Parameter(name="NOISE")],
    /,
    *,
    number: Annotated[Positive, Parameter(name=["--number", "-n"])] = 8,
    seed: int = 0,
    prompt: str | None = None,
    frozen: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    opening: Opening = _OPENING,
) -> None:
    """Make pictures from learned noise, or of any prompt from a noise generator.

    Steps, guidance and scheduler are those that the noise was learned with. The pictures are the same,
    bit by bit, as plain diffusers makes of `noise.sample(n, seed)` in batches of the same size.

        diffalign generate runs/a-blue-car-on-the-moon -n 16 --seed 1
        diffalign generate runs/noise-ppo-default --prompt "three pandas"

    Args:
        noise: a run's folder, or its noise.safetensors or generator.safetensors; or a folder of runs.
        number: pictures, of each.
        seed: of the noise; other seeds give other pictures.
        prompt: what the pictures should show, of a generator; noise was learned for a prompt of its own.
        frozen: what the model makes without what was learned, of the same noise ε, to compare with.
        out: folder of the pictures; pictures/ (or frozen/) beside the noise by default, and in it one of the
            prompt if one is given. Of a folder of runs, each gets a folder in it.
    """
    if runs := _runs_in(noise):
        if prompt is not None:
            raise UsageError(f"{noise} holds runs of several prompts, each of its own; leave out --prompt")
        for run in runs:
            place = None if out is None else out / run.name
            generate(run, number=number, seed=seed, frozen=frozen, out=place, opening=opening)
        return
    from PIL import Image

    from diffalign.artifacts import FROZEN, PICTURES, replacing
    from diffalign.cli.folders import slug
    from diffalign.cli.tables import stdout
    from diffalign.evaluation import as_bytes
    from diffalign.evaluation.sources import PROMPT
    from diffalign.policies.noise import NoiseDistribution
    from diffalign.report.plots import grid

    own = prompt
    learned, sampler = open_noise(noise, opening, prompt)
    prompt = learned.metadata["prompt"]
    beside = (noise if noise.is_dir() else noise.parent) / (FROZEN if frozen else PICTURES)
    out = out or (beside if own is None else beside / slug(prompt))
    out.mkdir(parents=True, exist_ok=True)
    drawn = NoiseDistribution.standard(learned.latent) if frozen else learned
    pictures = as_bytes(sampler(drawn.sample(number, seed), prompt))
    shown = pictures if pictures.ndim == 4 else pictures[:, pictures.shape[1] // 2]  # of a video its middle
    for index, picture in enumerate(shown):
        with replacing(out / f"seed{seed}-{index:03d}.png") as file:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "png")
    with replacing(out / PROMPT) as file:  # for `measure` and `study`
        file.write_text(f"{prompt}\n", "utf-8")
    grid(pictures, out / f"seed{seed}-grid.png", title=prompt)
    stdout().print(
        Text(f"wrote {number} picture{'s' * (number > 1)} and seed{seed}-grid.png to {out}"), soft_wrap=True
    )


def _runs_in(folder: Path) -> list[Path]:
    """The runs of `find`, one a prompt, in a folder that is none itself."""
    from diffalign.artifacts import CONFIG, NOISE
    from diffalign.cli.tables import stdout, warn

    if (folder / NOISE).exists() or _generates(folder):
        return []
    runs = sorted(file.parent for file in folder.glob(f"*/{NOISE}"))
    others = sorted(file.parent.name for file in folder.glob(f"*/{CONFIG}") if file.parent not in runs)
    if runs and others:
        warn(stdout(), [f"without noise, and so left out: {', '.join(others)}"])
    return runs


def _generates(path: Path) -> bool:
    from diffalign.artifacts import GENERATOR

    return path.name == GENERATOR or (path / GENERATOR).is_file()


def recorded_of(path: Path, prompt: str | None) -> dict[str, str]:
    """What learned noise says of itself, or a generator of itself and `prompt`.

    Raises:
        ArtifactError: if the file holds neither.
        UsageError: if a generator has no prompt, or noise is given another one than its own.
    """
    from diffalign.policies.generator import NoiseGenerator
    from diffalign.policies.noise import NoiseDistribution

    if _generates(path):
        if prompt is None or not prompt.strip():
            raise UsageError(f"{path} holds a noise generator; say with --prompt what pictures should show")
        return {**NoiseGenerator.load(path).metadata, "prompt": prompt}
    recorded = NoiseDistribution.load(path).metadata
    if prompt not in (None, own := recorded.get("prompt")):
        raise UsageError(f"{path} was learned for “{own}”; leave out --prompt")
    return dict(recorded)


def open_noise(path: Path, opening: Opening, prompt: str | None = None) -> tuple[NoiseDistribution, Sampler]:
    """Learned noise, or what a generator says of `prompt`, and a sampler of its model with the settings it
    was learned with.

    A CPU hardly computes in float16: there it becomes float32, with a note, unless `opening` says float16.

    Raises:
        ArtifactError, UsageError: as `recorded_of`; or if it is noise of another model.
    """
    import torch

    from diffalign.cli.loading import load_sampler
    from diffalign.cli.tables import stdout
    from diffalign.diffusion import fingerprint
    from diffalign.diffusion.pipeline import default_device
    from diffalign.policies.generator import NoiseGenerator
    from diffalign.policies.noise import ArtifactError, NoiseDistribution

    recorded, dtype = recorded_of(path, prompt), opening.dtype
    learned_in = recorded.get("dtype")
    device = str(opening.device or default_device())
    if dtype is None and learned_in == "float16" and device.startswith("cpu"):
        dtype = "float32"
        note = "learned in float16, made in float32 on this CPU: the pictures differ a little"
        stdout().print(Text(note, style="yellow"), soft_wrap=True)
    precision = dtype or learned_in
    if "bfloat16" in (dtype, learned_in):  # it rounds what tells a model, so this is read as it was recorded
        precision = learned_in or dtype
    try:
        if learned_in not in (None, *get_args(Dtype)):
            raise ValueError(f"unknown dtype {learned_in!r}")
        guidance = recorded["guidance_scale"]
        options = Sampling(
            model=opening.model or recorded["model"],
            num_steps=int(recorded["num_steps"]),
            guidance_scale=None if guidance == "None" else float(guidance),
            batch_size=opening.batch_size,
            # a DDIM scheduler made of the pipeline's own settings is the pipeline's own if that is one
            scheduler="ddim" if recorded["scheduler"] == "DDIMScheduler" else "keep",
            device=opening.device,
            dtype=precision,  # type: ignore[arg-type]
        )
        recorded["prompt"]
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} does not say what it was learned for ({error})") from error
    sampler = load_sampler(options)
    if _generates(path):
        with torch.no_grad():
            noise = NoiseGenerator.load(path, sampler.pipeline)(recorded["prompt"])
        learned = replace(noise, metadata=recorded)
    else:
        learned = NoiseDistribution.load(path)
    learned.check_model(fingerprint(sampler.pipeline), sampler.latent_shape)
    if dtype is not None:
        sampler.pipeline.to(getattr(torch, dtype))
    scheduler = type(sampler.pipeline.scheduler).__name__
    if scheduler != recorded["scheduler"]:
        raise ArtifactError(
            f"this noise was learned with {recorded['scheduler']}; {options.model!r} has {scheduler}"
        )
    return learned, sampler
