"""What was learned against the frozen model again: other pictures, another reward, another judge."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from diffalign.evaluation import Cost, Summary, evaluate, peak_memory_mb, summarise
from diffalign.files import EVALUATION, write_json
from diffalign.metrics import embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardError, load_reward
from diffalign.run.folders import slug
from diffalign.run.loading import check_device, check_pictures, check_prompts, load_judge
from diffalign.run.opening import Opened
from diffalign.run.progress import Progress
from diffalign.settings.evaluation import JudgeChoice


def reevaluate(
    opened: Opened,
    prompt: str | None,
    progress: Progress,
    *,
    reward: str | None = None,
    judge: JudgeChoice = "auto",
    images: int = 64,
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
) -> tuple[Summary, Path]:
    """Fresh pictures in pairs of the same noise; returns their figures and the JSON file that holds them.

    Arguments:
        prompt: where the artefact was learned for all prompts.
        reward: its name; that of learning by default.
        device: of a reward that is a network.
        out: the file; evaluation.json beside the artefact by default.

    Raises:
        ConfigError, PromptError, RewardError: if prompt, reward and judge do not fit each other or the model.
    """
    text, sampler, metadata = opened.check_prompt(prompt), opened.sampler, opened.metadata
    learned, name = opened.noise(text), reward or metadata.get("reward", "")
    check_prompts([text], name, judge)
    try:
        function = load_reward(name, device=None if device is None else check_device(device))
    except RewardError as error:
        if reward is None:
            error.add_note("name the reward with --reward")
        raise
    check_pictures(sampler, name, judge)
    model = str(sampler.pipeline.config["_name_or_path"])
    verdicts, embed = load_judge(judge, model, text), embedder(model)
    rows, cost = {}, {}
    for row, noise in (("baseline", NoiseDistribution.standard(learned.latent)), ("tuned", learned)):
        began = time.perf_counter()
        with progress.phase(row, images), opened.frozen() if row == "baseline" else nullcontext():
            rows[row] = evaluate(
                sampler,
                text,
                noise,
                function,
                judge=verdicts,
                embed=embed,
                n=images,
                seed=seed,
                batch_size=sampler.batch_size,
                on_batch=progress.advance,
            )
        seconds, memory = time.perf_counter() - began, peak_memory_mb(sampler.pipeline.device)
        cost[row] = Cost(0, images * sampler.forwards, seconds, memory)
    queries = int(metadata.get("queries", 0))
    forwards = (queries + images) * sampler.forwards
    cost["tuned"] = replace(cost["tuned"], reward_queries=queries, denoiser_forwards=forwards)
    summary = summarise(
        rows["baseline"],
        rows["tuned"],
        None,
        cost,
        prompt=text,
        model=model,
        reward=name,
        judge=None if verdicts is None else "world-scene",
        run={"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale},
    )
    beside = opened.path if opened.path.is_dir() else opened.path.parent
    out = out or beside / (EVALUATION if prompt is None else f"evaluation-{slug(text)}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary)
    return summary, out
