r"""STRATEGY: which of a trajectory's decisions are learned.

    full        all T decisions
    backward    the last n_e = min(T, n_0 + ⌊e (T − n_0 + 1) / E⌋) in round e of E
    sliding     n_0 decisions from ⌊e / τ⌋ mod (T − n_0 + 1) on; the other steps have no noise

Backward progressive training begins with the last steps, whose effect on the reward is easier to learn, and
moves the start of the interval towards the noise. A sliding window begins with the first, which compose the
picture, follows the sampler, and begins anew.

Symbols:    T = decisions, e = round, E = rounds, n_0 = first, τ = every
References: Hu et al. (CVPR 2025), section 4.1, https://arxiv.org/abs/2503.11240
            Li et al. (2025), MixGRPO, https://arxiv.org/abs/2507.21802
"""

from collections.abc import Callable, Mapping

from diffalign.settings.tune import TuneConfig


def backward_interval(decisions: int, round: int, rounds: int, first: int) -> range:
    """The last n_e decisions in round `round` of `rounds`, numbered from the noise.

    Raises:
        ValueError: if `first` is not in 1 … `decisions`, or `round` not in 0 … `rounds` − 1.
    """
    if not 1 <= first <= decisions:
        raise ValueError(f"the first interval has 1 to {decisions} steps, not {first}")
    if not 0 <= round < rounds:
        raise ValueError(f"round {round} is not one of {rounds}")
    length = min(decisions, first + round * (decisions - first + 1) // rounds)
    return range(decisions - length, decisions)


def sliding_interval(decisions: int, round: int, size: int, every: int) -> range:
    """`size` decisions that move on by one `every` rounds, and after the last begin anew.

    Raises:
        ValueError: if `size` is not in 1 … `decisions`, or another number is too low.
    """
    if not 1 <= size <= decisions:
        raise ValueError(f"a window has 1 to {decisions} steps, not {size}")
    if round < 0 or every < 1:
        raise ValueError(f"a window moves every 1 or more rounds, not every {every} in round {round}")
    start = round // every % (decisions - size + 1)
    return range(start, start + size)


#: By the name of `TuneConfig.interval`: of the number of decisions, the round and the settings.
INTERVALS: Mapping[str, Callable[[int, int, TuneConfig], range]] = {
    "full": lambda decisions, round, config: range(decisions),
    "backward": lambda decisions, round, config: backward_interval(
        decisions, round, config.rounds, config.first_steps
    ),
    "sliding": lambda decisions, round, config: sliding_interval(
        decisions, round, config.first_steps, config.slide_rounds
    ),
}
