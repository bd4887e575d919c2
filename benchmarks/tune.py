"""Tuning the denoiser: each objective alone and with B²-DiffuRL's strategies, at the same reward queries.

    python benchmarks/tune.py run --variants ddpo,b2-ddpo --seeds 3
    python benchmarks/tune.py table

Trains on `world/unusual` with `world-clip`, measures fresh pictures of training and of held-out prompts:
CLIPScore, the exact judge, inception score on CLIP features and mean pairwise distance. `run` appends one
line a (variant, seed) to a results file and skips those that it holds, so it can be killed, and run in
shards (`--shard 0/2`). `table` prints means with 95 % intervals (bootstrap over prompts × seeds).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from find import append, clusters, digest, interval, percent, read

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_prompts
from diffalign.diffusion import fingerprint
from diffalign.methods import TUNE_PRESETS, Tune
from diffalign.metrics import inception_score, mean_pairwise_distance
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect
from diffalign.training import TuneConfig
from diffalign.world.judge import judge

TRAINING, HELD_OUT = "world/unusual", "world/heldout"


def variants(samples: int, rounds: int, **changes: Any) -> dict[str, TuneConfig]:
    """The presets and the ablation of B²'s two strategies, with as many reward queries."""
    made = {
        name: replace(config, samples=samples, rounds=rounds, **changes)
        for name, config in TUNE_PRESETS.items()
    }
    both = made["b2-ddpo"]
    made["bpt-only"] = replace(both, branches=1, threshold=0.0, update_batch=made["ddpo"].update_batch)
    made["bs-only"] = replace(both, interval="full")
    return made


def measure(sampler: Sampler, clip: WorldClip, prompt_set: str, n: int, seed: int) -> dict[str, Any]:
    """Figures of `n` fresh pictures a prompt; the same noise for every variant."""
    standard, found = NoiseDistribution.standard(sampler.latent_shape), {}
    for prompt in load_prompts(prompt_set).texts:
        images = collect(standard, sampler, prompt, range(n), seed=seed, stream="evaluate").images
        features = clip.image_features(images)
        found[prompt] = {
            "verdict": judge(images, [prompt] * n)[0].int().tolist(),
            "world-clip": [round(v, 4) for v in clip(images, [prompt] * n).tolist()],
            "inception": [inception_score(features)],
            "distance": [mean_pairwise_distance(features)],
        }
    return found


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    changes = json.loads(arguments.changes)
    settings, clip = variants(arguments.samples, arguments.rounds, **changes), WorldClip()
    part, parts = (int(number) for number in arguments.shard.split("/"))
    jobs = [(v, s) for s in range(arguments.seeds) for v in ["frozen", *arguments.variants.split(",")]]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read(arguments.results)}
    for variant, seed in jobs[part::parts]:
        pipeline = load_pipeline("world")
        pipeline.unet.to(memory_format=torch.channels_last)  # a fifth faster
        sampler = Sampler(pipeline, num_steps=20, batch_size=32)
        config = None if variant == "frozen" else replace(settings[variant], seed=seed)
        about = [fingerprint(pipeline), arguments.fresh, None if config is None else asdict(config)]
        key = digest(variant, seed, *about)
        if key in done:
            continue
        row = {"key": key, "variant": variant, "seed": seed, "model": about[0], "fresh_n": arguments.fresh}
        if config is not None:
            tuning = Tune(sampler, load_prompts(TRAINING).texts, clip, config, reward_name="world-clip")
            began, curve = time.perf_counter(), []
            for step in tuning:
                curve.append(round(float(step.rewards.mean()), 3))
                print(variant, seed, step.round, curve[-1], step.update.selected, flush=True)
            row |= {"config": asdict(config), "seconds": time.perf_counter() - began, "curve": curve}
            row |= {"queries": tuning.tuner.queries, "optimiser_steps": tuning.tuner.optimiser_steps}
        with torch.inference_mode():
            for name, prompts in (("training", TRAINING), ("held_out", HELD_OUT)):
                row[name] = measure(sampler, clip, prompts, arguments.fresh, seed)
        append(arguments.results, row)


def table(arguments: argparse.Namespace) -> None:
    rows = list(read(arguments.results))
    if len({(row["model"], row["fresh_n"]) for row in rows}) > 1:
        raise SystemExit(f"{arguments.results} mixes several models or sizes; give another --results")
    frozen = {row["seed"]: row for row in rows if row["variant"] == "frozen"}
    for prompts in ("training", "held_out"):
        print(f"\n{prompts} prompts")
        for variant in dict.fromkeys(row["variant"] for row in rows):
            own = [row for row in rows if row["variant"] == variant]
            cells = {
                name: [{"fresh": row[prompts][prompt]} for row in own for prompt in row[prompts]]
                for name in ("verdict", "world-clip", "inception", "distance")
            }
            gains = {
                name: [
                    [a - b for a, b in zip(found[name], frozen[row["seed"]][prompts][p][name], strict=True)]
                    for row in own
                    for p, found in row[prompts].items()
                ]
                for name in cells
            }
            seconds = sum(row.get("seconds", 0) for row in own) / len(own)
            print(
                f"  {variant:9s} right {percent(clusters(cells['verdict'], 'verdict'))} "
                f"gain {percent(gains['verdict'])}  CLIPScore {interval(gains['world-clip'])}  "
                f"IS {interval(gains['inception'])}  distance {interval(gains['distance'])}  "
                f"({len(own)} runs, {seconds:.0f} s)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("run", run), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--results", type=Path, default=Path("benchmarks/results/tune.jsonl"))
        if name == "run":
            command.add_argument("--variants", default=",".join(TUNE_PRESETS))
            command.add_argument("--seeds", type=int, default=3)
            command.add_argument("--samples", type=int, default=96, help="pictures a round")
            command.add_argument("--rounds", type=int, default=20)
            command.add_argument("--fresh", type=int, default=16, help="fresh pictures a prompt")
            command.add_argument("--changes", default="{}", help="of the settings, as JSON")
            command.add_argument("--shard", default="0/1")
            command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
