"""A comparison of methods in its folder.

Each line of `comparison.jsonl` is a method with a seed; what is there already is not made again, and what a
kill interrupted goes on from its state in `states`.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from diffalign.artifacts import RunFolder
from diffalign.files import CHART, COMPARISON, CONFIG, ROWS, replacing
from diffalign.learners.spectral import check_latents
from diffalign.methods.provenance import decisive, provenance
from diffalign.metrics import clustered
from diffalign.report.plots import quality_against_cost
from diffalign.run.checkpoint import resumable
from diffalign.run.compare import COMPARED, Task, count_pictures, describe, run_method
from diffalign.run.loading import Loader, Setup, load_sampler, read_prompts, warnings_for
from diffalign.run.progress import Progress
from diffalign.settings.choices import unknown
from diffalign.settings.compare import CompareConfig
from diffalign.settings.fields import ConfigError, pick
from diffalign.settings.sampling import Sampling

STATES = "states"  # of methods that are under way, in a folder of the settings that they have
Table = dict[str, dict[str, Any]]


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
    def start(cls, path: Path, config: CompareConfig, sampling: Sampling) -> Self:
        """Loads what is needed; what does not fit leaves no folder. A folder that holds another comparison
        gets further lines.

        Raises:
            ArtifactError: if the folder holds something else.
            ConfigError, PipelineError, PromptError, RewardError: as `Loader.job`.
        """
        for name in config.names:
            if name not in COMPARED:
                raise ConfigError(unknown("method", name, COMPARED))
        prompts = read_prompts(config.prompts)
        setup = Loader().setup(sampling, config.reward, config.judge, prompts, prompts)
        if "spectral" in config.names:
            check_latents(setup.sampler.latent_shape)
        comparison = cls(RunFolder(path), config, sampling, prompts, setup)
        if not ((path / CONFIG).is_file() and comparison.folder.config().get("method") == "compare"):
            RunFolder.create(path, comparison.settings())
        return comparison

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`."""
        return {"method": "compare", **asdict(self.config), **asdict(self.sampling)}

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Goes on with the comparison in a folder, to the same table.

        Raises:
            ArtifactError: if there is none.
            ConfigError: if another command wrote the folder.
        """
        settings = RunFolder.resume(path).config()
        if settings.get("method") != "compare":
            raise ConfigError(f"{path / CONFIG} was not written by diffalign compare")
        return cls.start(path, pick(CompareConfig, settings), pick(Sampling, settings))

    def count_pictures(self) -> int:
        """How many pictures it makes, about."""
        config, number = self.config, len(self.prompts)
        each = (count_pictures(name, number, config.queries, config.images) for name in config.names)
        return config.seeds * sum(each)

    def run(self, progress: Progress) -> Table:
        """Runs what the folder does not hold yet, seed by seed; writes and returns the table.

        Raises:
            RewardError: if the reward fails; what is done is kept.
        """
        with resumable(self.folder.path, "compare"):
            return self._run_all(progress)

    def _run_all(self, progress: Progress) -> Table:
        config, setup = self.config, self.setup
        for warning in warnings_for(setup, config.judge, self.prompts):
            progress.warn(warning)
        self.folder.write_config(self.settings())  # those of the last start, for --resume
        known = read_rows(self.folder)
        with replacing(self.folder / ROWS) as whole:  # without what a kill cut short
            whole.write_text("".join(json.dumps(row) + "\n" for row in known), "utf-8")
        about = {"prompts": list(self.prompts), "queries": config.queries, "images": config.images}
        described = decisive(provenance(setup.sampler, setup.reward_name))
        about |= {"model": setup.model, **described, "judge": setup.judge_name}
        rows = [row for row in known if row["about"] == about]
        done = {(row["method"], row["seed"]) for row in rows}
        for seed in range(config.seed, config.seed + config.seeds):
            for name in config.names:
                if (name, seed) not in done:
                    rows.append(self._run(name, seed, about, progress))
        table = summarise_rows(sorted(rows, key=lambda row: list(COMPARED).index(row["method"])))
        self.folder.write_json(COMPARISON, table)
        quality_against_cost(table, self.folder / CHART, reward=config.reward)
        return table

    def _run(self, name: str, seed: int, about: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """A method with a seed, as a line of the file, to which it is added."""
        config, began = self.config, time.perf_counter()
        task = Task(
            lambda: load_sampler(self.sampling),
            self.setup,
            self.prompts,
            config.queries,
            config.images,
            seed,
            self.folder / STATES / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8],
            progress,
        )
        total = count_pictures(name, len(self.prompts), config.queries, config.images)
        with progress.phase(name, total):
            samples, forwards = run_method(name, task)
        row: dict[str, Any] = {"method": name, "seed": seed, "about": about}
        row |= {"seconds": time.perf_counter() - began, "forwards": forwards}
        row["pictures"] = [describe(prompt, part) for prompt, part in zip(self.prompts, samples, strict=True)]
        with (self.folder / ROWS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        shutil.rmtree(self.folder / STATES, ignore_errors=True)
        return row

    def output_files(self) -> list[Path]:
        """What a finished comparison left, for its user."""
        return [self.folder / name for name in (CHART, COMPARISON, ROWS)]


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of a comparison; what a kill cut short is left out, and so made anew."""
    rows = []
    for line in (folder / ROWS).read_text("utf-8").splitlines() if (folder / ROWS).exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def summarise_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    """By method: reward, judged share, diversity (means with intervals over prompts and seeds), forwards and
    seconds a prompt."""
    table: Table = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        lines = [row for row in rows if row["method"] == method]
        parts = [part for row in lines for part in row["pictures"]]
        prompts = len(lines[0]["pictures"])
        distances = [part["distance"] for part in parts if part["distance"] is not None]
        table[method] = {
            "reward": _interval([part["reward"] for part in parts]),
            "judged": _interval([p["judged"] for p in parts]) if all(p["judged"] for p in parts) else None,
            "distance": sum(distances) / len(distances) if distances else None,
            "queries": 0 if method == "frozen" else lines[0]["about"]["queries"],
            "forwards": sum(row["forwards"] for row in lines) / len(lines) / prompts,
            "seconds": sum(row["seconds"] for row in lines) / len(lines) / prompts,
            "seeds": len(lines),
        }
    return table


def _interval(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    flat = [value for part in values for value in part]
    groups = [number for number, part in enumerate(values) for _ in part]
    return dict(clustered(flat, groups).as_dict())
