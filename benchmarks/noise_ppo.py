"""One generator of noise on training and on unseen prompts, at several step counts, and as FIND's start.

    python benchmarks/noise_ppo.py run --seeds 3
    python benchmarks/noise_ppo.py table

The generator is that of `--variant`: `anchors`, or `noise-ppo`, the paper's. It learns on `world/many` with
`world-clip`. Of its prompts those of `world/unusual` are measured; unseen are `world/fresh` and
`world/heldout`. Frozen and learned noise start from the same ε. FIND starts from N(0, I) with 150 reward
queries, and from the generator with half as many, on prompts of both kinds. `run` appends one line a seed and
part to a results file and skips those that it holds; a learned generator stays beside it. `--shard 0/2`
shares the seeds, `--parts` the parts; `--prompts world/unusual` with other `--results` learns from few
prompts with many queries each.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from find import append, commands, digest, interval, percent, read

from diffalign import NoiseDistribution, NoiseGenerator, Sampler, load_pipeline, load_prompts
from diffalign.diffusion import fingerprint
from diffalign.loop import train
from diffalign.methods import Run, build
from diffalign.metrics import mean_pairwise_distance
from diffalign.rewards.world_clip import WorldClip
from diffalign.rollout import collect
from diffalign.settings.fields import preset
from diffalign.settings.methods import METHODS
from diffalign.world.judge import judge

MEASURED = {"training": "world/unusual", "unseen": "world/fresh", "heldout": "world/heldout"}
STEPS = (2, 4, 8, 16, 32)
QUERIES = 150  # of FIND
Noise = Callable[[str], NoiseDistribution]


class Measured:
    """A generator and what its pictures are measured with.

    Arguments:
        arguments: of the command line.
        sampler: with the steps of learning.
        generator: what was learned.
        seed: of learning and of the pictures.
    """

    def __init__(
        self, arguments: argparse.Namespace, sampler: Sampler, generator: Path, clip: WorldClip, seed: int
    ) -> None:
        self.arguments, self.sampler, self.clip, self.seed = arguments, sampler, clip, seed
        self.file, self.generator = generator, NoiseGenerator.load(generator, sampler.pipeline)
        standard = NoiseDistribution.standard

        @torch.no_grad()
        def learned(prompt: str) -> NoiseDistribution:
            return self.generator(prompt)

        self.noises: dict[str, Noise] = {
            "frozen": lambda prompt: standard(sampler.latent_shape),
            "generator": learned,
        }

    def pictures(
        self, noise: Noise, prompts: Sequence[str], n: int, steps: int | None = None
    ) -> dict[str, Any]:
        """Figures of `n` fresh pictures a prompt, from the same ε for all noises."""
        sampler, figures = self.sampler, {}
        if steps is not None:
            sampler = Sampler(sampler.pipeline, num_steps=steps, batch_size=32)
        for prompt in prompts:
            images = collect(
                noise(prompt), sampler, prompt, range(n), seed=self.seed, stream="evaluate"
            ).images
            figures[prompt] = {
                "verdict": judge(images, [prompt] * n)[0].int().tolist(),
                "world-clip": [round(v, 4) for v in self.clip(images, [prompt] * n).tolist()],
                "distance": [mean_pairwise_distance(self.clip.embed_images(images))],
            }
        return figures

    def alignment(self) -> dict[str, Any]:
        """Each set of prompts, at the steps of learning."""
        return {
            name: {
                kind: self.pictures(noise, load_prompts(prompts).texts, self.arguments.fresh)
                for kind, noise in self.noises.items()
            }
            for name, prompts in MEASURED.items()
        }

    def steps(self) -> dict[str, Any]:
        """Training and unseen prompts, at each number of steps."""
        return {
            name: {
                str(steps): {
                    kind: self.pictures(noise, load_prompts(MEASURED[name]).texts, self.arguments.few, steps)
                    for kind, noise in self.noises.items()
                }
                for steps in STEPS
            }
            for name in ("training", "unseen")
        }

    def find(self) -> dict[str, Any]:
        """FIND from N(0, I) with all and half of the queries, and from the generator with half."""
        figures: dict[str, Any] = {}
        for name in ("training", "heldout"):
            prompts, figures[name] = load_prompts(MEASURED[name]).texts, {}
            for start, changed in (
                ("cold", {"queries": QUERIES}),
                ("half, cold", {"queries": QUERIES // 2}),
                ("half, warm", {"queries": QUERIES // 2, "start": str(self.file)}),
            ):
                learned = {}
                settings = preset(METHODS["find"].presets, "default", {"seed": self.seed, **changed})
                for prompt in prompts:
                    learner = build("find", self.sampler, [prompt], settings, "world-clip")
                    learned[prompt] = Run(learner, self.clip).run()
                figures[name][start] = self.pictures(learned.__getitem__, prompts, self.arguments.fresh)
        return figures

    def overhead(self) -> dict[str, Any]:
        """The generator's seconds over those of sampling, a batch of 16 a prompt."""
        generating = sampling = 0.0
        self.generator._known.clear()  # reading the prompt counts
        for prompt in load_prompts(MEASURED["training"]).texts:
            seconds = {}
            for kind, noise in self.noises.items():
                began = time.perf_counter()
                x_T = noise(prompt).sample(16, 0)
                seconds[kind] = time.perf_counter() - began
            generating += seconds["generator"] - seconds["frozen"]
            began = time.perf_counter()
            self.sampler(x_T, prompt)
            sampling += time.perf_counter() - began
        return {"share": generating / sampling}


