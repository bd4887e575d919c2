"""How often intervals of a study's votes hold the truth: two-way clustered, and over voters or prompts alone.

    python benchmarks/coverage.py

Simulated votes of 12 voters on 10 prompts, a voter's taste and a prompt's difficulty each with the standard
deviation of the table, a vote's own chance with 1. "wider" is the wider of two bootstrap intervals, one over
voters and one over prompts.
"""

import argparse

import numpy as np

from diffalign.metrics import clustered, two_way_clustered

VOTERS, PROMPTS = 12, 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500)
    studies = parser.parse_args().studies
    random = np.random.default_rng(0)
    voter, prompt = np.repeat(np.arange(VOTERS), PROMPTS), np.tile(np.arange(PROMPTS), VOTERS)
    for taste, difficulty in ((1.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        held, width = {"two_way_clustered": 0, "wider": 0}, {"two_way_clustered": 0.0, "wider": 0.0}
        for _ in range(studies):
            votes = random.normal(size=len(voter)) + taste * random.normal(size=VOTERS)[voter]
            votes += difficulty * random.normal(size=PROMPTS)[prompt]
            alone = [clustered(votes, way.tolist(), resamples=400) for way in (voter, prompt)]
            found = {
                "two_way_clustered": two_way_clustered(votes, voter.tolist(), prompt.tolist()),
                "wider": max(alone, key=lambda one: one.high - one.low),
            }
            for name, one in found.items():
                held[name] += one.low <= 0 <= one.high
                width[name] += one.high - one.low
        said = (f"{name} {held[name] / studies:.1%}, width {width[name] / studies:.2f}" for name in held)
        print(f"taste {taste}, difficulty {difficulty}: {'; '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
