"""Tuning the denoiser: each objective alone and with B²-DiffuRL's strategies, at the same reward queries.

    python benchmarks/tune.py run --variants ddpo,b2-ddpo --seeds 3
    python benchmarks/tune.py run --model world-flow --variants flow-grpo --results FILE
    python benchmarks/tune.py table

Trains on every third prompt of `world/unusual` with `world-clip`, measures fresh pictures of training and of
held-out prompts: CLIPScore, the exact judge, inception score on CLIP features and mean pairwise distance.
All variants have the same queries, sampling, learning rate and weights of decisions; `ddpo-equal` and
`b2-ddpo-equal` weigh decisions alike, as published. `run` appends one line a (variant, seed) to a results
file and skips those that it holds, so it can be killed, and run in shards (`--shard 0/2`). `table` prints
means with 95 % intervals (bootstrap over prompts × seeds), and each `b2-…` less the objective alone.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from find import append, commands, digest, interval, percent, read

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_prompts
from diffalign.diffusion import fingerprint
from diffalign.loop import train
from diffalign.methods import build
from diffalign.metrics import inception_score, mean_pairwise_distance
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect
from diffalign.settings.tune import PRESETS, TuneConfig
from diffalign.world.judge import judge

TRAINING, HELD_OUT = "world/unusual", "world/heldout"
MEASURES = {"world-clip": "CLIPScore", "inception": "IS", "distance": "distance"}
PUBLISHED = [name for name, config in PRESETS.items() if name != "default" and config.sde == "ddim"]
FLOW = [name for name, config in PRESETS.items() if config.sde != "ddim"]  # of flow matching alone
#: What a variant is compared with, where its name does not say it.
OTHER = {
    "b2-ddpo-released": "ddpo",
    "bpt-only": "ddpo",
    "bs-only": "ddpo",
    "ddpo-equal": "ddpo",
    "b2-ddpo-equal": "b2-ddpo",
}
#: Of B²'s scripts: eight steps a round, at which 1e-3 collapses.
OWN: dict[str, dict[str, Any]] = {"b2-ddpo-released": {"update_batch": 10, "learning_rate": 3e-4}}
#: Of the published code for racks of GPUs: groups as large as the others have, and adapters as large.
OWN |= {name: {"samples_per_prompt": 12, "branches": 1, "lora_rank": 4} for name in FLOW}
OWN["mix-grpo"] |= {"first_steps": 4, "slide_rounds": 3}


def variants(arguments: argparse.Namespace) -> dict[str, TuneConfig]:
    """The presets, the ablation of B²'s two strategies and of the weights, with as many reward queries."""
    changes: dict[str, Any] = {
        "rounds": arguments.rounds,
        "update_batch": arguments.samples,
        "learning_rate": 3e-3,
        "step_weights": "variance",
        "min_count": 2,  # whatever a preset's: a round has 12 pictures a prompt
        "first_steps": arguments.num_steps * 14 // 20,  # as many of 20 as B² takes
        "micro_batch": 16,  # which is time alone
    }
    given, made = json.loads(arguments.changes), {}
    for name in PUBLISHED + FLOW:
        own = {"samples": arguments.samples - arguments.samples % PRESETS[name].branches, **OWN.get(name, {})}
        made[name] = replace(PRESETS[name], **changes | own | given)
    made["bpt-only"] = replace(made["b2-ddpo"], branches=1, threshold=0.0)
    made["bs-only"] = replace(made["b2-ddpo"], interval="full")
    for name in ("ddpo", "b2-ddpo"):
        made[f"{name}-equal"] = replace(made[name], step_weights="equal")
    return made


