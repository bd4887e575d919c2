"""What learning costs beside plain generation and scoring of as many pictures, in the same batches.

    python benchmarks/overhead.py --rounds 5

An update and its plain batch take turns, and take turns in being first, so that what else the machine does
falls on both. Each round is one run of FIND; the spread is that of the rounds' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from diffalign import Sampler, load_pipeline, load_reward
from diffalign.diffusion import seeded_noise
from diffalign.loop import train
from diffalign.methods import build
from diffalign.rewards import RewardFunction, score
from diffalign.settings.fields import preset
from diffalign.settings.find import LEAST_QUERIES, PRESETS, FindConfig

PROMPT = "a green dog on the grass"


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(sampler: Sampler, reward: RewardFunction, config: FindConfig) -> tuple[float, float]:
    """Seconds of a run of FIND, all of it, and of plain generation and scoring."""

    def plain(indices: range) -> None:
        images = sampler(seeded_noise(sampler.latent_shape, config.seed, "plain", indices), PROMPT)
        score(reward, images, [PROMPT] * len(images))

    began = time.perf_counter()
    learner = build("find", sampler, [PROMPT], config, "world-clip")
    rounds = train(learner, reward)
    learning, generating = time.perf_counter() - began, 0.0
    while not learner.done:
        indices = learner.ask().groups
        if learner.rounds % 2:
            generating += seconds_of(partial(plain, indices))
            learning += seconds_of(partial(next, rounds))
        else:
            learning += seconds_of(partial(next, rounds))
            generating += seconds_of(partial(plain, indices))
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

    def settings(queries: int) -> FindConfig:
        return preset(PRESETS, arguments.preset, {"queries": queries})

    reward, config = load_reward("world-clip"), settings(arguments.queries)
    pipeline = load_pipeline("world")
    sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=arguments.batch_size)
    # one run that is not counted: what is loaded or encoded once is no cost of either
    compare(sampler, reward, settings(max(2 * config.batch, LEAST_QUERIES)))
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
