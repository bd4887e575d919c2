r"""STRATEGY: which of a trajectory's decisions are learned.

    full        all T steps
    backward    the last n_e = min(T, n_0 + ⌊e (T − n_0 + 1) / E⌋) steps in round e of E

Backward progressive training begins with the last steps, whose effect on the reward is easier to learn, and
moves the start of the interval towards the noise.

Symbols:    T = num_steps, e = round, E = rounds, n_0 = first
References: Hu et al. (CVPR 2025), section 4.1, https://arxiv.org/abs/2503.11240
"""


def backward_interval(num_steps: int, round: int, rounds: int, first: int) -> range:
    """The last n_e steps in round `round` of `rounds`, numbered from the noise.

    Raises:
        ValueError: if `first` is not in 1 … `num_steps`, or `round` not in 0 … `rounds` − 1.
    """
    if not 1 <= first <= num_steps:
        raise ValueError(f"the first interval has 1 to {num_steps} steps, not {first}")
    if not 0 <= round < rounds:
        raise ValueError(f"round {round} is not one of {rounds}")
    length = min(num_steps, first + round * (num_steps - first + 1) // rounds)
    return range(num_steps - length, num_steps)
