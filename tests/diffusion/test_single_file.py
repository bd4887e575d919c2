"""A model in a single file, and what is said of a file or a configuration that does not fit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import PipelineError, fingerprint, seeded_noise
from diffalign.diffusion.fingerprint import PARTS, differing
from tests.diffusion.single_file import save_single_file


@pytest.fixture(scope="module")
def file(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline's weights."""
    return save_single_file(tiny_pipeline, tmp_path_factory.mktemp("single") / "model.safetensors")


def test_a_single_file_is_the_same_model(file: Path, tiny_pipeline: Any, tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(file, device="cpu", config=tiny_pipeline_folder)
    assert type(pipeline) is type(tiny_pipeline) and fingerprint(pipeline) == fingerprint(tiny_pipeline)
    noise = seeded_noise((4, 8, 8), 0, "test", range(2))
    one, other = (Sampler(model, num_steps=3)(noise, "a dog") for model in (pipeline, tiny_pipeline))
    assert torch.equal(one, other)
    half = load_pipeline(file, device="cpu", dtype=torch.float16, config=tiny_pipeline_folder)
    assert half.dtype == torch.float16 and fingerprint(half) == fingerprint(tiny_pipeline)


def test_a_file_needs_a_configuration_and_a_folder_none(file: Path, tiny_pipeline_folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"name a pipeline of the same .* --model-config"):
        load_pipeline(file, device="cpu")
    with pytest.raises(PipelineError, match=r"has a configuration: --model-config .* of a single file alone"):
        load_pipeline(tiny_pipeline_folder, device="cpu", config=tiny_pipeline_folder)
    with pytest.raises(PipelineError, match="there is no file nowhere"):
        load_pipeline("nowhere.safetensors", device="cpu", config=tiny_pipeline_folder)


def test_a_configuration_that_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    for name, said in {
        "owner/model": "cannot load the configuration owner/model",
        "sd15": "cannot load the configuration stable-diffusion-v1-5",
        "sd16": "did you mean 'sd15'",
        str(tmp_path): "no saved pipeline",
    }.items():
        with pytest.raises(PipelineError, match=said):
            load_pipeline(file, device="cpu", config=name)


def test_a_class_that_reads_no_single_file_is_named(
    file: Path, tiny_video_pipeline: Any, tmp_path: Path
) -> None:
    tiny_video_pipeline.save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match="of a TextToVideoSDPipeline, which diffusers reads"):
        load_pipeline(file, device="cpu", config=tmp_path)


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_file_that_is_cut_off_is_refused(
    size: int, file: Path, tiny_pipeline_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:size])
    with pytest.raises(PipelineError, match="no safetensors file, or is cut off"):
        load_pipeline(tmp_path / "cut.safetensors", device="cpu", config=tiny_pipeline_folder)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_pickled_files_are_not_opened(suffix: str, tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(PipelineError, match=r"pickled, which can run code|no safetensors file"):
        load_pipeline(path, device="cpu", config=tiny_pipeline_folder)


@pytest.mark.parametrize("missing", ["model.diffusion_model.", ""])
def test_a_file_without_a_denoiser_is_refused(
    missing: str, file: Path, tiny_pipeline_folder: Path, tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(missing)}
    save_file(kept or {"lora": torch.zeros(3)}, tmp_path / "part.safetensors")
    with pytest.raises(PipelineError, match=r"does not fit the configuration .* file that holds a model"):
        load_pipeline(tmp_path / "part.safetensors", device="cpu", config=tiny_pipeline_folder)


@pytest.mark.parametrize("missing", [("first_stage_model.",), ("cond_stage_model.", "first_stage_model.")])
def test_what_a_file_lacks_is_that_of_the_configuration(
    missing: tuple[str, ...], file: Path, other_pipeline_folder: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.safetensors"
    save_file({name: it for name, it in load_file(file).items() if not name.startswith(missing)}, part)
    pipeline = load_pipeline(part, device="cpu", config=other_pipeline_folder)
    whole, other = load_pipeline(file, device="cpu", config=other_pipeline_folder), other_pipeline_folder
    rest = load_pipeline(other, device="cpu")
    assert differing(fingerprint(pipeline), fingerprint(whole)) == [PARTS[1]]
    assert differing(fingerprint(pipeline), fingerprint(rest)) == [PARTS[0]]
    bare = tmp_path / "bare"  # a configuration without weights
    shutil.copytree(other, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert fingerprint(load_pipeline(file, device="cpu", config=bare)) == fingerprint(whole)
    with pytest.raises(PipelineError, match="lacks some of the model's networks, and so does the conf"):
        load_pipeline(part, device="cpu", config=bare)


def test_a_hole_in_the_weights_is_seen(file: Path, tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(file)
    del tensors["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(PipelineError, match="does not fit the configuration"):
        load_pipeline(tmp_path / "part.safetensors", device="cpu", config=tiny_pipeline_folder)


def test_a_configuration_of_another_architecture_is_refused(
    file: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    tiny_pipeline.save_pretrained(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 32'))
    with pytest.raises(PipelineError, match="does not fit the configuration"):
        load_pipeline(file, device="cpu", config=tmp_path)
