"""`diffalign evaluate`: learned noise against the frozen model, on fresh pairs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.options import JudgeChoice, Opening, Positive

_OPENING = Opening()


def evaluate(
    noise: Annotated[Path, Parameter(name="NOISE")],
    /,
    *,
    reward: str | None = None,
    judge: JudgeChoice = "auto",
    images: Positive = 64,
    seed: int = 0,
    prompt: str | None = None,
    out: Path | None = None,
    opening: Opening = _OPENING,
) -> None:
    """Compare learned noise with the frozen model on fresh pictures, in pairs of the same noise.

    Another reward or judge than the one it was learned with tells whether the gain is real.

        diffalign evaluate runs/a-blue-car-on-the-moon --reward world-scene --images 256
        diffalign evaluate runs/noise-ppo-default --prompt "three pandas"

    Args:
        noise: a run's folder, or its noise.safetensors or generator.safetensors.
        reward: what scores the pictures; the reward it was learned with by default.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompt.
        images: fresh pictures of each row.
        seed: of the pictures; that of the run with as many pictures gives the run's own figures.
        prompt: what the pictures should show, of a generator; noise was learned for a prompt of its own.
        out: JSON file of the figures, as in summary.json; evaluation.json, with the prompt if one
            is given, beside the noise by default.
    """
    from diffalign.artifacts import EVALUATION, replacing
    from diffalign.cli.folders import slug
    from diffalign.cli.generate import open_noise, recorded_of
    from diffalign.cli.loading import check_pictures, check_prompts, load_judge
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, results, stdout
    from diffalign.evaluation import Cost, peak_memory_mb, summarise
    from diffalign.evaluation import evaluate as evaluate_samples
    from diffalign.metrics import embedder
    from diffalign.policies.noise import NoiseDistribution
    from diffalign.rewards import RewardError, load_reward
    from diffalign.run import Watched

    own, recorded = prompt, recorded_of(noise, prompt)
    prompt, name = recorded.get("prompt", ""), reward or recorded.get("reward", "")
    check_prompts([prompt], name, judge)
    try:
        function = load_reward(name, device=opening.device)
    except RewardError as error:
        if reward is None:
            error.add_note("name the reward with --reward")
        raise
    learned, sampler = open_noise(noise, opening, prompt)
    check_pictures(sampler, name, judge)
    model = opening.model or recorded["model"]
    verdicts, embed, console = load_judge(judge, model, prompt), embedder(model), stdout()
    rows, cost = {}, {}
    with RunProgress(console, 2 * images) as progress:
        environment = Watched(sampler, progress)
        kinds = {"baseline": NoiseDistribution.standard(learned.latent), "tuned": learned}
        for row, distribution in kinds.items():
            with progress.phase(row, images):
                began = time.perf_counter()
                rows[row] = evaluate_samples(
                    environment,
                    prompt,
                    distribution,
                    function,
                    judge=verdicts,
                    embed=embed,
                    n=images,
                    seed=seed,
                    batch_size=opening.batch_size,
                )
                seconds = time.perf_counter() - began
            memory = peak_memory_mb(sampler.pipeline.device)
            cost[row] = Cost(0, images * environment.forwards, seconds, memory)
    queries = int(recorded.get("queries", 0))
    cost["tuned"] = replace(
        cost["tuned"],
        reward_queries=queries,
        denoiser_forwards=(queries + images) * environment.forwards,
    )
    summary = summarise(
        rows["baseline"],
        rows["tuned"],
        None,
        cost,
        prompt=prompt,
        model=model,
        reward=name,
        judge=None if verdicts is None else "world-scene",
        run={"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale},
    )
    file_name = EVALUATION if own is None else f"evaluation-{slug(prompt)}.json"
    out = out or (noise if noise.is_dir() else noise.parent) / file_name
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        file.write_text(json.dumps(summary, indent=2) + "\n")
    console.print(results(summary))
    console.print(Text("seconds of the tuned row are without those of learning"), style="dim")
    paths(console, [out])
