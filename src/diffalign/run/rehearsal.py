"""What a run would take, measured: the model and the reward are loaded, one round is made and thrown away."""

import time
from dataclasses import dataclass

from diffalign.artifacts import RunFolder
from diffalign.diffusion.pipeline import denoiser
from diffalign.evaluation import peak_memory_mb
from diffalign.loop import train
from diffalign.run.asked import Asked
from diffalign.run.conclusion import count_evaluated
from diffalign.run.loading import Loader
from diffalign.settings.plan import Plan


@dataclass(frozen=True)
class Rehearsal:
    """What a run would take, by its first round.

    Attributes:
        queries: of the reward, in all.
        pictures: that are made, those of checks and of the evaluation included.
        parameters: of the denoiser.
        learning_seconds, evaluation_seconds: as long as the first round's speed holds.
        peak_memory_mb: so far: of tensors on a CUDA device, else of the process.
        warnings: what one should know before the run.
    """

    queries: int
    pictures: int
    parameters: int
    learning_seconds: float
    evaluation_seconds: float
    peak_memory_mb: float | None
    warnings: tuple[str, ...]


def rehearse(plan: Plan, folder: RunFolder) -> Rehearsal:
    """Makes the first round of a run; `folder` stays as it is, and nothing is written.

    Raises:
        ConfigError, PipelineError, RewardError: as the run would.
    """
    session = Loader().session(folder, Asked.of(plan))
    learner, setup = session.learner, session.setup
    parameters = sum(parameter.numel() for parameter in denoiser(setup.sampler.pipeline).parameters())
    began = time.perf_counter()
    first = next(train(learner, setup.reward))
    seconds = time.perf_counter() - began
    a_picture = first.sampling_seconds / len(first.rewards)
    checked = session.count_learned() - learner.total
    evaluated = count_evaluated(session)
    return Rehearsal(
        learner.total,
        session.count_learned() + evaluated,
        parameters,
        seconds * learner.total / learner.queries + checked * a_picture,
        evaluated * a_picture,
        peak_memory_mb(setup.sampler.pipeline.device),
        (*setup.warnings, *learner.warnings),
    )
