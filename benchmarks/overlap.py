"""What a slow reward adds to FIND's time, where one batch is scored while the next is made.

    python benchmarks/overlap.py --rounds 3
    python benchmarks/overlap.py --rounds 3 --each        # slow for each picture, not for each call

The slow reward is the free one after a pause, as one that waits for a server or an accelerator. Runs with
the one and the other take turns, and take turns in being first.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.methods import Run, build
from diffalign.settings.fields import preset
from diffalign.settings.find import PRESETS

PROMPT = "a green dog on the grass"


def free(images: Tensor, prompts: list[str]) -> Tensor:
    """Greenness."""
    return images[:, 1].mean((1, 2)) - images[:, 0].mean((1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=50.0)
    parser.add_argument("--each", action="store_true", help="pause for each picture")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = preset(PRESETS, arguments.preset)
    sampler = Sampler(load_pipeline("world"), batch_size=arguments.batch_size)

    def slow(images: Tensor, prompts: list[str]) -> Tensor:
        time.sleep(arguments.milliseconds / 1000 * (len(images) if arguments.each else 1))
        return free(images, prompts)

    def seconds(reward: object) -> float:
        began = time.perf_counter()
        Run(build("find", sampler, [PROMPT], config, "greenness"), reward).run()
        return time.perf_counter() - began

    seconds(free)  # not counted: what is loaded or encoded once is no cost of either
    ratios = []
    for turn in range(arguments.rounds):
        rewards = (free, slow) if turn % 2 else (slow, free)
        took = {reward: seconds(reward) for reward in rewards}
        ratios.append(took[slow] / took[free])
        print(f"free {took[free]:.2f} s, slow {took[slow]:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
