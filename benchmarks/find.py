"""FIND against the frozen model and best-of-N, on the embedded world.

    python benchmarks/find.py run --prompts world/heldout --variants default,paper --seeds 3
    python benchmarks/find.py table

`run` appends one line a (prompt, seed, variant, reward) to a results file and skips those that it
holds already, so it can be killed, and run in several shards (`--shard 0/2`). `table` prints means
with 95 % intervals (bootstrap over prompts × seeds). Fresh samples share their noise with the frozen model's.
All variants sample alike, as --num-steps and --guidance-scale say, whatever their presets set.
"""

import argparse
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign import NoiseDistribution, Sampler, load_pipeline, load_prompts, load_reward
from diffalign.diffusion import fingerprint
from diffalign.learners.find import FindLearner
from diffalign.metrics import clustered, embedder, mean_pairwise_distance
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.frames import frame_consistency
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import Rollout, collect
from diffalign.run.conclusion import equal_cost
from diffalign.settings.fields import preset
from diffalign.settings.find import PRESETS, FindConfig
from diffalign.world import WORLD_MODELS, WORLD_VIDEO
from diffalign.world.judge import judge

SEARCH = "search"  # the stream of the pictures that best-of-N chooses from
Job = Callable[[argparse.Namespace], None]


class Scored:
    """Pictures of a distribution under the rewards and the judge, as plain lists.

    Of videos, which the world's CLIP does not score, the frame consistency instead.
    """

    def __init__(self, sampler: Sampler, model: str, queries: int, wanted: Sequence[int]) -> None:
        self.sampler, self.embed, self.clip = sampler, embedder(model), WorldClip()
        self.queries, self.wanted = queries, wanted

    def __call__(
        self, noise: NoiseDistribution, prompt: str, n: int, seed: int, stream: str
    ) -> dict[str, Any]:
        images = collect(noise, self.sampler, prompt, range(n), seed=seed, stream=stream).images
        verdict, graded = judge(images, [prompt] * n)
        embeddings = self.embed(images)
        scores = {"world-scene": graded}
        if self.sampler.makes_videos:
            assert self.embed.frames is not None
            scores["consistency"] = frame_consistency(images, self.embed.frames)
        else:
            scores["world-clip"] = self.clip(images, [prompt] * n)
        found: dict[str, Any] = {
            "verdict": verdict.int().tolist(),
            "distance": mean_pairwise_distance(embeddings),
        }
        found |= {name: [round(v, 4) for v in values.tolist()] for name, values in scores.items()}
        if stream == SEARCH:
            found["kept"] = {
                reward: {
                    str(wanted): mean_pairwise_distance(
                        embeddings[best_of_n(found, reward, wanted, self.queries)]
                    )
                    for wanted in self.wanted
                }
                for reward in ("world-scene", "world-clip")
                if reward in found
            }
        return found


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline(arguments.model, dtype=torch.float32)
    if arguments.model != WORLD_VIDEO:  # whose layers in time have no such format
        pipeline.unet.to(
            memory_format=torch.channels_last
        )  # a fifth faster; rounds otherwise in the last bits
    pipeline.vae.to(memory_format=torch.channels_last)
    sampler = Sampler(
        pipeline,
        num_steps=arguments.num_steps,
        guidance_scale=arguments.guidance_scale,
        batch_size=8 if arguments.model == WORLD_VIDEO else 32,  # what fits the caches of a CPU
    )
    wanted = [int(number) for number in arguments.wanted.split(",")]
    scored = Scored(sampler, arguments.model, arguments.queries, wanted)
    reward = load_reward(arguments.reward)
    part, parts = (int(number) for number in arguments.shard.split("/"))
    results = arguments.results
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read(results)}
    jobs = [(p.text, s) for s in range(arguments.seeds) for p in load_prompts(arguments.prompts).prompts]
    jobs = jobs[part::parts]
    standard = NoiseDistribution.standard(sampler.latent_shape)
    model = {
        "model": fingerprint(pipeline),
        "num_steps": sampler.num_steps,
        "guidance_scale": sampler.guidance_scale,
        "fresh_n": arguments.fresh,
        "queries": arguments.queries,
        "wanted": wanted,
    }
    for prompt, seed in jobs:
        key = digest("frozen", prompt, seed, model)
        if key not in done:
            pool = scored(standard, prompt, equal_cost(arguments.queries, 1, max(wanted)), seed, SEARCH)
            fresh = scored(standard, prompt, arguments.fresh, seed, "evaluate")
            row = {"key": key, "prompts": arguments.prompts, "prompt": prompt, "seed": seed, **model}
            append(results, {**row, "variant": "frozen", "pool": pool, "fresh": fresh})
    for variant in arguments.variants.split(","):
        config = replace(preset(PRESETS, variant), queries=arguments.queries)
        keys = {job: digest(variant, *job, model, arguments.reward, asdict(config)) for job in jobs}
        waiting = [job for job in jobs if keys[job] not in done]
        for start in range(0, len(waiting), arguments.together):
            group = waiting[start : start + arguments.together]
            began = time.perf_counter()
            learned = learn_together(sampler, reward, group, config)
            seconds = (time.perf_counter() - began) / len(group)
            for (prompt, seed), noise in zip(group, learned, strict=True):
                row = {"prompts": arguments.prompts, "prompt": prompt, "seed": seed, **model}
                row |= {"key": keys[prompt, seed], "variant": variant, "reward": arguments.reward}
                row |= {"learn_seconds": round(seconds, 2), "config": asdict(config)}
                fresh = scored(noise, prompt, arguments.fresh, seed, "evaluate")
                append(results, {**row, "fresh": fresh})
                print(variant, prompt, seed, f"{sum(fresh['verdict']) / arguments.fresh:.3f}", flush=True)


