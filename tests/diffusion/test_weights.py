"""What a model's weights take, without loading it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign import load_pipeline
from diffalign.diffusion import PipelineError
from diffalign.diffusion.weights import count_weights


@pytest.mark.parametrize("model", ["world", "world-flow"])
def test_the_count_is_that_of_the_loaded_model(model: str) -> None:
    pipeline: Any = load_pipeline(model, device="cpu")
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    assert count_weights(model) == {
        name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()
    }


def test_of_a_folder_only_its_parts_and_one_variant_count(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    pipeline.save_pretrained(tmp_path)
    counted = count_weights(str(tmp_path))
    pipeline.save_pretrained(tmp_path, variant="fp16")
    pipeline.unet.save_pretrained(tmp_path / "another")
    assert count_weights(str(tmp_path)) == counted and "another" not in counted


def test_a_file_that_is_cut_off_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"cut off")
    with pytest.raises(PipelineError, match="is no safetensors file, or is cut off"):
        count_weights(str(tmp_path / "a.safetensors"))


def test_of_models_that_are_not_here() -> None:
    assert count_weights("sd15") == {} == count_weights("nowhere.ckpt")
    with pytest.raises(PipelineError, match="did you mean 'world'"):
        count_weights("wrld")
