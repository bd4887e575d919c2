"""Pictures of what was learned, as files."""

from contextlib import nullcontext
from pathlib import Path

from PIL import Image
from torch import Tensor

from diffalign.files import FROZEN, MADE, PICTURES, PROMPT, replacing
from diffalign.policies.noise import NoiseDistribution
from diffalign.report.pictures import grid
from diffalign.report.video import write_video
from diffalign.rollout import as_bytes
from diffalign.run.folders import slug
from diffalign.run.opening import Opened


def write_pictures(
    opened: Opened,
    number: int,
    seed: int,
    prompt: str | None = None,
    *,
    frozen: bool = False,
    out: Path | None = None,
) -> Path:
    """Makes pictures and writes them as PNG files, with a grid of all and their prompt; returns the folder.

    A video's PNG is animated; beside it lie a GIF and, where PyAV is installed, an MP4.

    Arguments:
        prompt: where the artefact was learned for all prompts.
        frozen: what the model makes without what was learned, of the same noise ε.
        out: the folder; pictures/ or frozen/ beside the artefact by default, of another diversity than was
            learned pictures-diversity-D/. What it holds of the same seed goes.
    """
    text, sampler = opened.check_prompt(prompt), opened.sampler
    if frozen:
        x_T = NoiseDistribution.standard(sampler.latent_shape).sample(number, seed)
    else:
        x_T = opened.latents(text, number, seed)
    with opened.frozen() if frozen else nullcontext():
        pictures = as_bytes(sampler(x_T, text))
    name = PICTURES if opened.diversity is None else f"{PICTURES}-diversity-{opened.diversity:g}"
    beside = (opened.path if opened.path.is_dir() else opened.path.parent) / (FROZEN if frozen else name)
    out = out or (beside if prompt is None else beside / slug(text))
    for old in out.glob(f"seed{seed}-*"):  # else pictures of other runs of this would stand among these
        if MADE.fullmatch(old.name):
            old.unlink()
    save_pictures(pictures, out, text, seed)
    grid(pictures, out / f"seed{seed}-grid.png", title=text)
    return out


def save_pictures(pictures: Tensor, out: Path, prompt: str, seed: int) -> None:
    """Writes pictures `(n, 3, H, W)` or videos, uint8, as files by their numbers, and their prompt, which
    `measure` and `study` read."""
    out.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        path = out / f"seed{seed}-{i:03d}.png"
        if picture.ndim == 4:
            for suffix in (".png", ".gif", ".mp4"):
                write_video(picture, path.with_suffix(suffix))
            continue
        with replacing(path) as file:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "png")
    with replacing(out / PROMPT) as file:
        file.write_text(f"{prompt}\n", "utf-8")
