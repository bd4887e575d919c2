"""The prompt sets `world/many` and `world/fresh`, drawn by lot from the world's grammar.

    python benchmarks/draw_prompts.py

Tinted things, pairs, counts, and things on the moon come alike often, until there are no more of a kind.
No prompt is in both sets, or in `world/common` or `world/heldout`; `world/many` begins with `world/unusual`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from diffalign import load_prompts
from diffalign.world.grammar import PromptError, parse
from diffalign.world.scenes import BACKGROUNDS, SUBJECTS, TINTS

DATA = Path(__file__).parents[1] / "src/diffalign/prompts/data/world"
RELATIONS = ("and", "on the left of", "on the right of", "above", "below")
SOURCE = "drawn by lot from the embedded world's grammar (benchmarks/draw_prompts.py)"


def one(noun: str) -> str:
    """With its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def drawn(rng: np.random.Generator) -> tuple[str, str]:
    """A prompt and its aspect."""
    first, second = rng.choice(list(SUBJECTS), 2, replace=False)
    tint, background = rng.choice(list(TINTS)), rng.choice(list(BACKGROUNDS))
    tail = f" on the {background}" if rng.random() < 0.5 else ""
    match rng.integers(4):
        case 0:
            return one(f"{tint} {first}") + tail, "color"
        case 1:
            relation = rng.choice(RELATIONS)
            return f"{one(first)} {relation} {one(second)}" + tail * (relation == "and"), "composition"
        case 2:
            return f"{rng.choice(['two', 'three', 'four'])} {first}s" + tail, "count"
        case _:
            return one(f"{tint} {first}" if rng.random() < 0.5 else first) + " on the moon", "location"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    rng = np.random.default_rng(parser.parse_args().seed)
    unusual = load_prompts("world/unusual").prompts
    taken = {
        text for name in ("common", "unusual", "heldout") for text in load_prompts(f"world/{name}").texts
    }
    for name, number, prompts, description in (
        ("fresh", 64, [], "unseen prompts of all kinds, for judging what a generator makes of them"),
        (
            "many",
            480,
            [(p.text, p.aspect) for p in unusual],
            "prompts of all kinds to learn a generator from",
        ),
    ):
        while len(prompts) < number:
            text, aspect = drawn(rng)
            try:
                parse(text)
            except PromptError:
                continue
            if text not in taken:
                taken.add(text)
                prompts.append((text, aspect))
        lines = ",\n  ".join(json.dumps({"text": text, "aspect": aspect}) for text, aspect in prompts)
        about = f' "description": "{description}",\n "source": "{SOURCE}",\n'
        (DATA / f"{name}.json").write_text("{\n" + about + f' "prompts": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
