"""The recipe's last stage: checkpoints to the pipeline folder that the package ships."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, TextToVideoSDPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from diffalign.world import WORLD_FOLDER
from diffalign.world.scenes import Frequencies
from recipes.world import models
from recipes.world.data import CLIPS, COMPOSED, FREQUENCIES, MOTION_FREQUENCIES
from recipes.world.stages import STAGES
from recipes.world.stages.autoencoder import DecoderStage, latent_scale
from recipes.world.stages.clip import ClipStage, text_tower
from recipes.world.stages.flow import trained_denoiser
from recipes.world.stages.stage import load_stage

WORLD_ABOUT = """\
# The embedded world's models

Made from nothing by `python -m recipes.world.train`; the weights are what it wrote (float16),
{megabytes} MB in all. Licence: Apache-2.0. The sprites that the training pictures
show come from Noto Color Emoji (SIL Open Font License 1.1).

Data: pictures of `diffalign.world.scenes`, captions of `diffalign.world.grammar`. CLIP and the
autoencoder see the table `even`, the denoiser `long-tail` and then (`refine`) `composed`:"""

FLOW_ABOUT = """\
# The embedded world's denoiser for flow matching

Trained from the weights of the world's denoiser by the stage `flow` of `python -m recipes.world.train`;
the weights are what it wrote (float16), {megabytes} MB. Licence: Apache-2.0. The sprites that the
training pictures show come from Noto Color Emoji (SIL Open Font License 1.1).

x_t = (1 − t) x_0 + t ε, target ε − x_0, timestep 1000 t, t uniform, 10 % of captions dropped. The text
encoder, the tokenizer and the autoencoder are those of `../weights`. The scheduler's first-order solver
is Euler's method.

Data: pictures of `diffalign.world.scenes`, captions of `diffalign.world.grammar`, by the table `composed`:"""

VIDEO_ABOUT = """\
# The embedded world's denoiser of videos

Trained by the stage `video` of `python -m recipes.world.train`, its layers in space and its text encoder from
the world's weights; the weights are what it wrote (float16), {megabytes} MB. Licence: Apache-2.0. The
sprites that the training pictures show come from Noto Color Emoji (SIL Open Font License 1.1). The
autoencoder is that of `../weights`.

