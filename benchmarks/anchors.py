"""What noise is worth to prompts: how alike prompts agree, and which kernel predicts it best.

    python benchmarks/anchors.py run
    python benchmarks/anchors.py table

`run` scores pictures of the same noises for each of the first prompts of `world/many` with `world-clip`, and
appends one line a prompt; it skips those that the file holds. `table` prints how the correlation of two
prompts' rewards depends on the distance of their features, and for each kernel what the best anchors that it
predicts for prompts left out (a quarter at a time) gain there, in CLIPScore and in points judged right.
"""

import argparse
from collections.abc import Callable

import torch
from find import append, commands, read
from torch import Tensor

from diffalign import Sampler, load_pipeline, load_prompts
from diffalign.diffusion.probe import prompt_states
from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies.anchor_generator import STREAM, AnchorGenerator, AnchorShape
from diffalign.policies.reps import reps_weights
from diffalign.rewards.world_clip import WorldClip
from diffalign.world.judge import judge

NOISE, EFFECTIVE, TURNS = 0.05, 4, 12
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"rational quadratic, l = {length}": lambda d2, length=length: (1 + d2 / (4 * length**2)) ** -2
        for length in (0.1, 0.2, 0.4, 0.8)
    },
    **{
        f"squared exponential, l = {length}": lambda d2, length=length: (-d2 / (2 * length**2)).exp()
        for length in (0.2, 0.5, 1.0)
    },
    "none: the same for all prompts": torch.zeros_like,
}


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    pipeline, clip = load_pipeline("world"), WorldClip()
    pipeline.unet.to(memory_format=torch.channels_last)
    sampler = Sampler(pipeline, num_steps=10, batch_size=32)
    x_T = seeded_noise(sampler.latent_shape, 0, STREAM, range(arguments.anchors))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = {row["prompt"] for row in read(arguments.results)}
    for number, prompt in enumerate(load_prompts("world/many").texts[: arguments.prompts], start=1):
        if prompt in done:
            continue
        images, prompts = sampler(x_T, prompt), [prompt] * len(x_T)
        row = {"prompt": prompt, "world-clip": [round(v, 4) for v in clip(images, prompts).tolist()]}
        append(arguments.results, row | {"verdict": judge(images, prompts)[0].int().tolist()})
        print(number, prompt, flush=True)


def table(arguments: argparse.Namespace) -> None:
    rows = list(read(arguments.results))
    reward = torch.tensor([row["world-clip"] for row in rows])
    verdict = torch.tensor([row["verdict"] for row in rows]).float()
    prompts = [row["prompt"] for row in rows]
    pipeline = load_pipeline("world")
    width = prompt_states(pipeline, prompts[0]).shape[-1]
    latent = Sampler(pipeline).latent_shape
    shape = AnchorShape(latent, width, len(prompts), reward.shape[1])
    generator = AnchorGenerator(shape, lambda prompt: prompt_states(pipeline, prompt))
    generator.learn_from(prompts)
    squared = torch.cdist(generator.features, generator.features).square()
    gain = reward - reward.mean(1, keepdim=True)
    right = verdict - verdict.mean(1, keepdim=True)
    main = gain.mean(0).var() - gain.var() / len(gain)
    print(f"{len(prompts)} prompts × {reward.shape[1]} noises")
    share = main / gain.var()
    print(f"share of the reward's variance within prompts that the noise alone decides: {share:.3f}")
    upper = torch.triu_indices(len(prompts), len(prompts), 1)
    distance, correlation = squared[*upper].sqrt(), torch.corrcoef(gain)[*upper]
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0), (1.0, 1.2), (1.2, 2.1)):
        near = (distance >= low) & (distance < high)
        agree = float(correlation[near].mean())
        print(f"  prompts at {low} to {high}: {int(near.sum())} pairs, correlation {agree:.3f}")
    scaled = gain / gain.var(1).mean().sqrt()
    for name, shape_of in KERNELS.items():
        gram = shape.shared + (1 - shape.shared) * shape_of(squared)
        random = torch.Generator().manual_seed(0)
        gains = []
        for _ in range(TURNS):
            order = torch.randperm(len(prompts), generator=random)
            for part in range(4):
                left_out = order[part::4]
                known = torch.tensor([p for p in order.tolist() if p not in set(left_out.tolist())])
                covariance = gram[known][:, known] + NOISE * torch.eye(len(known))
                predicted = gram[left_out][:, known] @ torch.linalg.solve(covariance, scaled[known])
                weights = torch.stack([reps_weights(value, EFFECTIVE) for value in predicted])
                gains.append([(weights * values[left_out]).sum(1).mean() for values in (gain, right)])
        clip, judged = torch.tensor(gains).mean(0).tolist()
        print(f"  {name:32s} CLIPScore {clip:+.2f}, judged {100 * judged:+.1f} points")


def main() -> None:
    parser, run_command, _ = commands(__doc__, run, table, "anchors")
    run_command.add_argument("--prompts", type=int, default=160)
    run_command.add_argument("--anchors", type=int, default=96)
    run_command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
