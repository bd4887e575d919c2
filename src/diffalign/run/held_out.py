"""Fresh pictures of held-out prompts while a learner learns: is the reward hacked?"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.learners.contract import Learner
from diffalign.metrics import mean_measured, mean_pairwise_distance
from diffalign.run.progress import Progress
from diffalign.run.setup import Setup
from diffalign.settings.evaluation import Evaluation, SearchEvaluation

SHOWN = 16  # pictures, before and after, or of a check
STREAM = "look"  # of random numbers: under another name a seed would give other pictures
#: Beyond these an alarm goes: a fall of the judged share below its best, and the share of the first check's
#: diversity that is lost. Chosen by hand, wide enough that checks of few pictures seldom err.
JUDGED_DROP, DIVERSITY_DROP = 0.1, 0.3


def is_due(evaluation: Evaluation | SearchEvaluation, round: int) -> bool:
    """Whether held-out prompts are checked after `round`, counted from 1; of a search never."""
    every = evaluation.check_every
    return every > 0 and (round == 1 or round % every == 0)


def check_held_out(
    setup: Setup, learner: Learner, prompts: Sequence[str], images: int, progress: Progress
) -> tuple[dict[str, float | None], Tensor]:
    """Means over held-out prompts, and some of their pictures; the same noise at every check. None is what
    could not be measured."""
    samples = setup.measure(prompts, learner.noise, images, learner.config.seed, progress, STREAM)
    judged = [part.judged for part in samples if part.judged is not None]
    embeddings = [part.embeddings for part in samples if part.embeddings is not None]
    means = {
        "reward": float(torch.cat([part.reward for part in samples]).mean()),
        "judged": float(torch.cat(judged).float().mean()) if judged else None,
        "distance": mean_measured(map(mean_pairwise_distance, embeddings)),
    }
    return means, first_pictures([part.images for part in samples])


def first_pictures(images: Sequence[Tensor], number: int = SHOWN) -> Tensor:
    """The first of each prompt's pictures, `number` in all at most."""
    each = max(1, number // len(images))
    return torch.cat([part[:each] for part in images])[:number]


def alarm(checks: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong at the last of `checks`, if the reward has risen since the first."""
    if len(checks) < 2 or checks[-1]["reward"] <= checks[0]["reward"]:
        return None
    first, last = checks[0], checks[-1]
    if last["judged"] is not None:
        best = max(check["judged"] for check in checks)
        if last["judged"] < best - JUDGED_DROP:
            return f"the reward rises while the judged share fell from {best:.2f} to {last['judged']:.2f}"
    before, after = first["distance"], last["distance"]
    if before is not None and after is not None and after < (1 - DIVERSITY_DROP) * before:
        return (
            f"the reward rises while diversity fell from {before:.3f} to {after:.3f} (mean pairwise distance)"
        )
    return None
