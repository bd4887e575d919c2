"""What learning costs beside plain generation and scoring of as many pictures, in the same batches.

    python benchmarks/overhead.py --rounds 5

An update and its plain batch take turns, and take turns in being first, so that what else the machine does
falls on both. Each round is one run of FIND; the spread is that of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from diffalign import Sampler, load_pipeline, load_reward
from diffalign.diffusion import seeded_noise
from diffalign.methods.find import Find, preset
from diffalign.rewards import RewardFunction, score
from diffalign.training import NoiseConfig

PROMPT = "a green dog on the grass"


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(sampler: Sampler, reward: RewardFunction, config: NoiseConfig) -> tuple[float, float]:
    """Seconds of a run of FIND, all of it, and of plain generation and scoring."""

    def plain(indices: range) -> None:
        images = sampler(seeded_noise(sampler.latent_shape, config.seed, "plain", indices), PROMPT)
        score(reward, images, [PROMPT] * len(images))

    began = time.perf_counter()
    find = Find(sampler, PROMPT, reward, config)
    updates, learner = iter(find), find.learner
    learning, generating = time.perf_counter() - began, 0.0
    while asked := learner.ask():
        if learner.steps % 2:
            generating += seconds_of(lambda: plain(asked))
            learning += seconds_of(lambda: next(updates))
        else:
            learning += seconds_of(lambda: next(updates))
            generating += seconds_of(lambda: plain(asked))
    return learning, generating


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reward, config = load_reward("world-clip"), preset(arguments.preset, queries=arguments.queries)
    pipeline = load_pipeline("world")
    sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=arguments.batch_size)
    # once in vain: what is loaded or encoded once is no cost of either
    compare(sampler, reward, preset(arguments.preset, queries=2 * config.batch))
    ratios = []
    for _ in range(arguments.rounds):
        learning, generating = compare(sampler, reward, config)
        ratios.append(learning / generating)
        print(f"learning {learning:.2f} s, plain {generating:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"ratio of {config.queries} pictures, {len(ratios)} rounds: median {statistics.median(ratios):.3f}, "
        f"from {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
