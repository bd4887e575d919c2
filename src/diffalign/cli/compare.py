"""`diffalign compare`: all methods at the same number of reward queries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffalign.cli.errors import UsageError
from diffalign.cli.options import RUN, JudgeChoice, Positive, Sampling

_METHODS = "frozen,best-of-n,zero-order,spectral,find,noise-ppo,tune"
_SAMPLING = Sampling()


def compare(
    *,
    prompts: Annotated[str | None, Parameter(group=RUN)] = None,
    methods: Annotated[str, Parameter(group=RUN)] = _METHODS,
    queries: Annotated[Positive, Parameter(group=RUN)] = 150,
    images: Annotated[Positive, Parameter(group=RUN)] = 16,
    seeds: Annotated[Positive, Parameter(group=RUN)] = 1,
    reward: Annotated[str, Parameter(group=RUN)] = "world-clip",
    judge: Annotated[JudgeChoice, Parameter(group=RUN)] = "auto",
    seed: Annotated[int, Parameter(group=RUN)] = 0,
    out: Annotated[Path | None, Parameter(group=RUN)] = None,
    sampling: Sampling = _SAMPLING,
) -> None:
    """Compare methods at the same number of reward queries a prompt: a table, and a chart of quality
    against cost.

    Search keeps the best pictures that it saw, so that their reward flatters; what learns gives fresh
    ones. noise-ppo and tune learn from all prompts at once, with as many queries in all. What is done
    already in the folder is not done again, so that a stopped comparison goes on.

        diffalign compare --prompts world/heldout --queries 150 --seeds 3

    Args:
        prompts: a set of `diffalign prompts`, or a .txt or .json file.
        methods: of frozen, best-of-n, zero-order, spectral, find, noise-ppo, tune; joined by commas.
        queries: of the reward, a prompt and method.
        images: pictures wanted of each prompt.
        seeds: how often, with different seeds.
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompts.
        seed: the first one.
        out: folder; runs/compare- and the set by default.
    """
    from diffalign.artifacts import COMPARISON, CONFIG, RunFolder
    from diffalign.cli.folders import RUNS, slug
    from diffalign.cli.loading import check_search, load_many, load_sampler, surprises
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.settings import read_settings
    from diffalign.cli.tables import figures, interval, paths, stdout, warn
    from diffalign.report.plots import quality_against_cost
    from diffalign.run.compare import METHODS, Task, compare_in, compared, pictures_of_a_comparison

    if prompts is None:
        raise UsageError("no prompts; name a set such as world/heldout, or a file, with --prompts")
    chosen = tuple(dict.fromkeys(methods.split(",")))
    if unknown := [name for name in chosen if name not in METHODS]:
        raise UsageError(f"unknown method {unknown[0]!r}; choose of: {', '.join(METHODS)}")
    if 2 * images > queries:
        raise UsageError(f"{images} pictures of {queries} queries leave no choice; raise --queries")
    path = out or RUNS / f"compare-{slug(Path(prompts).stem)}"
    _, texts, setup = load_many(prompts, prompts, reward, sampling, judge)
    check_search(setup.sampler, chosen)
    settings = {"prompts": prompts, "methods": methods, "queries": queries, "images": images}
    settings |= {"seeds": seeds, "seed": seed, "reward": reward, "judge": judge, **asdict(sampling)}
    begun = (path / CONFIG).is_file() and "methods" in read_settings(path / CONFIG)
    folder = RunFolder(path) if begun else RunFolder.create(path, settings)
    console = stdout()
    warn(console, surprises(setup.sampler, texts, judge, setup.model))
    with folder.lock():
        total = pictures_of_a_comparison(chosen, len(texts), queries, images, seeds)
        with RunProgress(console, total) as progress:
            task = Task(lambda: load_sampler(sampling), setup, texts, queries, images, seed, progress)
            rows = compare_in(folder / COMPARISON, chosen, task, seeds)
        found = compared(rows)
        folder.write_json("comparison.json", found)
        chart = quality_against_cost(found, folder / "comparison.png", reward=reward)
    title = f"{len(texts)} prompts, {queries} reward queries and {images} pictures each"
    table = figures(title, reward, "judged right %", "distance", "forwards", "seconds")
    for method, row in found.items():
        judged = interval(row["judged"], percent=True)
        apart = "" if row["distance"] is None else f"{row['distance']:.3f}"
        table.add_row(
            method, interval(row["reward"]), judged, apart, f"{row['forwards']:.0f}", f"{row['seconds']:.1f}"
        )
    console.print(table)
    paths(console, [chart, folder / "comparison.json", folder / COMPARISON])
