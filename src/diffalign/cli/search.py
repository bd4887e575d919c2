"""`diffalign search`: the best of many pictures."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from diffalign.cli.errors import UsageError
from diffalign.cli.options import RUN, JudgeChoice, Positive, Sampling

SCHEMA, FORMAT = "diffalign.search/1", "diffalign.noises/1"
Algorithm = Literal["best-of-n", "zero-order", "spectral"]
_SAMPLING = Sampling()


def search(
    prompt: Annotated[str, Parameter(name="PROMPT", group=RUN)],
    /,
    *,
    queries: Annotated[Positive, Parameter(group=RUN)] = 150,
    keep: Annotated[Positive, Parameter(group=RUN)] = 8,
    algorithm: Annotated[Algorithm, Parameter(group=RUN)] = "best-of-n",
    reward: Annotated[str, Parameter(group=RUN)] = "world-clip",
    judge: Annotated[JudgeChoice, Parameter(group=RUN)] = "auto",
    seed: Annotated[int, Parameter(group=RUN)] = 0,
    out: Annotated[Path | None, Parameter(group=RUN)] = None,
    overwrite: Annotated[bool, Parameter(negative="", group=RUN)] = False,
    sampling: Sampling = _SAMPLING,
) -> None:
    """Draw many pictures of a prompt and keep those that the reward likes best.

    This is what one would do without learning: best-of-N, zero-order search around the best noise so far,
    or spectral evolution search in the noise's lowest band. It ends with a few good pictures, where
    `diffalign find` ends with a distribution that gives as many as one likes. The reward chose them,
    so their reward flatters: the judge's word does not.

        diffalign search "a blue car on the moon" --queries 300 --keep 4

    Args:
        prompt: what the pictures should show.
        queries: pictures drawn and scored.
        keep: how many of the best to keep.
        algorithm: best-of-n; zero-order (Ma et al. 2025); or spectral (cheap previews of 4 steps, 2026).
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompt.
        seed: of the pictures.
        out: folder; runs/search- and the prompt by default.
        overwrite: replace the run that the folder holds.
    """
    from safetensors.torch import save_file

    from diffalign.artifacts import BEST, NOISES, SUMMARY, RunFolder, replacing, versions
    from diffalign.cli.folders import RUNS, slug
    from diffalign.cli.loading import (
        check_pictures,
        check_prompts,
        check_search,
        load_judge,
        load_sampler,
        reward_for,
        surprises,
    )
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import figures, interval, paths, stdout, warn
    from diffalign.diffusion import fingerprint
    from diffalign.evaluation import Cost, assess, peak_memory_mb
    from diffalign.metrics import bootstrap
    from diffalign.report.plots import grid
    from diffalign.run import Watched
    from diffalign.run.compare import SEARCHES

    if keep > queries:
        raise UsageError(f"cannot keep {keep} of {queries} pictures; lower --keep or raise --queries")
    if algorithm == "spectral" and 2 * keep > queries:  # which scores what it keeps once more
        raise UsageError(f"spectral keeps at most half of {queries} queries; lower --keep or raise --queries")
    check_prompts([prompt], reward, judge)
    path = out or RUNS / f"search-{slug(prompt)}"
    RunFolder.check(path, overwrite)
    function = reward_for(reward, sampling)
    sampler = load_sampler(sampling)
    check_pictures(sampler, reward, judge)
    check_search(sampler, [algorithm])
    verdicts = load_judge(judge, sampling.model, prompt)
    settings = {"prompt": prompt, "queries": queries, "keep": keep, "reward": reward, "judge": judge}
    settings |= {"algorithm": algorithm}
    settings |= {"seed": seed, **asdict(sampling)}
    folder = RunFolder.create(path, settings, overwrite=overwrite)
    console = stdout()
    warn(console, surprises(sampler, [prompt], judge, sampling.model))
    with folder.lock():
        began = time.perf_counter()
        with RunProgress(console, queries) as progress, progress.phase("search", queries):
            environment = Watched(sampler, progress)
            search_for, amount, more = SEARCHES[algorithm](sampler, progress, queries, keep)
            result = search_for(
                environment,
                sampler.latent_shape,
                prompt,
                function,
                queries,
                keep=keep,
                seed=seed,
                batch_size=sampling.batch_size,
                on_batch=lambda found: progress.reward(
                    float(found.rewards.mean()), float(found.rewards.max())
                ),
                **more,
            )
        seconds, device = time.perf_counter() - began, sampler.pipeline.device
        kept = assess(result.images, prompt, result.kept_rewards(), judge=verdicts)
        cost = Cost(queries, round(amount * environment.forwards), seconds, peak_memory_mb(device))
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "prompt": prompt,
            "model": sampling.model,
            "reward": reward,
            "judge": None if verdicts is None else "world-scene",
            "all": {"reward": bootstrap(result.rewards).as_dict()},
            "kept": {
                "indices": list(result.indices),
                "rewards": kept.reward.tolist(),
                "reward": bootstrap(kept.reward).as_dict(),
                "judged": None if kept.judged is None else kept.judged.tolist(),
                "judged_accuracy": None if kept.judged is None else bootstrap(kept.judged).as_dict(),
            },
            "cost": cost.as_dict(),
            "run": {"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale},
        }
        metadata = {
            "format": FORMAT,
            "model": sampling.model,
            "model_fingerprint": fingerprint(sampler.pipeline),
            "prompt": prompt,
            "scheduler": type(sampler.pipeline.scheduler).__name__,
            "num_steps": str(sampler.num_steps),
            "guidance_scale": str(sampler.guidance_scale),
            "reward": reward,
            "seed": str(seed),
            "queries": str(queries),
            **versions(),
        }
        with replacing(folder / NOISES) as file:
            save_file({"x_T": result.x_T.contiguous(), "rewards": kept.reward}, file, metadata)
        title = f"“{prompt}”: the best {keep} of {queries} by {reward}"
        grid(kept.images, folder / BEST, title=title, verdicts=kept.judged)
        folder.write_json(SUMMARY, record)
    table = figures(title, reward, "judged right %")
    table.add_row("all", interval(record["all"]["reward"]), "")
    accuracy = interval(record["kept"]["judged_accuracy"], percent=True)
    table.add_row("kept", interval(record["kept"]["reward"]), accuracy)
    console.print(table)
    paths(console, [folder / name for name in (BEST, NOISES, SUMMARY)])
