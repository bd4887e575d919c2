"""What learning costs beside plain generation and scoring of as many pictures, in one run.

python benchmarks/overhead.py --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from diffalign import Sampler, load_pipeline, load_reward
from diffalign.diffusion import seeded_noise
from diffalign.methods.find import Find, preset
from diffalign.rewards import score

PROMPT = "a green dog on the grass"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reward = load_reward("world-clip")
    config = preset(arguments.preset)
    sampler = Sampler(load_pipeline("world"), batch_size=min(config.batch, 16))

    def learn() -> None:
        Find(sampler, PROMPT, reward, config).run()

    def generate() -> None:
        # in the same batches as the learner asks for
        for start in range(0, config.queries, config.batch):
            indices = range(start, min(start + config.batch, config.queries))
            images = sampler(seeded_noise(sampler.latent_shape, 0, "plain", indices), PROMPT)
            score(reward, images, [PROMPT] * len(images))

    generate()
    ratios = []
    for _ in range(arguments.rounds):
        seconds = []
        for work in (learn, generate):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / seconds[1])
        print(f"learning {seconds[0]:.2f} s, plain {seconds[1]:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
