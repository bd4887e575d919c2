"""What a run left, opened by its folder: learned noise, generator, weights or the noises of a search, and a
sampler of its model with the settings of learning."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from diffalign import files
from diffalign.artifacts import RunFolder
from diffalign.diffusion import Sampler, fingerprint
from diffalign.diffusion.additions import Additions
from diffalign.diffusion.loading import default_device
from diffalign.diffusion.single_file import is_single_file
from diffalign.files import ArtifactError, read_header
from diffalign.learners.result import SearchResult
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution, check_fingerprint
from diffalign.run.folders import read_plan
from diffalign.run.loading import load_sampler
from diffalign.run.weights import TunedWeights
from diffalign.settings.choices import shortened
from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import METHODS
from diffalign.settings.reading import is_text, parse_json
from diffalign.settings.sampling import Dtype, Opening, Sampling, written

Artifact = NoiseDistribution | NoiseGenerator | SearchResult


@dataclass(frozen=True)
class Opened:
    """An artefact and the model that it was learned for.

    Attributes:
        path: what was opened.
        sampler: of the model, with the settings of learning.
        metadata: what was recorded: model, num_steps, reward, queries …; of tuned weights the forwards that
            learning took too.
        artifact: what was learned or kept; tuned weights are the sampler's model's already.
        notes: why the pictures differ a little from those of learning, if they do.
        diversity: that noise is given, as `NoiseDistribution.with_diversity` says; None leaves it as learned.
    """

    path: Path
    sampler: Sampler
    metadata: Mapping[str, str]
    artifact: Artifact | TunedWeights
    notes: tuple[str, ...] = ()
    diversity: float | None = None

    def __repr__(self) -> str:
        return f"Opened({str(self.path)!r}, {self.artifact!r})"

    def check_prompt(self, prompt: str | None) -> str:
        """The prompt of pictures: the artefact's own, or the one that is given.

        Raises:
            ConfigError: if there is none, or the artefact was learned for another.
        """
        recorded = self.metadata.get("prompt")
        if recorded is not None:
            if prompt not in (None, recorded):
                raise ConfigError(f"{self.path} was learned for “{shortened(recorded)}”; leave out --prompt")
            return recorded
        if prompt is None or not prompt.strip() or not is_text(prompt):
            raise ConfigError(
                f"{self.path} was learned for all prompts; say with --prompt what pictures should show"
            )
        return prompt

    @torch.no_grad()
    def noise(self, prompt: str) -> NoiseDistribution:
        """What fresh pictures of `prompt` start from.

        Raises:
            ConfigError: if there is none, of a search, or none with another diversity.
        """
        if isinstance(self.artifact, SearchResult):
            raise ConfigError(f"{self.path} holds what a search kept, from which nothing fresh can be drawn")
        noise = NoiseDistribution.standard(self.sampler.latent_shape)
        if isinstance(self.artifact, NoiseGenerator):
            noise = self.artifact(prompt)
        if isinstance(self.artifact, NoiseDistribution):
            noise = self.artifact
        if self.diversity is None:
            return noise
        if noise.weights is None:
            raise ConfigError(
                f"{self.path} holds no mixture of noise, whose diversity could be another; leave it out"
            )
        return noise.with_diversity(self.diversity)

    def latents(self, prompt: str, n: int, seed: int) -> Tensor:
        """Initial noise `(n, *latent)`; of a search the n best that it kept.

        Raises:
            ConfigError: if a search kept fewer.
        """
        if isinstance(self.artifact, SearchResult):
            if n > len(self.artifact.x_T):
                raise ConfigError(
                    f"the search kept {len(self.artifact.x_T)} pictures; ask for at most as many"
                )
            return self.artifact.x_T[:n]
        return self.noise(prompt).sample(n, seed)

    def frozen(self) -> AbstractContextManager[None]:
        """Within it the model is as before any learning."""
        return self.artifact.frozen() if isinstance(self.artifact, TunedWeights) else nullcontext()


def load_artifact(path: Path | str, pipeline: Any = None) -> Artifact:
    """What is in a run's folder or one of its files: learned noise, a generator, or the noises of a search.

    Arguments:
        pipeline: whose text encoder a generator reads prompts with; the model that it names by default.

    Raises:
        ArtifactError: if there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"there is no {path}; give the folder of a run, or its noise or generator file")
    kind = kind_of(path)
    if kind in files.WEIGHTS:
        raise ArtifactError(f"{path} holds tuned weights, which open_artifact opens with their model")
    if kind == files.GENERATOR:
        return NoiseGenerator.load(path, pipeline)
    return (SearchResult if kind == files.NOISES else NoiseDistribution).load(path)


def single_prompt_runs(folder: Path, prompt: str | None = None) -> tuple[list[Path], list[str]]:
    """The runs of one prompt each in a folder that is none itself, and the names of other runs in it; none of
    either where the folder is a run."""
    if any((folder / name).is_file() for name in (files.CONFIG, files.NOISE, files.GENERATOR, files.NOISES)):
        return [], []
    runs = sorted(file.parent for name in (files.NOISE, files.NOISES) for file in folder.glob(f"*/{name}"))
    if runs and prompt is not None:
        raise ConfigError(f"{folder} holds runs of several prompts, each of its own; leave out --prompt")
    others = sorted(file.parent.name for file in folder.glob(f"*/{files.CONFIG}") if file.parent not in runs)
    return runs, others if runs else []


