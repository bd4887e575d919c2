"""The embedded world's own figures: judge, reward, accuracy, speed, size.

    python benchmarks/world.py --images 64 --threads 2
    python benchmarks/world.py --images 20 --threads 1 --model world-flow
    python benchmarks/world.py --images 20 --threads 1 --model world-video --num-steps 8

Prints them and, with `--card`, writes them into the model card beside the weights. The models of pictures
share judge and reward, which are measured with the model `world` alone; of videos it is the judge of motion.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_prompts
from diffalign.diffusion.cards import CARDS
from diffalign.metrics import bootstrap
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect
from diffalign.world import WORLD_MODELS, WORLD_VIDEO
from diffalign.world.grammar import caption
from diffalign.world.judge import judge, read_scenes
from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import EVEN, Scene, sample_scene

sys.path.insert(0, str(Path(__file__).parents[1]))  # the recipe is not installed with the package
from recipes.world.data import CLIPS, FREQUENCIES, clip_batch, near_miss, scene_batch, truth
from recipes.world.export import write_card

CLIPS_EVEN = replace(EVEN, arrangement=(1, 0, 0, 0, 0))


def content(scene: Scene) -> tuple[object, ...]:
    return sorted((thing.subject, str(thing.tint)) for thing in scene.things), scene.background


def agreement(scenes: list[Scene], images: Tensor) -> float:
    """Share of pictures in which the judge reads exactly what was rendered."""
    return float(
        np.mean([content(a) == content(b) for a, b in zip(scenes, read_scenes(images), strict=True)])
    )


def difference(scene: Scene, miss: Scene) -> str:
    """What is wrong in a near miss."""
    if scene.background != miss.background:
        return "background"
    if len(scene.things) != len(miss.things):
        return "count"
    if content(scene) == content(miss):
        return "places"
    subjects, tints = (
        [sorted(str(getattr(thing, name)) for thing in each.things) for each in (scene, miss)]
        for name in ("subject", "tint")
    )
    if subjects[0] != subjects[1]:
        return "subject"
    return "whose colour" if tints[0] == tints[1] else "colour"


def told_apart(clip: WorldClip, number: int) -> dict[str, float]:
    """Share of rendered pictures that fit their own caption better than that of a near miss, by what is wrong
    there; of `number` pairs those in which neither caption is true of the other's picture."""
    rng, found = np.random.default_rng(10**6), {}
    for _ in range(number):
        scene = sample_scene(rng, EVEN)
        pair = [scene, near_miss(scene, rng)]
        captions = [caption(each, rng, EVEN) for each in pair]
        if truth(pair, captions).equal(torch.eye(2, dtype=torch.bool)):
            images = clip.embed_images(to_tensor([render(each) for each in pair]))
            fits = images @ clip.embed_prompts(captions).T
            right = (fits.diag() > fits.flip(1).diag()).float()
            found.setdefault(difference(*pair), []).append(float(right.mean()))
    return {f"world-clip, {kind}: told apart": float(np.mean(each)) for kind, each in sorted(found.items())}


def judge_figures(vae: AutoencoderKL, number: int) -> dict[str, float]:
    """Shares of `number` held-out scenes of each table, and of empty pictures, that the judge reads right."""
    figures = {}
    for name, table in FREQUENCIES.items():
        scenes, images, _ = scene_batch(np.random.default_rng(10**6), number, table)
        with torch.no_grad():
            decoded = [vae(part * 2 - 1).sample / 2 + 0.5 for part in images.split(32)]
        figures[f"judge, {name} scenes"] = agreement(scenes, images)
        figures[f"judge, {name} scenes after the autoencoder"] = agreement(scenes, torch.cat(decoded))
    generator = torch.Generator().manual_seed(0)
    blank = [
        torch.rand(64, 3, 64, 64, generator=generator),
        torch.rand(64, 1, 1, 1, generator=generator).expand(-1, 3, 64, 64),
    ]
    figures["noise, grey and blank pictures read as empty"] = float(
        np.mean([not scene.things for scene in read_scenes(torch.cat(blank))])
    )
    return figures