PARTS: Mapping[str, Callable[[Measured], dict[str, Any]]] = {
    "alignment": Measured.alignment,
    "steps": Measured.steps,
    "find": Measured.find,
    "overhead": Measured.overhead,
}


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    clip, changes, results = WorldClip(), json.loads(arguments.changes), arguments.results
    part, parts = (int(number) for number in arguments.shard.split("/"))
    results.parent.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(arguments.model, dtype=torch.float32)
    pipeline.unet.to(memory_format=torch.channels_last)  # a fifth faster
    sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=32)
    for seed in range(arguments.seeds)[part::parts]:
        given = {"rounds": arguments.rounds, "seed": seed, **changes}
        config = preset(METHODS[arguments.variant].presets, "default", given)
        prompts = load_prompts(arguments.prompts).texts
        about = [arguments.variant, fingerprint(pipeline), arguments.num_steps, asdict(config), *prompts]
        file = results.parent / f"generator-{digest(about)}.safetensors"
        done = {row["key"] for row in read(results)}
        key = digest("learn", about)
        if key not in done or not file.is_file():
            learner = build(arguments.variant, sampler, prompts, config, "world-clip")
            began, curve = time.perf_counter(), []
            for step in train(learner, clip):
                curve.append(round(float(step.rewards.mean()), 3))
                print(seed, step.round, step.queries, curve[-1], flush=True)
            row = {"key": key, "part": "learn", "seed": seed, "variant": arguments.variant, "curve": curve}
            row |= {"seconds": time.perf_counter() - began, "queries": learner.queries}
            learner.result().save(file)
            append(results, row)
        measured = Measured(arguments, sampler, file, clip, seed)
        for name in arguments.parts.split(","):
            key = digest(name, about, arguments.fresh, arguments.few)
            if key not in done:
                began = time.perf_counter()
                append(results, {"key": key, "part": name, "seed": seed, "figures": PARTS[name](measured)})
                print(seed, name, f"{time.perf_counter() - began:.0f} s", flush=True)


def table(arguments: argparse.Namespace) -> None:
    rows = list(read(arguments.results))

    def measured(part: str) -> Iterator[Any]:
        return (row["figures"] for row in rows if row["part"] == part)

    def values(part: str, path: Sequence[str], name: str) -> list[list[float]]:
        collected = []
        for cell in measured(part):
            for step in path:
                cell = cell[step]
            collected += [figures[name] for figures in cell.values()]
        return collected

    def line(label: str, part: str, path: Sequence[str], kinds: tuple[str, str]) -> None:
        def gain(name: str) -> list[list[float]]:
            pairs = zip(*(values(part, [*path, kind], name) for kind in kinds), strict=True)
            return [[a - b for a, b in zip(one, other, strict=True)] for one, other in pairs]

        first, second = (percent(values(part, [*path, kind], "verdict")) for kind in kinds)
        print(
            f"  {label:12s} {second} → {first}  gain {percent(gain('verdict'))}  "
            f"CLIPScore {interval(gain('world-clip'))}  distance {interval(gain('distance'))}"
        )

    learned = [row for row in rows if row["part"] == "learn"]
    if len({row["variant"] for row in learned}) > 1:
        raise SystemExit(f"{arguments.results} mixes results of several variants; give another --results")
    seconds = sum(row["seconds"] for row in learned) / len(learned)
    print(f"{len(learned)} seeds, {learned[0]['queries']} reward queries, {seconds:.0f} s of learning")
    print("right, frozen → generator")
    parts = {row["part"] for row in rows}
    for name in MEASURED if "alignment" in parts else ():
        line(name, "alignment", [name], ("generator", "frozen"))
    for name in ("training", "unseen") if "steps" in parts else ():
        print(f"{name} prompts, sampler steps at inference")
        for steps in STEPS:
            line(f"{steps} steps", "steps", [name, str(steps)], ("generator", "frozen"))
    for name in ("training", "heldout") if "find" in parts else ():
        print(f"FIND on {name} prompts, against all queries from N(0, I)")
        for start in ("half, cold", "half, warm"):
            line(start, "find", [name], (start, "cold"))
    shares = [f"{100 * cell['share']:.2f} %" for cell in measured("overhead")]
    if shares:
        print(f"the generator's time over that of sampling: {', '.join(shares)}")


def main() -> None:
    parser, run_command, _ = commands(__doc__, run, table, "noise_ppo")
    run_command.add_argument("--model", default="world", help="the world, or world-flow")
    run_command.add_argument("--prompts", default="world/many", help="to learn from")
    run_command.add_argument("--variant", default="anchors", choices=("anchors", "noise-ppo"))
    run_command.add_argument("--changes", default="{}", help="of the variant's settings, as JSON")
    run_command.add_argument("--parts", default=",".join(PARTS))
    run_command.add_argument("--seeds", type=int, default=3)
    run_command.add_argument("--rounds", type=int, default=40)
    run_command.add_argument("--num-steps", type=int, default=10, help="of the sampler, while learning")
    run_command.add_argument("--fresh", type=int, default=24, help="fresh pictures a prompt")
    run_command.add_argument("--few", type=int, default=8, help="the same, of each step count")
    run_command.add_argument("--shard", default="0/1")
    run_command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
