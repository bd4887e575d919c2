"""Which prompts of a set are taken, and in what order."""

from collections.abc import Sequence

import numpy as np

MOST = 24  # held-out prompts where none were named: enough for an interval, soon measured


def prompts_in_turn(prompts: Sequence[str], visits: range, seed: int) -> tuple[str, ...]:
    """The prompts of `visits`: each comes once a turn, in an order that seed and turn determine."""
    taken, orders = [], dict[int, list[int]]()
    for visit in visits:
        turn, position = divmod(visit, len(prompts))
        if turn not in orders:
            orders[turn] = np.random.default_rng([seed, turn]).permutation(len(prompts)).tolist()
        taken.append(prompts[orders[turn][position]])
    return tuple(taken)


def spread(prompts: Sequence[str], most: int = MOST) -> tuple[str, ...]:
    """At most so many of `prompts`, evenly spread."""
    number = min(most, len(prompts))
    return tuple(prompts[i * len(prompts) // number] for i in range(number))
