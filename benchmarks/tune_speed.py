"""Tuning beside a plain DDPO loop, written straight from the paper: seconds and memory for the same queries.

    python benchmarks/tune_speed.py --samples 96

The plain loop (Black et al. 2024, with the batch sizes of B²-DiffuRL's Table 6) samples 8 pictures at a
time, keeps all latents, and learns from 2 samples and one step at a time. Each variant runs in
a separate process, one round to warm up and then the measured ones; memory is what the process took beyond
what it held after the first denoiser call.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from diffalign import Sampler, load_pipeline, load_prompts, load_reward
from diffalign.loop import train
from diffalign.methods import build
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.settings.fields import preset
from diffalign.settings.tune import PRESETS

PROMPTS = "world/unusual"


def plain_ddpo(samples: int, num_steps: int) -> tuple[Callable[[], None], DenoiserPolicy]:
    """A round of the loop, and its policy (the same adapter, transition and guidance)."""
    policy = DenoiserPolicy(Sampler(load_pipeline("world"), num_steps=num_steps))
    prompts, reward = load_prompts(PROMPTS).texts, load_reward("world-clip")
    optimiser = torch.optim.AdamW(policy.learned(), lr=1e-4, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)

    def log_prob(x: torch.Tensor, mean: torch.Tensor, std: float) -> torch.Tensor:
        return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).mean(1)

    def one_round() -> None:
        kept = []
        for _ in range(samples // 8):
            texts = [prompts[i] for i in torch.randint(len(prompts), (8,), generator=generator).tolist()]
            x = [torch.randn(8, *policy.sampler.latent_shape, generator=generator)]
            old = []
            with torch.no_grad():
                for step in range(num_steps):
                    mean, std = policy(x[-1], step, texts)
                    x.append(mean + std * torch.randn(mean.shape, generator=generator))
                    old.append(log_prob(x[-1], mean, std))
                images = policy.decode(x[-1], texts)
            kept.append((texts, torch.stack(x, 1), torch.stack(old, 1), reward(images, texts)))
        rewards = torch.cat([part[3] for part in kept])
        advantage = ((rewards - rewards.mean()) / (rewards.std() + 1e-6)).clamp(-5, 5)
        texts = [text for part in kept for text in part[0]]
        latents, old_log_prob = (torch.cat([part[i] for part in kept]) for i in (1, 2))
        order = torch.randperm(len(rewards), generator=generator)
        for number, batch in enumerate(order.split(2), start=1):
            for step in range(num_steps):
                mean, std = policy(latents[batch, step], step, [texts[i] for i in batch.tolist()])
                ratio = (log_prob(latents[batch, step + 1], mean, std) - old_log_prob[batch, step]).exp()
                worse = torch.max(
                    -advantage[batch] * ratio, -advantage[batch] * ratio.clamp(1 - 1e-4, 1 + 1e-4)
                )
                (worse.mean() / (32 * num_steps)).backward()
            if number % 32 == 0:
                torch.nn.utils.clip_grad_norm_(policy.learned(), 1.0)
                optimiser.step()
                optimiser.zero_grad()

    return one_round, policy


def ours(
    name: str, samples: int, rounds: int, num_steps: int, changes: dict[str, Any], batch_size: int
) -> tuple[Callable[[], None], DenoiserPolicy]:
    sampler = Sampler(load_pipeline("world"), num_steps=num_steps, batch_size=batch_size)
    first = num_steps * 14 // 20  # as many of 20 as B² takes
    changes = {"samples": samples, "rounds": rounds, "first_steps": first, **changes}
    config = preset(PRESETS, name, changes)
    learner = build("tune", sampler, load_prompts(PROMPTS).texts, config, "world-clip")
    steps = train(learner, load_reward("world-clip"))
    return lambda: next(steps) and None, learner.policy


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    rounds = arguments.rounds + 1
    if arguments.variant == "plain":
        one_round, policy = plain_ddpo(arguments.samples, arguments.num_steps)
    else:
        changes = json.loads(arguments.changes)
        one_round, policy = ours(
            arguments.variant, arguments.samples, rounds, arguments.num_steps, changes, arguments.batch_size
        )
    with torch.no_grad():
        policy(torch.zeros(1, *policy.sampler.latent_shape), 0, ["a dog"])
    before = peak()
    one_round()
    began = time.perf_counter()
    for _ in range(arguments.rounds):
        one_round()
    seconds = (time.perf_counter() - began) / arguments.rounds
    print(json.dumps({"seconds": seconds, "megabytes": peak() - before}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=96, help="pictures a round")
    parser.add_argument("--rounds", type=int, default=1, help="measured rounds of each turn")
    parser.add_argument("--turns", type=int, default=2, help="each variant once a turn")
    parser.add_argument("--variants", default="ddpo,b2-ddpo", help=f"of {', '.join(PRESETS)}")
    parser.add_argument("--changes", default="{}", help="of the variants' settings, as JSON")
    parser.add_argument("--num-steps", type=int, default=20, help="of the sampler")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures the variants sample at a time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        measure(arguments)
        return
    names = ["plain", *arguments.variants.split(",")]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(arguments.turns):
        for name in names if turn % 2 == 0 else names[::-1]:
            command = [sys.executable, __file__, "--variant", name, f"--samples={arguments.samples}"]
            command += [f"--rounds={arguments.rounds}", f"--threads={arguments.threads}"]
            command += [f"--changes={arguments.changes}", f"--batch-size={arguments.batch_size}"]
            command.append(f"--num-steps={arguments.num_steps}")
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name in names:
        ratios = [
            (plain["seconds"] / variant["seconds"], variant["megabytes"] / plain["megabytes"])
            for plain, variant in zip(measured["plain"], measured[name], strict=True)
        ]
        faster, memory = (", ".join(f"{ratio[i]:.2f}" for ratio in ratios) for i in (0, 1))
        seconds = sum(turn["seconds"] for turn in measured[name]) / arguments.turns
        print(f"{name:8s} {seconds:6.1f} s a round, throughput × {faster}; memory × {memory}")


if __name__ == "__main__":
    main()
