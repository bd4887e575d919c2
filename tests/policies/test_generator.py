"""The file of a generator of any kind."""

from pathlib import Path

import pytest
import torch

from diffalign import NoiseDistribution, NoiseGenerator, load_pipeline
from diffalign.diffusion import fingerprint
from diffalign.diffusion.probe import prompt_states
from diffalign.files import ArtifactError, save_tensors
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.generator import FORMAT


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no"):
        NoiseGenerator.load(tmp_path)
    file = tmp_path / "generator.safetensors"
    NoiseDistribution.standard((4, 8, 8)).save(file)
    with pytest.raises(ArtifactError, match=r"not 'diffalign\.generator/3'"):
        NoiseGenerator.load(file)
    GaussianGenerator(GaussianShape((4, 8, 8), 16)).save(file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="corrupt"):
        NoiseGenerator.load(file)
    save_tensors(file, {"x": torch.zeros(1)}, {"kind": "gaussian", "shape": "{}"}, FORMAT)
    with pytest.raises(ArtifactError, match="no noise generator that can be read"):
        NoiseGenerator.load(file)


def test_it_is_of_one_model(tiny_pipeline_folder: Path, other_pipeline_folder: Path, tmp_path: Path) -> None:
    own, other = (
        load_pipeline(folder, device="cpu") for folder in (tiny_pipeline_folder, other_pipeline_folder)
    )
    metadata = {"model": str(tiny_pipeline_folder), "model_fingerprint": fingerprint(own)}
    GaussianGenerator(GaussianShape((4, 8, 8), 16), None, metadata).save(tmp_path / "generator.safetensors")
    loaded = NoiseGenerator.load(tmp_path, own)
    assert torch.equal(loaded.states("a dog"), prompt_states(own, "a dog"))
    assert torch.equal(NoiseGenerator.load(tmp_path).states("a dog"), loaded.states("a dog"))
    with pytest.raises(ArtifactError, match="was learned for the model"):
        NoiseGenerator.load(tmp_path, other)
