"""`diffalign generate`: pictures from learned noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.options import Positive, Sampling

if TYPE_CHECKING:
    from diffalign.diffusion import Sampler
    from diffalign.policies.noise import NoiseDistribution


def generate(
    noise: Annotated[Path, Parameter(name="NOISE")],
    /,
    *,
    number: Annotated[Positive, Parameter(name=["--number", "-n"])] = 8,
    seed: int = 0,
    out: Path | None = None,
    model: str | None = None,
    batch_size: Positive = 16,
    device: str | None = None,
) -> None:
    """Make pictures from learned noise.

    Steps, guidance and scheduler are those that the noise was learned with. The pictures are the same,
    bit by bit, as plain diffusers makes of `noise.sample(n, seed)` in batches of the same size.

        diffalign generate runs/a-green-dog-on-the-grass -n 16 --seed 1

    Args:
        noise: a run's folder or its noise.safetensors.
        number: pictures.
        seed: of the noise; other seeds give other pictures.
        out: folder of the pictures; pictures/ beside the noise by default.
        model: the model, where it is not found by the name that was recorded.
        batch_size: pictures made at a time.
        device: such as cpu or cuda:0.
    """
    from PIL import Image

    from diffalign.artifacts import replacing
    from diffalign.cli.folders import PICTURES
    from diffalign.cli.tables import stdout
    from diffalign.evaluation import as_bytes
    from diffalign.report.plots import grid

    learned, sampler = open_noise(noise, model=model, batch_size=batch_size, device=device)
    prompt = learned.metadata["prompt"]
    out = out or (noise if noise.is_dir() else noise.parent) / PICTURES
    out.mkdir(parents=True, exist_ok=True)
    pictures = as_bytes(sampler(learned.sample(number, seed), prompt))
    shown = pictures if pictures.ndim == 4 else pictures[:, pictures.shape[1] // 2]  # of a video its middle
    for index, picture in enumerate(shown):
        with replacing(out / f"seed{seed}-{index:03d}.png") as file:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "png")
    grid(pictures, out / f"seed{seed}-grid.png", title=prompt)
    stdout().print(Text(f"wrote {number} pictures and seed{seed}-grid.png to {out}"), soft_wrap=True)


def open_noise(
    path: Path, *, model: str | None, batch_size: int, device: str | None
) -> tuple[NoiseDistribution, Sampler]:
    """Learned noise, and a sampler of its model with the settings it was learned with.

    Raises:
        ArtifactError: if the file does not hold noise, or noise of another model.
    """
    from diffalign.cli.loading import load_sampler
    from diffalign.diffusion import fingerprint
    from diffalign.policies.noise import ArtifactError, NoiseDistribution

    learned = NoiseDistribution.load(path)
    recorded = learned.metadata
    try:
        guidance = recorded["guidance_scale"]
        options = Sampling(
            model=model or recorded["model"],
            num_steps=int(recorded["num_steps"]),
            guidance_scale=None if guidance == "None" else float(guidance),
            batch_size=batch_size,
            # a DDIM scheduler made of the pipeline's own settings is the pipeline's own if that is one
            scheduler="ddim" if recorded["scheduler"] == "DDIMScheduler" else "keep",
            device=device,
            dtype=recorded.get("dtype"),  # type: ignore[arg-type]
        )
        recorded["prompt"]
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} does not say what it was learned for ({error})") from error
    sampler = load_sampler(options)
    learned.check_model(fingerprint(sampler.pipeline), sampler.latent_shape)
    scheduler = type(sampler.pipeline.scheduler).__name__
    if scheduler != recorded["scheduler"]:
        raise ArtifactError(
            f"this noise was learned with {recorded['scheduler']}; {options.model!r} has {scheduler}"
        )
    return learned, sampler
