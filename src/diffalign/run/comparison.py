"""A comparison of methods in its folder.

Each line of `comparison.jsonl` is a method with a seed; what is there already is not made again, and what a
kill interrupted goes on from its state in `states`.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from diffalign import artifacts
from diffalign.artifacts import Needed, RunFolder, write_rows
from diffalign.diffusion.encoding import unread
from diffalign.evaluation import Samples
from diffalign.files import CHART, COMPARISON, CONFIG, PICTURES, ROWS, write_json
from diffalign.methods import build
from diffalign.methods.provenance import decisive, disagreeing, provenance
from diffalign.metrics import clustered, mean_measured, mean_pairwise_distance
from diffalign.report.pictures import grid
from diffalign.report.plots import quality_against_cost
from diffalign.run.asked import Asked, read_prompts
from diffalign.run.checkpoint import resumable
from diffalign.run.compare import COMPARED, count_pictures, settings_of
from diffalign.run.conclusion import columns_for, shown
from diffalign.run.loading import Loader
from diffalign.run.progress import Progress
from diffalign.run.session import Session
from diffalign.run.setup import Setup
from diffalign.settings.choices import unknown
from diffalign.settings.compare import CompareConfig
from diffalign.settings.evaluation import Evaluation
from diffalign.settings.fields import ConfigError, pick
from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan, own_reward
from diffalign.settings.reading import is_count, is_number
from diffalign.settings.sampling import Sampling

SHOWN = 64  # pictures of a method, of all prompts
STATES = "states"  # of methods that are under way, in a folder of the settings that they have
Table = dict[str, dict[str, Any]]


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def _is_part(value: Any) -> bool:
    """Whether it is what `describe` says of a prompt."""
    if not isinstance(value, dict) or not {"reward", "judged", "distance"} <= value.keys():
        return False
    judged, distance = value["judged"], value["distance"]
    return (
        _are_numbers(value["reward"])
        and (judged is None or _are_numbers(judged))
        and (distance is None or is_number(distance))
    )


def _is_about(value: Any) -> bool:
    """Whether it says what a method was compared on."""
    known = isinstance(value, dict) and is_count(value.get("queries"))
    return known and isinstance(value.get("model_fingerprint", ""), str)


#: What a line has.
_READ: Needed = {
    "method": lambda value: isinstance(value, str) and value in COMPARED,
    "seed": is_count,
    "about": _is_about,
    "seconds": is_number,
    "forwards": lambda value: is_count(value) and value > 0,
    "queries": lambda value: value is None or is_number(value),
    "pictures": lambda value: isinstance(value, list) and bool(value) and all(map(_is_part, value)),
}


@dataclass(frozen=True)
class Comparison:
    """A comparison that may begin or go on.

    Attributes:
        folder: where its lines, table and chart are kept.
        config: what is compared.
        sampling: how pictures are made.
        prompts: read from their set.
        setup: the frozen model, the reward and the judges.
    """

    folder: RunFolder
    config: CompareConfig
    sampling: Sampling
    prompts: tuple[str, ...]
    setup: Setup

    @classmethod
    def of(cls, folder: RunFolder, config: CompareConfig, sampling: Sampling) -> Self:
        """Loads what is needed; what does not fit leaves no folder. A folder that holds the same comparison
        gets further methods and seeds.

        Raises:
            ConfigError: if it holds a comparison of another model, or with other settings.
        """
        for name in config.names:
            if name not in COMPARED:
                raise ConfigError(unknown("method", name, COMPARED))
        reward = config.reward or own_reward(sampling.model)
        config = replace(config, reward=reward)
        begun = (folder / CONFIG).is_file() and folder.config().get("method") == "compare"
        if begun:
            _check_same(folder, {**asdict(config), **asdict(sampling)})
        prompts = read_prompts(config.prompts, reward, config.judge, sampling.model)
        settings = {
            name: settings_of(name, config, len(prompts), sampling.num_steps)
            for name in config.names
            if COMPARED[name] is not None
        }
        setup = Loader().setup(sampling, reward, config.judge, prompts)
        warnings = [*setup.warnings, *filter(None, [unread(setup.sampler.pipeline, prompts)])]
        for name, (method, learning) in settings.items():  # which a model or its latents may not fit
            group = prompts[:1] if METHODS[method].per_prompt else prompts
            try:
                learner = build(method, setup.sampler, group, learning, setup.reward_name)
            except ConfigError as error:
                error.add_note(f"or leave {name} out of --methods")
                raise
            warnings += learner.warnings
            learner.release()
        comparison = cls(folder, config, sampling, prompts, replace(setup, warnings=tuple(warnings)))
        if not begun:
            folder.begin(comparison.settings())
        return comparison

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`."""
        return {"method": "compare", **asdict(self.config), **asdict(self.sampling)}

    def count_pictures(self) -> int:
        """How many pictures it makes."""
        return self.config.seeds * sum(map(self._count_of, self.config.names))

    def _count_of(self, name: str) -> int:
        return count_pictures(name, self.config, len(self.prompts), self.sampling.num_steps)

    def run(self, progress: Progress) -> Table:
        """Runs what the folder does not hold yet, seed by seed; writes and returns the table."""
        config, setup = self.config, self.setup
        with resumable(self.folder.path, "compare"):
            for warning in setup.warnings:
                progress.warn(warning)
            self.folder.write_config(self.settings())  # those of the last start, for --resume
            known = read_rows(self.folder)
            write_rows(self.folder / ROWS, known)  # without what a kill cut short
            about = {"prompts": list(self.prompts), "queries": config.queries, "images": config.images}
            described = decisive(provenance(setup.sampler, setup.reward_name))
            about |= {"model": setup.model, **described, "judge": setup.names["judge"]}
            rows = [
                row
                for row in known
                if row["about"].keys() == about.keys() and not disagreeing(row["about"], about)
            ]
            done = {(row["method"], row["seed"]) for row in rows}
            for seed in range(config.seed, config.seed + config.seeds):
                for name in config.names:
                    if (name, seed) not in done:
                        rows.append(self._run(name, replace(config, seed=seed), about, progress))
                        continue
                    with progress.phase(name, self._count_of(name), self._count_of(name)):
                        pass
            table = summarise_rows(sorted(rows, key=lambda row: list(COMPARED).index(row["method"])))
            write_json(self.folder / COMPARISON, table)
            quality_against_cost(table, self.folder / CHART, reward=self.setup.reward_name)
            return table

    def _run(
        self, name: str, config: CompareConfig, about: Mapping[str, Any], progress: Progress
    ) -> dict[str, Any]:
        """A method with the seed of `config`, as a line of the file, to which it is added."""
        began = time.perf_counter()
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        states = self.folder / STATES / digest / f"{name}-{config.seed}"
        with progress.phase(name, self._count_of(name)):
            samples, queries, forwards = self._pictures(name, config, states, progress)
        self._draw(name, config.seed, samples)
        row: dict[str, Any] = {"method": name, "seed": config.seed, "about": about}
        row |= {"seconds": time.perf_counter() - began, "forwards": forwards}
        row["queries"] = queries
        row["pictures"] = [describe(prompt, part) for prompt, part in zip(self.prompts, samples, strict=True)]
        with (self.folder / ROWS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        shutil.rmtree(self.folder / STATES, ignore_errors=True)
        return row

    def _draw(self, name: str, seed: int, samples: Sequence[Samples]) -> None:
        """A grid of a method's pictures, those of the same prompts at the same places as every other's."""
        folder = self.folder / PICTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        images, verdicts, captions = shown(samples, self.prompts, SHOWN)
        captions = captions or list(self.prompts) * len(images)
        path, columns, title = folder / f"seed{seed}-grid.png", columns_for(captions), f"{name}, seed {seed}"
        grid(images, path, columns=columns, title=title, verdicts=verdicts, captions=captions)

    def _pictures(
        self, name: str, config: CompareConfig, states: Path, progress: Progress
    ) -> tuple[list[Samples], int, int]:
        """Pictures of each prompt by a method; reward queries and denoiser's forwards that they took."""
        fresh = self.setup.sampler.forwards * config.images  # of a prompt
        if COMPARED[name] is None:
            samples = self.setup.measure(self.prompts, None, config.images, config.seed, progress)
            return samples, 0, fresh * len(self.prompts)
        method, learning = settings_of(name, config, len(self.prompts), self.sampling.num_steps)
        setup = self.setup
        # checks would cost what the others do not spend
        evaluation = Evaluation(images=config.images, check_every=0)
        groups = [(text,) for text in self.prompts] if METHODS[method].per_prompt else [self.prompts]
        pictures, queries, forwards = list[Samples](), 0, 0
        for number, prompts in enumerate(groups):
            plan = Plan(method, prompts, learning, evaluation, self.sampling, setup.reward_name)
            learner = build(method, setup.sampler, prompts, learning, setup.reward_name)
            folder = RunFolder(states.with_name(f"{states.name}-{number}"))
            folder.path.mkdir(parents=True, exist_ok=True)
            session = Session(folder, Asked(plan, prompts, prompts), setup, learner)
            session.learn(progress)
            queries += learner.queries
            forwards += session.spent().denoiser_forwards
            if (kept := learner.kept()) is not None:
                pictures.append(setup.assess(kept, prompts[0], setup.embed))
            else:
                pictures += setup.measure(prompts, learner.noise, config.images, config.seed, progress)
                forwards += fresh * len(prompts)
            learner.release()
        return pictures, queries, forwards


#: Settings that add to a comparison, or change nothing but time and memory.
_FREE = "methods", "seeds", "seed", "batch_size", "device", "reward_device", "dtype", "offload"


def _check_same(folder: RunFolder, settings: Mapping[str, Any]) -> None:
    begun = {**asdict(CompareConfig("-")), **asdict(Sampling()), **folder.config()}
    changed = [
        f"{name} {begun[name]!r}"
        for name, value in settings.items()
        if name not in _FREE and begun[name] != (list(value) if isinstance(value, tuple) else value)
    ]
    if changed:
        raise ConfigError(f"{folder.path} holds a comparison with {', '.join(changed)}; give another --out")


def read_settings(folder: RunFolder) -> tuple[CompareConfig, Sampling]:
    """What the comparison in a folder was asked for."""
    settings = folder.config()
    if settings.get("method") != "compare":
        raise ConfigError(f"{folder / CONFIG} was not written by diffalign compare")
    return pick(CompareConfig, settings), pick(Sampling, settings)


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of a comparison; what a kill cut short is left out, and so made anew.

    Raises:
        ArtifactError: if a line is none of a comparison.
    """
    return artifacts.read_rows(folder / ROWS, _READ, "delete the line to make it anew")


def describe(prompt: str, samples: Samples) -> dict[str, Any]:
    """A prompt's pictures as a line of the comparison holds them."""
    return {
        "prompt": prompt,
        "reward": samples.reward.tolist(),
        "judged": None if samples.judged is None else samples.judged.int().tolist(),
        "distance": None if samples.embeddings is None else mean_pairwise_distance(samples.embeddings),
    }


def summarise_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    """By method: reward, judged share, diversity (means with intervals over prompts and seeds), forwards and
    seconds a prompt."""
    table: Table = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        lines = [row for row in rows if row["method"] == method]
        parts = [part for row in lines for part in row["pictures"]]
        prompts = len(lines[0]["pictures"])
        judged = [part["judged"] for part in parts if part["judged"]]  # where the judge can read the prompt
        table[method] = {
            "reward": _interval([part["reward"] for part in parts]),
            "judged": _interval(judged) if judged else None,
            "distance": mean_measured(part["distance"] for part in parts),
            "queries": sum(map(_queries_of, lines)) / len(lines) / prompts,
            "forwards": sum(row["forwards"] for row in lines) / len(lines) / prompts,
            "seconds": sum(row["seconds"] for row in lines) / len(lines) / prompts,
            "seeds": len(lines),
        }
    return table


def _queries_of(row: Mapping[str, Any]) -> float:
    """As many as were asked for of a line that does not say."""
    if row.get("queries") is not None:
        return float(row["queries"])
    return 0.0 if row["method"] == "frozen" else float(row["about"]["queries"] * len(row["pictures"]))


def _interval(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    flat = [value for part in values for value in part]
    groups = [number for number, part in enumerate(values) for _ in part]
    return dict(clustered(flat, groups).as_dict())