@dataclass(frozen=True)
class NoiseAlone:
    """An environment that makes no pictures: `learn_together` makes them of all learners' noise at once."""

    latent_shape: tuple[int, ...]
    grid: tuple[int, int] | None
    batch_size: int
    forwards: int

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        return x_T


def learn_together(
    sampler: Sampler, reward: RewardFunction, jobs: list[tuple[str, int]], config: FindConfig
) -> list[NoiseDistribution]:
    """Runs of several prompts and seeds in step, so that runs of one sample an update share batches.

    A learner sees the same samples as if it ran alone.
    """
    environment = NoiseAlone(sampler.latent_shape, sampler.grid, sampler.batch_size, sampler.forwards)
    learners = [FindLearner(environment, [prompt], replace(config, seed=seed)) for prompt, seed in jobs]
    while not learners[0].done:
        rollouts = [Rollout.cat(list(learner.sample(learner.ask()))) for learner in learners]
        prompts = [prompt for rollout in rollouts for prompt in rollout.prompts]
        images = sampler(torch.cat([rollout.x_T for rollout in rollouts]), prompts)
        rewards = score(reward, images, prompts).split([len(rollout.x_T) for rollout in rollouts])
        for learner, rollout, r in zip(learners, rollouts, rewards, strict=True):
            learner.tell(rollout, r)
    return [learner.distribution() for learner in learners]