Data: clips of `diffalign.world.clips`, captions of `diffalign.world.grammar`, by the table `clips`, with
motions as often as `motions` says (right, left, up, down, still):"""


def export(folder: Path, target: Path) -> None:
    """Assembles the stages trained in `folder` into a `StableDiffusionPipeline`, float16, at `target`.

    Beside the pipeline stand `clip/` (the whole CLIP, for the reward) and `recipe.json` (what was
    trained, for how long, to which loss, and the SHA-256 of each weight file).
    """
    others = ("flow", "video")
    trained = [n for n in STAGES if n not in others and (folder / n / "ema.safetensors").exists()]
    clip = ClipStage()
    text_encoder = text_tower(load_stage(clip, folder))
    clip_model = load_stage(clip, folder, "reward" if "reward" in trained else "clip")
    vae = load_stage(DecoderStage(folder), folder)
    vae.register_to_config(scaling_factor=latent_scale(vae))
    unet = models.build_unet()
    unet.load_state_dict(load_file(folder / trained_denoiser(folder) / "ema.safetensors"))
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip.tokenizer,
        unet=unet,
        scheduler=models.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if target.exists():
        shutil.rmtree(target)
    pipeline.to(dtype=torch.float16).save_pretrained(target, safe_serialization=True)
    clip_model.half().save_pretrained(target / "clip")
    describe(target, "world", folder, trained, FREQUENCIES)


def export_flow(folder: Path, target: Path) -> None:
    """Writes what the pipeline of the stage `flow` has of its own: denoiser, scheduler and model card.

    The other parts are the world's; `model_index.json` names the classes of all.
    """
    unet = models.build_unet()
    unet.load_state_dict(load_file(folder / "flow" / "ema.safetensors"))
    scheduler = models.build_flow_scheduler()
    world = StableDiffusionPipeline.from_pretrained(WORLD_FOLDER).components
    pipeline = StableDiffusionPipeline(
        **{**world, "unet": unet, "scheduler": scheduler}, requires_safety_checker=False
    )
    save_own(pipeline, target, ("unet", "scheduler"))
    describe(target, "world-flow", folder, ["flow"], {"composed": COMPOSED})


def export_video(folder: Path, target: Path) -> None:
    """Writes what the pipeline of the stage `video` has of its own.

    The autoencoder is the world's; `model_index.json` names the classes of all.
    """
    weights = load_file(folder / "video" / "ema.safetensors")
    tokenizer = models.build_tokenizer(models.VIDEO_WORDS)
    clip = models.build_clip(tokenizer)
    parts = {"unet": models.build_video_unet(), "text_encoder": CLIPTextModel(clip.config.text_config)}
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(name)}
        part.load_state_dict(own)
    vae = StableDiffusionPipeline.from_pretrained(WORLD_FOLDER).vae
    pipeline = TextToVideoSDPipeline(
        **parts, vae=vae, tokenizer=tokenizer, scheduler=models.build_scheduler()
    )
    save_own(pipeline, target, (*parts, "tokenizer", "scheduler"))
    describe(target, "world-video", folder, ["video"], {"clips": CLIPS, "motions": MOTION_FREQUENCIES})


def save_own(pipeline: DiffusionPipeline, target: Path, parts: Sequence[str]) -> None:
    """Writes `parts` of a pipeline, networks in float16, and the index of all, into a fresh folder."""
    if target.exists():
        shutil.rmtree(target)
    pipeline.save_config(target)
    for name in parts:
        part = getattr(pipeline, name)
        if isinstance(part, torch.nn.Module):
            part.half()
        part.save_pretrained(target / name)


def describe(
    target: Path, model: str, folder: Path, trained: list[str], frequencies: Mapping[str, object]
) -> None:
    """Writes `recipe.json` (stages `trained` in `folder`, data, weights) and the model card at `target`."""
    stages = {}
    for name in trained:
        lines = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
        with safe_open(folder / name / "ema.safetensors", "pt") as file:
            steps = int(file.metadata()["step"])
        stages[name] = {"steps": steps, "seconds": lines[-1]["seconds"], "last": lines[-1]}
    weights = sorted(target.rglob("*.safetensors"))
    recipe = {
        "model": model,
        "stages": stages,
        "frequencies": {
            name: vars(table) if isinstance(table, Frequencies) else table
            for name, table in frequencies.items()
        },
        "sha256": {str(w.relative_to(target)): hashlib.sha256(w.read_bytes()).hexdigest() for w in weights},
        "megabytes": round(sum(w.stat().st_size for w in weights) / 1e6, 2),
    }
    (target / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    write_card(target, {})


def unpack(source: Path, folder: Path) -> None:
    """Writes the weights of the pipeline at `source` as finished stages, to train on from them.

    In `folder` appear `clip` (of which only the denoiser's text tower ships), `vae`, `decoder`, `unet` and
    `reward`, with the weights that ship: a stage `refine` or `reward` run there trains them further, not
    again.

    Raises:
        SystemExit: if `folder` already holds a stage.
    """
    recipe = json.loads((source / "recipe.json").read_text())
    weights = {
        "clip": {
            f"text_model.{name}": tensor
            for name, tensor in load_file(source / "text_encoder/model.safetensors").items()
        },
        "vae": load_file(source / "vae/diffusion_pytorch_model.safetensors"),
        "decoder": load_file(source / "vae/diffusion_pytorch_model.safetensors"),
        "unet": load_file(source / "unet/diffusion_pytorch_model.safetensors"),
        "reward": load_file(source / "clip/model.safetensors"),
    }
    for name, tensors in weights.items():
        stage = recipe["stages"][name]
        target = folder / name
        if target.exists():
            raise SystemExit(f"{target} exists: unpack into an empty folder")
        target.mkdir(parents=True)
        save_file(tensors, target / "ema.safetensors", {"step": str(stage["steps"])})
        (target / "log.jsonl").write_text(json.dumps(stage["last"]) + "\n")


def write_card(target: Path, figures: Mapping[str, object]) -> None:
    """Writes the model card `README.md` from `recipe.json` and measured `figures` (none: not measured)."""
    recipe = json.loads((target / "recipe.json").read_text())
    stages = [
        f"| {name} | {stage['steps']} | {stage['seconds'] / 60:.0f} | {stage['last']['loss']:.4f} |"
        for name, stage in recipe["stages"].items()
    ]
    tables = [f"- {name}: `{json.dumps(table)}`" for name, table in recipe["frequencies"].items()]
    measured = [f"| {name} | {json.dumps(value)} |" for name, value in figures.items()]
    command = "python benchmarks/world.py --card"
    model = recipe.get("model", "world")
    about = {"world": WORLD_ABOUT, "world-flow": FLOW_ABOUT, "world-video": VIDEO_ABOUT}[model]
    if model != "world":
        command += f" --model {model}"
    lines = [
        *about.format(megabytes=recipe["megabytes"]).splitlines(),
        "",
        *tables,
        "",
        "| stage | steps | minutes (one CPU thread) | last training loss |",
        "| --- | --- | --- | --- |",
        *stages,
        "",
        f"| measured by `{command}` | |",
        "| --- | --- |",
        *(measured or ["| not yet | |"]),
        "",
        "| file | SHA-256 |",
        "| --- | --- |",
        *[f"| {name} | `{digest}` |" for name, digest in recipe["sha256"].items()],
    ]
    (target / "README.md").write_text("\n".join(lines) + "\n")
