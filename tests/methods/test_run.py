"""A method as a user holds it: what its result comes from, and what fails before anything is sampled."""

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor

from diffalign import load_reward, methods
from diffalign.diffusion import PipelineError, Sampler, fingerprint, load_pipeline, seeded_noise
from diffalign.diffusion.pipeline import with_ddim
from diffalign.methods import Run, build
from diffalign.settings.fields import ConfigError
from diffalign.settings.find import FindConfig
from diffalign.settings.tune import PRESETS

CONFIG = FindConfig(queries=5, batch=3, seed=3)


def red(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def find(sampler: Sampler) -> Run:
    return Run(build("find", sampler, ["a dog"], CONFIG, "red"), red)


def test_a_pipeline_without_a_denoiser_fails_before_learning() -> None:
    bare: Any = SimpleNamespace(
        pipeline=SimpleNamespace(scheduler=None, config=None, dtype=None),
        latent_shape=(4, 8, 8),
        num_steps=2,
        guidance_scale=None,
        given={},
    )
    with pytest.raises(PipelineError, match="neither a unet nor a transformer"):
        find(bare)


def test_the_provenance_is_known_from_the_start(tiny_pipeline: Any) -> None:
    run = find(Sampler(tiny_pipeline, num_steps=2, guidance_scale=2.0))
    known = {
        "model_fingerprint": fingerprint(tiny_pipeline),
        "prompt": "a dog",
        "scheduler": "DDIMScheduler",
        "num_steps": "2",
        "guidance_scale": "2.0",
        "reward": "red",
        "seed": "3",
    }
    assert run.learner.metadata.items() > known.items()
    metadata = run.run().metadata
    assert metadata == {**run.learner.metadata, "queries": "5"}


def test_the_model_is_fingerprinted_once(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        "diffalign.methods.provenance.fingerprint", lambda pipeline: calls.append(pipeline) or "abc"
    )
    run = find(Sampler(tiny_pipeline, num_steps=2))
    assert len(calls) == 1
    assert [run.result.metadata["model_fingerprint"] for _ in range(3)] == ["abc"] * 3
    assert len(calls) == 1


def test_it_may_be_left_and_gone_on_with(tiny_pipeline: Any) -> None:
    settings = {"num_steps": 2, "queries": 12, "batch": 4, "components": 0}
    run = methods.find(tiny_pipeline, "a dog", red, **settings)
    first = next(iter(run))
    assert (first.queries, run.result.metadata["queries"]) == (4, "4")
    assert [round.queries for round in run] == [8, 12]
    with pytest.warns(UserWarning, match=r"12 of 12 queries of red\)\) is finished"):
        assert list(run) == []
    whole = methods.find(tiny_pipeline, "a dog", red, **settings).run()
    assert whole.metadata == run.result.metadata
    assert (whole.mean == run.result.mean).all()


def test_settings_of_method_and_sampling_are_told_apart(tiny_pipeline: Any) -> None:
    run = methods.search(
        tiny_pipeline, "a dog", red, preset="zero-order", num_steps=3, batch_size=5, queries=9
    )
    assert (run.learner.config.algorithm, run.learner.config.queries) == ("zero-order", 9)
    assert (run.learner.environment.num_steps, run.learner.environment.batch_size) == (3, 5)
    with pytest.raises(ConfigError, match="num_steps must be at least 1, not 0"):
        methods.find(tiny_pipeline, "a dog", red, num_steps=0)
    with pytest.raises(ConfigError, match="did you mean 'queries'"):
        methods.find(tiny_pipeline, "a dog", red, querys=9)
    with pytest.raises(ConfigError, match=r"unknown setting 'steps'.* rounds, .*num_steps.*callback"):
        methods.anchors(tiny_pipeline, ["a dog"], red, steps=9)
    with pytest.raises(ConfigError, match="unknown preset 'papers'"):
        methods.find(tiny_pipeline, "a dog", red, preset="papers")
    with pytest.raises(ConfigError, match=r"unknown method 'fnid'.*did you mean 'find'"):
        methods.prepare("fnid", tiny_pipeline, "a dog", red)
    with pytest.raises(ConfigError, match="at least one prompt"):
        methods.anchors(tiny_pipeline, [], red)


def solver(folder: Path) -> Any:
    """The pipeline in `folder`, with a scheduler other than DDIM."""
    pipeline = load_pipeline(folder, device="cpu")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def test_a_preset_sets_sampling_and_what_is_given_wins(tiny_pipeline_folder: Path) -> None:
    def sampling(method: str, preset_name: str, **given: Any) -> tuple[int, Any, str]:
        run = methods.prepare(method, pipeline, "a dog", red, preset=preset_name, **given)
        sampler = run.learner.environment
        return sampler.num_steps, sampler.guidance_scale, run.learner.metadata["scheduler"]

    pipeline = solver(tiny_pipeline_folder)
    own, configuration = pipeline.scheduler, dict(pipeline.config)
    kept = "DPMSolverMultistepScheduler"
    assert sampling("find", "paper") == (50, 7.5, "DDIMScheduler")
    assert sampling("find", "paper", num_steps=4, guidance_scale=2.0) == (4, 2.0, "DDIMScheduler")
    assert sampling("find", "paper", scheduler="keep") == (50, 7.5, kept)
    assert sampling("find", "default", guidance_scale=3.0) == (20, 3.0, kept)
    assert sampling("find", "default", scheduler="ddim", num_steps=5)[::2] == (5, "DDIMScheduler")
    assert sampling("search", "spectral", guidance_scale=3.0) == (20, 3.0, kept)
    assert pipeline.scheduler is own and dict(pipeline.config) == configuration


@pytest.mark.parametrize("preset_name", [name for name in PRESETS if not name.endswith(("default", "grpo"))])
def test_published_presets_of_tuning_guide_by_5(preset_name: str, tiny_pipeline_folder: Path) -> None:
    run = methods.tune(load_pipeline(tiny_pipeline_folder, device="cpu"), ["a dog"], red, preset=preset_name)
    assert run.learner.environment.guidance_scale == 5.0


def test_another_scheduler_makes_the_same_pictures_as_if_loaded_with_it(tiny_pipeline_folder: Path) -> None:
    given = solver(tiny_pipeline_folder)
    loaded = load_pipeline(tiny_pipeline_folder, device="cpu", scheduler="ddim")
    x_T = seeded_noise((4, 8, 8), 0, "test", range(2))
    pictures = Sampler(loaded, num_steps=3)(x_T, "a dog")
    assert (Sampler(with_ddim(given), num_steps=3)(x_T, "a dog") == pictures).all()
    assert (Sampler(given, num_steps=3)(x_T, "a dog") != pictures).any()


def test_a_model_s_name_stands_for_its_pipeline(tiny_pipeline_folder: Path) -> None:
    run = methods.search(str(tiny_pipeline_folder), "a dog", red, queries=9, num_steps=2, height=16)
    assert run.learner.environment.pipeline.config["_name_or_path"] == str(tiny_pipeline_folder)
    assert run.learner.environment.given == {"height": 16}


@pytest.mark.parametrize("learn", [methods.find, methods.search])
def test_a_list_of_prompts_gives_a_run_of_each(learn: Any, tiny_pipeline: Any) -> None:
    rounds: list[Any] = []
    given = {"queries": 9, "num_steps": 2, "callback": rounds.append}
    runs = learn(tiny_pipeline, ["a dog", "a cat"], red, **given)
    assert [run.run().metadata["prompt"] for run in runs] == ["a dog", "a cat"]
    assert sum(len(round.rewards) for round in rounds) == 18
    assert runs[0].reward is runs[1].reward
    with pytest.raises(ConfigError, match="at least one prompt"):
        learn(tiny_pipeline, [], red)


def test_runs_and_results_are_one_line_and_show_pictures(tiny_pipeline: Any) -> None:
    anchors = {"rounds": 1, "prompts_per_round": 1, "samples_per_prompt": 9}
    for learn, prompts, settings in (
        (methods.find, "a dog", {"queries": 9}),
        (methods.search, "a dog", {"queries": 9}),
        (methods.anchors, ["a dog"], anchors),
    ):
        run = learn(tiny_pipeline, prompts, red, num_steps=2, **settings)
        assert run._repr_png_() is None
        last = [round for round in run][-1]
        for shown in (run, last, run.result, run.learner):
            assert "\n" not in repr(shown) and len(repr(shown)) < 200
        assert "'a dog', 9 of 9 queries of red" in repr(run)
        size = Image.open(BytesIO(run._repr_png_())).size
        assert size == Image.open(BytesIO(last._repr_png_())).size
        assert size[0] % 16 == size[1] % 16 == 0
    tuned = methods.tune(tiny_pipeline, ["a dog"], red, preset="ddpo", num_steps=2)
    assert repr(tuned.result) == "DenoiserPolicy(StableDiffusionPipeline, an adapter of rank 4)"
    tuned.result.unload()


def test_a_generator_is_distilled(tiny_pipeline: Any, tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    methods.find(tiny_pipeline, "a dog", red, num_steps=2).result.save(tmp_path / "run/noise.safetensors")
    generator = methods.distil(str(tiny_pipeline_folder), tmp_path, steps=2, num_steps=2, seed=3)
    assert "\n" not in repr(generator) and generator("a dog").mean.isfinite().all()
    with pytest.raises(ConfigError, match=r"unknown setting 'sed'.*did you mean 'seed'"):
        methods.distil(tiny_pipeline, tmp_path, sed=3)


def test_samples_are_where_they_are_wanted(tiny_pipeline: Any) -> None:
    noise = methods.find(tiny_pipeline, "a dog", red, num_steps=2).result
    half = noise.to("cpu", torch.float16).sample(2, seed=0)
    assert half.dtype == torch.float16
    assert (half == noise.sample(2, seed=0).half()).all()
    with pytest.raises(TypeError):
        noise.to([])


def test_equal_rewards_are_warned_of(tiny_pipeline: Any) -> None:
    run = methods.find(tiny_pipeline, "a dog", lambda images, prompts: [1.0] * len(images), num_steps=2)
    with pytest.warns(UserWarning, match="all rewards are 1, so that they teach nothing"):
        next(iter(run))


def test_loading_is_silent(
    tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    monkeypatch.setattr("diffusers.utils.logging._tqdm_active", True)
    load_pipeline(tiny_pipeline_folder, device="cpu")
    load_reward("world-clip")
    assert capfd.readouterr() == ("", "")
    assert diffusers_logging.is_progress_bar_enabled()  # as it was
