"""Noise PPO: one generator on training and on unseen prompts, at several step counts, and as FIND's start.

    python benchmarks/noise_ppo.py run --seeds 3
    python benchmarks/noise_ppo.py table

Learns on `world/unusual` with `world-clip`; `world/heldout` is unseen. Frozen and learned noise start from
the same ε. FIND starts from N(0, I) with 150 reward queries, and from the generator with half as many, on
prompts of both kinds.
`run` appends one line a seed to a results file and skips those that it holds; `--shard 0/2` shares them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from find import append, digest, interval, percent, read

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_prompts
from diffalign.diffusion import fingerprint
from diffalign.methods import Find, NoisePPO, generator_preset, preset
from diffalign.metrics import mean_pairwise_distance
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect
from diffalign.world.judge import judge

TRAINING, UNSEEN = "world/unusual", "world/heldout"
STEPS = (2, 4, 8, 16, 32)
QUERIES = 150  # of FIND
Noise = Callable[[str], NoiseDistribution]


def measure(
    sampler: Sampler, clip: WorldClip, noise: Noise, prompts: Sequence[str], n: int, seed: int
) -> dict[str, Any]:
    """Figures of `n` fresh pictures a prompt, from the same ε for all noises."""
    found = {}
    for prompt in prompts:
        images = collect(noise(prompt), sampler, prompt, range(n), seed=seed, stream="evaluate").images
        found[prompt] = {
            "verdict": judge(images, [prompt] * n)[0].int().tolist(),
            "world-clip": [round(v, 4) for v in clip(images, [prompt] * n).tolist()],
            "distance": [mean_pairwise_distance(clip.embed_images(images))],
        }
    return found


def overhead(sampler: Sampler, run: NoisePPO, prompts: Sequence[str]) -> float:
    """The generator's seconds over those of sampling, a batch of 16 a prompt."""
    generating = sampling = 0.0
    for prompt in prompts:
        began = time.perf_counter()
        noise = run.noise(prompt).sample(16, 0)
        generating += time.perf_counter() - began
        began = time.perf_counter()
        plain = NoiseDistribution.standard(sampler.latent_shape).sample(16, 0)
        generating -= time.perf_counter() - began
        began = time.perf_counter()
        sampler(noise + 0 * plain, prompt)
        sampling += time.perf_counter() - began
    return generating / sampling


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    clip, changes = WorldClip(), json.loads(arguments.changes)
    training, unseen = load_prompts(TRAINING).texts, load_prompts(UNSEEN).texts
    part, parts = (int(number) for number in arguments.shard.split("/"))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read(arguments.results)}
    for seed in range(arguments.seeds)[part::parts]:
        pipeline = load_pipeline("world")
        pipeline.unet.to(memory_format=torch.channels_last)  # a fifth faster
        config = generator_preset(arguments.preset, rounds=arguments.rounds, seed=seed, **changes)
        about = [fingerprint(pipeline), arguments.fresh, arguments.num_steps, asdict(config)]
        key = digest(seed, about)
        if key in done:
            continue
        sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=32)
        learning = NoisePPO(sampler, training, clip, config, reward_name="world-clip")
        began, curve = time.perf_counter(), []
        for step in learning:
            curve.append(round(float(step.rewards.mean()), 3))
            print(seed, step.round, step.queries, curve[-1], flush=True)
        row: dict[str, Any] = {"key": key, "seed": seed, "fresh": arguments.fresh, "curve": curve}
        row |= {"seconds": time.perf_counter() - began, "queries": learning.learner.queries}
        row["overhead"] = overhead(sampler, learning, training)

        def standard(prompt: str, latent: tuple[int, ...] = sampler.latent_shape) -> NoiseDistribution:
            return NoiseDistribution.standard(latent)

        noises = {"frozen": standard, "generator": learning.noise}
        for name, prompts in (("training", training), ("unseen", unseen)):
            row[name] = {
                kind: measure(sampler, clip, noise, prompts, arguments.fresh, seed)
                for kind, noise in noises.items()
            }
        row["steps"] = {
            str(steps): {
                kind: measure(
                    Sampler(pipeline, num_steps=steps, batch_size=32),
                    clip,
                    noise,
                    training,
                    arguments.few,
                    seed,
                )
                for kind, noise in noises.items()
            }
            for steps in STEPS
        }
        with tempfile.TemporaryDirectory() as folder:
            learning.save(Path(folder) / "generator.safetensors")
            row["find"] = {}
            for prompts_name, prompts in (("training", training), ("unseen", unseen)):
                found: dict[str, Any] = {}
                for name, changed in (
                    ("cold", {"queries": QUERIES}),
                    ("half, cold", {"queries": QUERIES // 2}),
                    ("half, warm", {"queries": QUERIES // 2, "start": folder}),
                ):
                    learned = {}
                    for prompt in prompts:
                        settings = preset("default", seed=seed, **changed)
                        learned[prompt] = Find(sampler, prompt, clip, settings).run()
                    noise = learned.__getitem__
                    found[name] = measure(sampler, clip, noise, prompts, arguments.fresh, seed)
                row["find"][prompts_name] = found
        append(arguments.results, row)


def table(arguments: argparse.Namespace) -> None:
    rows = list(read(arguments.results))

    def values(path: Sequence[str], name: str) -> list[list[float]]:
        found = []
        for row in rows:
            cell = row
            for step in path:
                cell = cell[step]
            found += [part[name] for part in cell.values()]
        return found

    def gain(path: Sequence[str], kinds: tuple[str, str], name: str) -> list[list[float]]:
        pairs = zip(values([*path, kinds[0]], name), values([*path, kinds[1]], name), strict=True)
        return [[a - b for a, b in zip(one, other, strict=True)] for one, other in pairs]

    def line(label: str, path: Sequence[str], kinds: tuple[str, str]) -> None:
        print(
            f"  {label:12s} {percent(values([*path, kinds[1]], 'verdict'))} → "
            f"{percent(values([*path, kinds[0]], 'verdict'))}  gain {percent(gain(path, kinds, 'verdict'))}  "
            f"CLIPScore {interval(gain(path, kinds, 'world-clip'))}  "
            f"distance {interval(gain(path, kinds, 'distance'))}"
        )

    seconds = sum(row["seconds"] for row in rows) / len(rows)
    print(f"{len(rows)} seeds, {rows[0]['queries']} reward queries, {seconds:.0f} s of learning")
    print("right, frozen → generator")
    for name in ("training", "unseen"):
        line(name, [name], ("generator", "frozen"))
    print("training prompts, sampler steps at inference")
    for steps in STEPS:
        line(f"{steps} steps", ["steps", str(steps)], ("generator", "frozen"))
    for prompts in ("training", "unseen"):
        print(f"FIND on {prompts} prompts, against all queries from N(0, I)")
        for name in ("half, cold", "half, warm"):
            line(name, ["find", prompts], (name, "cold"))
    print(f"the generator's time over that of sampling: {[round(row['overhead'], 4) for row in rows]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (("run", run), ("table", table)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--results", type=Path, default=Path("benchmarks/results/noise_ppo.jsonl"))
        if name == "run":
            command.add_argument("--preset", default="default")
            command.add_argument("--changes", default="{}", help="of the preset's settings, as JSON")
            command.add_argument("--seeds", type=int, default=3)
            command.add_argument("--rounds", type=int, default=40)
            command.add_argument("--num-steps", type=int, default=10, help="of the sampler, while learning")
            command.add_argument("--fresh", type=int, default=32, help="fresh pictures a prompt")
            command.add_argument("--few", type=int, default=8, help="the same, of each step count")
            command.add_argument("--shard", default="0/1")
            command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
