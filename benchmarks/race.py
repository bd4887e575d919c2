"""One prompt, learned twice: the initial noise (FIND) and the denoiser (DPOK), until as much is right.

    python benchmarks/race.py --prompts "a blue car on the moon|three dogs"

FIND's default learns from 150 reward queries; then 64 fresh pictures say how many are right. DPOK, with
weights of decisions and learning rate of our default, as with its published ones it does not get there,
learns in rounds of 48 pictures until as many of the same 64 noises' pictures are right, or a budget is
spent. Seconds are those of sampling, scoring and learning; making fresh pictures is not counted.
"""

import argparse
import time
from dataclasses import replace

import torch

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_reward
from diffalign.loop import train
from diffalign.methods import Run, build
from diffalign.metrics import embedder, mean_pairwise_distance
from diffalign.rollout import collect
from diffalign.settings import find, tune
from diffalign.world.judge import judge


def right(sampler: Sampler, noise: NoiseDistribution, prompt: str, n: int, seed: int) -> tuple[float, float]:
    """Share of fresh pictures that are judged right, and their mean pairwise CLIP distance."""
    with torch.inference_mode():
        images = collect(noise, sampler, prompt, range(n), seed=seed, stream="evaluate").images
    distance = mean_pairwise_distance(embedder("world")(images))
    return float(judge(images, [prompt] * n)[0].float().mean()), distance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", default="a blue car on the moon|a purple flower on the moon|three dogs")
    parser.add_argument("--fresh", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40, help="of 48 pictures: DPOK's budget")
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reward, fresh = load_reward("world-clip"), arguments.fresh
    for prompt in arguments.prompts.split("|"):
        for seed in range(arguments.seeds):
            sampler = Sampler(load_pipeline("world"), num_steps=arguments.num_steps, batch_size=32)
            standard = NoiseDistribution.standard(sampler.latent_shape)
            frozen, distance = right(sampler, standard, prompt, fresh, seed)
            began = time.perf_counter()
            config = replace(find.PRESETS["default"], seed=seed)
            noise = Run(build("find", sampler, [prompt], config, "world-clip"), reward).run()
            find_seconds = time.perf_counter() - began
            wanted, spread = right(sampler, noise, prompt, fresh, seed)
            print(
                f"{prompt!r}, seed {seed}: frozen {frozen:.2f}, distance {distance:.3f}; FIND {wanted:.2f}, "
                f"{spread:.3f} in {find_seconds:.0f} s"
            )

            tuning = replace(
                tune.PRESETS["dpok"],
                samples=48,
                rounds=arguments.rounds,
                update_batch=48,
                learning_rate=3e-3,
                step_weights="variance",
                seed=seed,
            )
            seconds = 0.0
            for step in train(build("tune", sampler, [prompt], tuning, "world-clip"), reward):
                seconds += step.seconds
                reached, spread = right(sampler, standard, prompt, fresh, seed)
                print(
                    f"  DPOK {step.queries} queries, {seconds:.0f} s: {reached:.2f}, {spread:.3f}", flush=True
                )
                if reached >= wanted:
                    break
            sign = "" if reached >= wanted else "more than "
            print(f"  FIND is {sign}{seconds / find_seconds:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