def kind_of(path: Path) -> str:
    """Of the names of what is learned, that of a file, or of what a folder holds; the noise's if none.

    Raises:
        ArtifactError: if a run in the folder has not got so far.
    """

    def is_of(name: str) -> bool:
        return (path / name).exists() or (path.name == name and path.is_file())

    kind = next(filter(is_of, files.LEARNED), None)
    if kind is None and (path / files.CONFIG).is_file():
        method = RunFolder(path).config().get("method")
        if method in METHODS:
            raise ArtifactError(
                f"the run in {path} is not finished; go on with it: diffalign {method} --resume {path}"
            )
    return kind or files.NOISE


def recorded(path: Path) -> dict[str, str]:
    """What an artefact says of what it was learned for."""
    if kind_of(path) not in files.WEIGHTS:
        return dict(load_artifact(path).metadata)
    run = RunFolder.resume(path)
    plan, learned = read_plan(run), read_header(path / files.STATE)
    seen = learned.get("rounds", "0")
    sampling, rounds = plan.sampling, run.metrics(int(seen) if seen.isdecimal() else 0)
    return {
        "model": sampling.model,
        **Additions(**sampling.additions()).record(),
        "num_steps": str(sampling.num_steps),
        "guidance_scale": str(sampling.guidance_scale),
        "scheduler": "DDIMScheduler" if sampling.scheduler == "ddim" else "",
        "call": json.dumps(sampling.arguments(), ensure_ascii=False),
        "reward": plan.reward,
        "queries": str(rounds[-1]["queries"] if rounds else 0),  # which an alarm may have stopped
        "denoiser_forwards": str(sum(row["denoiser_forwards"] for row in rounds)),
        **({"dtype": sampling.dtype} if sampling.dtype else {}),
        **({"model_fingerprint": learned["model_fingerprint"]} if "model_fingerprint" in learned else {}),
    }


def open_artifact(path: Path | str, opening: Opening | None = None) -> Opened:
    """An artefact and a sampler of its model with the settings that it was learned with.

    A CPU hardly computes in float16: there it becomes float32, with a note, unless `opening` says float16.

    Raises:
        ArtifactError: if there is none, it is damaged, does not say what it was learned for, or was learned
            for another model.
    """
    path, opening = Path(path), opening or Opening()
    kind, metadata, dtype, notes = kind_of(path), recorded(path), opening.dtype, tuple[str, ...]()
    learned_in, device = metadata.get("dtype"), str(opening.device or default_device())
    if dtype is None and learned_in == "float16" and device.startswith("cpu"):
        dtype = "float32"
        notes = ("learned in float16, made in float32 on this CPU: the pictures differ a little",)
    precision = dtype or learned_in
    if "bfloat16" in (dtype, learned_in):  # it rounds what tells a model, so this is read as it was recorded
        precision = learned_in or dtype
    try:
        if learned_in not in (None, *get_args(Dtype)):
            raise ValueError(f"unknown dtype {learned_in!r}")
        guidance, call = metadata["guidance_scale"], parse_json(metadata.get("call", "{}"))
        model, additions = opening.model or metadata["model"], Additions.read(metadata)
        options = Sampling(
            model=model,
            model_config=opening.model_config or (additions.config if is_single_file(model) else None),
            lora=opening.lora or additions.lora,
            textual_inversion=opening.textual_inversion or additions.textual_inversion,
            tiling=additions.tiling,
            num_steps=int(metadata["num_steps"]),
            guidance_scale=None if guidance == "None" else float(guidance),
            batch_size=opening.batch_size,
            # a DDIM scheduler made of the pipeline's own settings is the pipeline's own if that is one
            scheduler="ddim" if metadata["scheduler"] == "DDIMScheduler" else "keep",
            device=opening.device,
            offload=opening.offload,
            dtype=precision,  # type: ignore[arg-type]
            call=written(call),
        )
        if kind in (files.NOISE, files.NOISES):  # the others are for all prompts
            metadata["prompt"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} does not say what it was learned for ({error})") from error
    if others := metadata.get("call_left_out"):
        raise ArtifactError(
            f"{path} was learned with arguments of the pipeline's call that no file holds ({others}); give "
            "them in Python: pipeline(prompt, latents=NoiseDistribution.load(...).sample(n, seed), ...)"
        )
    sampler = load_sampler(options)
    scheduler = type(sampler.pipeline.scheduler).__name__
    if scheduler != (metadata["scheduler"] or scheduler):
        raise ArtifactError(
            f"this noise was learned with {metadata['scheduler']}; {options.model!r} has {scheduler}"
        )
    model = fingerprint(sampler.pipeline)  # before weights change it
    check_fingerprint(metadata, model)
    artifact: Artifact | TunedWeights
    if kind in files.WEIGHTS:
        artifact = TunedWeights(sampler.pipeline, path)
    else:
        artifact = load_artifact(path, sampler.pipeline)
    if opening.diversity is not None and isinstance(artifact, SearchResult | TunedWeights):
        raise ConfigError(f"{path} holds no mixture of noise, whose diversity could be another; leave it out")
    if isinstance(artifact, NoiseDistribution):
        artifact.check_model(model, sampler.latent_shape)
    if dtype is not None:
        sampler.pipeline.to(getattr(torch, dtype))
    return Opened(path, sampler, metadata, artifact, notes, opening.diversity)