def digest(*parts: Any) -> str:
    """What a result depends on, as a key: a result of other settings or weights is never reused."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line that a kill cut short is made anew
                yield json.loads(line)


def table(arguments: argparse.Namespace) -> None:
    rows = [row for row in read(arguments.results) if row["prompts"] == arguments.prompts]
    if len({row["model"] for row in rows}) > 1:
        raise SystemExit(f"{arguments.results} mixes results of several models; give another --results")
    for variant in {row["variant"] for row in rows}:
        settings = {
            json.dumps([row["num_steps"], row["guidance_scale"], row["fresh_n"], row.get("config")])
            for row in rows
            if row["variant"] == variant
        }
        if len(settings) > 1:
            raise SystemExit(f"{arguments.results} mixes settings of {variant}; give another --results")
    frozen = {(row["prompt"], row["seed"]): row for row in rows if row["variant"] == "frozen"}
    tuned = [row for row in rows if row["variant"] != "frozen"]
    print(f"{arguments.prompts}: frozen {percent(clusters(frozen.values(), 'verdict'))}")
    queries, sizes = next((row["queries"], row["wanted"]) for row in frozen.values())
    for reward in sorted({row["reward"] for row in tuned}):
        print(f"\nreward {reward}")
        for wanted in sizes:
            best = [
                [float(row["pool"]["verdict"][i]) for i in best_of_n(row["pool"], reward, wanted, queries)]
                for row in frozen.values()
            ]
            distances = [
                (row["pool"]["kept"][reward][str(wanted)], row["fresh"]["distance"])
                for row in frozen.values()
                if wanted > 1 and "kept" in row["pool"]
            ]
            distance = ratio(distances)
            print(f"  best-of-N, {wanted:2d} wanted   {percent(best)}  distance {distance}")
        for variant in dict.fromkeys(row["variant"] for row in tuned):
            chosen = [row for row in tuned if row["variant"] == variant and row["reward"] == reward]
            if not chosen:
                continue
            pairs = [(row["fresh"], frozen[row["prompt"], row["seed"]]["fresh"]) for row in chosen]
            gain = [[a - b for a, b in zip(x["verdict"], y["verdict"], strict=True)] for x, y in pairs]
            name, said = ("world-clip", "CLIPScore")
            if "consistency" in pairs[0][0]:
                name, said = "consistency", "frame consistency"
            other = [[a - b for a, b in zip(x[name], y[name], strict=True)] for x, y in pairs]
            distance = ratio([(x["distance"], y["distance"]) for x, y in pairs])
            print(
                f"  {variant:22s} accuracy {percent(clusters(chosen, 'verdict'))}  gain {percent(gain)}  "
                f"{said} gain {interval(other)}  distance {distance}  "
                f"({len(chosen)} runs, {sum(r['learn_seconds'] for r in chosen) / len(chosen):.0f} s)"
            )


def clusters(rows: Any, field: str) -> list[list[float]]:
    return [row["fresh"][field] for row in rows]


def best_of_n(pool: dict[str, Any], reward: str, wanted: int, queries: int) -> list[int]:
    """The best `wanted` of as many pictures of `pool` as cost the same."""
    n = equal_cost(queries, 1, wanted)
    order: list[int] = Tensor(pool[reward][:n]).argsort(descending=True, stable=True)[:wanted].tolist()
    return order


def ratio(pairs: list[tuple[float, float]]) -> str:
    """The mean ratio of distances to the frozen model's; a dash if none was measured."""
    ratios = [distance / max(frozen, 1e-9) for distance, frozen in pairs]
    return f"×{sum(ratios) / len(ratios):.2f}" if ratios else "–"


def _clustered(values: list[list[float]]) -> Any:
    flat = [value for cluster in values for value in cluster]
    groups = [i for i, cluster in enumerate(values) for _ in cluster]
    return clustered(torch.tensor(flat, dtype=torch.float64), groups)


def percent(values: list[list[float]]) -> str:
    mean = _clustered(values)
    return f"{100 * mean.mean:5.1f} % [{100 * mean.low:5.1f}, {100 * mean.high:5.1f}]"


def interval(values: list[list[float]]) -> str:
    mean = _clustered(values)
    return f"{mean.mean:+.3g} [{mean.low:+.3g}, {mean.high:+.3g}]"


def commands(
    doc: str | None, run: Job, table: Job, results: str
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """A benchmark's parser, and those of its two commands, which share a file of results."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    both, made = parser.add_subparsers(required=True), []
    for name, function in (("run", run), ("table", table)):
        made.append(both.add_parser(name))
        made[-1].set_defaults(function=function)
        made[-1].add_argument("--results", type=Path, default=Path(f"benchmarks/results/{results}.jsonl"))
    return parser, made[0], made[1]


def main() -> None:
    parser, run_command, table_command = commands(__doc__, run, table, "find")
    for command in (run_command, table_command):
        command.add_argument("--prompts", default="world/heldout")
    run_command.add_argument("--model", default="world", choices=WORLD_MODELS)
    run_command.add_argument("--variants", default="default,paper")
    run_command.add_argument("--reward", default="world-clip")
    run_command.add_argument("--seeds", type=int, default=3)
    run_command.add_argument("--queries", type=int, default=150, help="of the reward, to learn or to search")
    run_command.add_argument("--wanted", default="1,16,64", help="pictures, for best-of-N at equal cost")
    run_command.add_argument("--fresh", type=int, default=64)
    run_command.add_argument("--num-steps", type=int, default=20)
    run_command.add_argument("--guidance-scale", type=float)
    run_command.add_argument("--together", type=int, default=16, help="runs in step")
    run_command.add_argument("--shard", default="0/1")
    run_command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