def clip_figures(vae: AutoencoderKL, number: int) -> dict[str, float]:
    """Shares of `number` held-out clips that the judge finds right, and of other clips' captions that are."""
    figures = {}
    for name, table, even in (("clips", CLIPS, False), ("clips, all alike often", CLIPS_EVEN, True)):
        right, wrong, decoded = list[Tensor](), list[Tensor](), list[Tensor]()
        for i in range(0, number, 50):
            _, video, captions = clip_batch(np.random.default_rng([10**6, i]), 50, table, even)
            right.append(judge(video, captions)[0])
            wrong.append(judge(video, captions[1:] + captions[:1])[0])
            with torch.no_grad():
                frames = vae(video.flatten(0, 1) * 2 - 1).sample / 2 + 0.5
            decoded.append(judge(frames.unflatten(0, video.shape[:2]), captions)[0])
        for said, verdicts in (("", right), (" after the autoencoder", decoded), (", of another", wrong)):
            figures[f"judge, {name}{said}: right"] = float(torch.cat(verdicts).float().mean())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=WORLD_MODELS, default="world")
    parser.add_argument("--images", type=int, default=64, help="pictures a prompt")
    parser.add_argument("--scenes", type=int, default=1000, help="held-out scenes for the judge")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--guidance-scale", type=float, help="the card's by default")
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--sets", help="of prompts; the model's by default")
    parser.add_argument("--card", action="store_true", help="write the figures into the model card")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline(arguments.model)
    sampler = Sampler(
        pipeline, num_steps=arguments.num_steps, guidance_scale=arguments.guidance_scale, batch_size=32
    )
    figures: dict[str, object] = {}
    video = arguments.model == WORLD_VIDEO
    sets = "world/video-common,world/video" if video else "world/common,world/unusual,world/heldout"

    clip = WorldClip()
    if video:
        figures = dict(clip_figures(pipeline.vae, arguments.scenes))
        print(json.dumps(figures, indent=1), flush=True)
    if arguments.model == "world":
        figures = judge_figures(pipeline.vae, arguments.scenes) | told_apart(clip, 4 * arguments.scenes)
        print(json.dumps(figures, indent=1), flush=True)

    standard = NoiseDistribution.standard(sampler.latent_shape)
    for name in (arguments.sets or sets).split(","):
        verdicts, correlations = [], []
        for prompt in load_prompts(name).prompts:
            images = collect(
                standard, sampler, prompt.text, range(arguments.images), seed=0, stream="world"
            ).images
            verdicts.append(judge(images, [prompt.text] * len(images))[0].float())
            print(f"  {name:14s} {prompt.text:40s} {verdicts[-1].mean():.2f}", flush=True)
            if video:
                continue
            scores = clip(images, [prompt.text] * len(images))
            if 0 < verdicts[-1].mean() < 1:
                correlations.append(float(torch.corrcoef(torch.stack([verdicts[-1], scores]))[0, 1]))
        figures[f"{name}: right"] = bootstrap(torch.cat(verdicts)).as_dict()
        rates = [float(verdict.mean()) for verdict in verdicts]
        if correlations:
            figures[f"{name}: correlation of world-clip with the verdict"] = float(np.mean(correlations))
        figures[f"{name}: least and most right prompt"] = [min(rates), max(rates)]

    began = time.perf_counter()
    collect(standard, sampler, "a dog on the grass", range(64), seed=1, stream="world")
    made = f"{'a video' if video else 'an image'} ({arguments.num_steps} steps, guidance, decode)"
    figures[f"seconds {made}"] = (time.perf_counter() - began) / 64
    figures["threads"] = arguments.threads
    figures["guidance scale"] = sampler.guidance_scale
    folder = Path(CARDS[arguments.model].source)
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    figures["megabytes of weights"] = size / 1e6
    print(json.dumps(figures, indent=1))
    if arguments.card:
        write_card(folder, figures)


if __name__ == "__main__":
    main()
