"""Where the reward is decided: how much branches from each sampler step differ, beside independent samples.

    python benchmarks/branches.py

Of every other prompt of `world/unusual` 5 groups of 4 branches share their first k steps. Printed is the
variance within groups over that of all of a prompt's samples, of `world-clip` and of the verdict, and each
step's c_t/s_t: what one unit of the denoiser's output moves the mean by, in standard deviations of the
step. A trajectory's gradient is the sum of the steps' gradients, each times that factor (docs/tune.md).
"""

import argparse

import torch

from diffalign import Sampler, load_pipeline, load_prompts
from diffalign.diffusion.transition import ddim_transition
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect_trajectories
from diffalign.world.judge import judge


def sensitivity(policy: DenoiserPolicy, step: int) -> float:
    """c_t/s_t."""
    x_t, t = torch.zeros(1, *policy.sampler.latent_shape), policy.timesteps[step]
    moved, std = ddim_transition(policy.scheduler, torch.ones_like(x_t), t, x_t)
    return (
        float((moved - ddim_transition(policy.scheduler, torch.zeros_like(x_t), t, x_t)[0]).abs().mean())
        / std
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--steps", default="0,3,4,5,6,8,10,14", help="at which the branches part")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    policy = DenoiserPolicy(Sampler(load_pipeline("world"), num_steps=20), rank=0)
    factors = [sensitivity(policy, step) for step in range(20)]
    print("c_t/s_t", " ".join(f"{factor:.2f}" for factor in factors))
    print(f"largest step's share of the squares: {max(factors) ** 2 / sum(f**2 for f in factors):.2f}")
    texts, clip = load_prompts("world/unusual").texts[::2], WorldClip()
    for start in map(int, arguments.steps.split(",")):
        shares = []
        for number, text in enumerate(texts):
            groups = range(1000 * number, 1000 * number + arguments.groups)
            drawn = collect_trajectories(
                policy, groups, [text] * len(groups), range(start, 20), arguments.branches, seed=0
            )
            prompts = list(drawn.prompts)
            scores = torch.stack([clip(drawn.images, prompts), judge(drawn.images, prompts)[0].float()])
            by_group = scores.view(2, len(groups), -1)
            shares.append(torch.stack([by_group.var(2).mean(1), scores.var(1)]))
        within, of_all = torch.stack(shares).mean(0)
        reward, verdict = (within / of_all).tolist()
        print(
            f"from step {start:2d}: {reward:.2f} of world-clip's variance, {verdict:.2f} of the verdict's",
            flush=True,
        )


if __name__ == "__main__":
    main()