def measure(sampler: Sampler, clip: WorldClip, prompts: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """Figures of `n` fresh pictures a prompt; the same noise for every variant."""
    standard, figures = NoiseDistribution.standard(sampler.latent_shape), {}
    for prompt in prompts:
        images = collect(standard, sampler, prompt, range(n), seed=seed, stream="evaluate").images
        features = clip.image_features(images)
        figures[prompt] = {
            "verdict": judge(images, [prompt] * n)[0].int().tolist(),
            "world-clip": [round(v, 4) for v in clip(images, [prompt] * n).tolist()],
            "inception": [inception_score(features)[0]],
            "distance": [mean_pairwise_distance(features)],
        }
    return figures


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    settings, clip = variants(arguments), WorldClip()
    clip.model.to(arguments.device)
    training = load_prompts(arguments.prompts).texts[:: arguments.every]
    held_out = load_prompts(HELD_OUT).texts
    part, parts = (int(number) for number in arguments.shard.split("/"))
    jobs = [(v, s) for s in range(arguments.seeds) for v in ["frozen", *arguments.variants.split(",")]]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read(arguments.results)}
    for variant, seed in jobs[part::parts]:
        pipeline = load_pipeline(arguments.model, device=arguments.device, dtype=torch.float32)
        pipeline.unet.to(memory_format=torch.channels_last)  # a fifth faster
        sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=arguments.batch_size)
        config = None if variant == "frozen" else replace(settings[variant], seed=seed)
        about = [fingerprint(pipeline), arguments.fresh, arguments.measured, training, arguments.num_steps]
        about += [arguments.samples, arguments.rounds, arguments.changes]
        key = digest(variant, seed, *about, None if config is None else asdict(config))
        if key in done:
            continue
        row = {"key": key, "variant": variant, "seed": seed, "about": about}
        if config is not None:
            learner = build("tune", sampler, training, config, "world-clip")
            began, curve = time.perf_counter(), []
            for step in train(learner, clip):
                curve.append(round(float(step.rewards.mean()), 3))
                print(variant, seed, step.round, curve[-1], step.update.selected, flush=True)
            row |= {"config": asdict(config), "seconds": time.perf_counter() - began, "curve": curve}
            row |= {"queries": learner.queries, "optimiser_steps": learner.optimiser_steps}
        with torch.inference_mode():
            measured = training[:: -(-len(training) // arguments.measured)]
            for name, prompts in (("training", measured), ("held_out", held_out)):
                row[name] = measure(sampler, clip, prompts, arguments.fresh, seed)
        append(arguments.results, row)


def table(arguments: argparse.Namespace) -> None:
    rows = list(read(arguments.results))
    if len({json.dumps(row["about"]) for row in rows}) > 1:
        raise SystemExit(f"{arguments.results} mixes several models or settings; give another --results")
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["variant"], {})[row["seed"]] = row

    def less(variant: str, other: str, prompts: str, name: str) -> list[list[float]]:
        """Differences in pairs, a row for each prompt and seed that both have."""
        return [
            [a - b for a, b in zip(measured[name], by_name[other][seed][prompts][prompt][name], strict=True)]
            for seed, row in by_name[variant].items()
            if seed in by_name[other]
            for prompt, measured in row[prompts].items()
        ]

    for prompts in ("training", "held_out"):
        print(f"\n{prompts} prompts: right, and less the frozen model's")
        for variant, runs in by_name.items():
            verdicts = [part["verdict"] for row in runs.values() for part in row[prompts].values()]
            figures = [f"right {percent(verdicts)}"]
            figures.append(f"{percent(less(variant, 'frozen', prompts, 'verdict'))}")
            for name, label in MEASURES.items():
                figures.append(f"{label} {interval(less(variant, 'frozen', prompts, name))}")
            seconds = sum(row.get("seconds", 0) for row in runs.values()) / len(runs)
            print(f"  {variant:14s} {'  '.join(figures)}  ({len(runs)} runs, {seconds:.0f} s)")
        print(f"\n{prompts} prompts: less the objective alone")
        for variant in by_name:
            other = OTHER.get(variant, variant.removeprefix("b2-"))
            if other != variant and other in by_name:
                figures = [f"right {percent(less(variant, other, prompts, 'verdict'))}"]
                for name, label in MEASURES.items():
                    figures.append(f"{label} {interval(less(variant, other, prompts, name))}")
                print(f"  {variant:14s} {'  '.join(figures)}")


def main() -> None:
    parser, run_command, _ = commands(__doc__, run, table, "tune")
    run_command.add_argument("--model", default="world", help="the world, or world-flow")
    run_command.add_argument("--variants", default=",".join(PUBLISHED))
    run_command.add_argument("--seeds", type=int, default=3)
    run_command.add_argument("--samples", type=int, default=96, help="pictures a round")
    run_command.add_argument("--rounds", type=int, default=20)
    run_command.add_argument("--num-steps", type=int, default=10, help="of the sampler")
    run_command.add_argument("--prompts", default=TRAINING, help="a prompt set")
    run_command.add_argument("--every", type=int, default=3, help="of the training prompts, every n-th")
    run_command.add_argument("--measured", type=int, default=32, help="of the training prompts, at most")
    run_command.add_argument("--fresh", type=int, default=32, help="fresh pictures a prompt")
    run_command.add_argument("--device", default="cpu")
    run_command.add_argument("--batch-size", type=int, default=32, help="pictures made at a time")
    run_command.add_argument("--changes", default="{}", help="of the settings, as JSON")
    run_command.add_argument("--shard", default="0/1")
    run_command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
