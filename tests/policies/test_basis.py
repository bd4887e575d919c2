"""Modes of latents over height and width, packed ones too."""

from pathlib import Path

import pytest
import torch

from diffalign.diffusion.packing import on_grid, packed
from diffalign.policies.basis import Basis, basis_on
from diffalign.policies.noise import NoiseDistribution

GRID = (4, 6)


def test_packed_latents_are_laid_on_their_grid_and_back() -> None:
    x = torch.arange(2 * 48 * 3.0).view(2, 48, 3)
    frames = on_grid(x, GRID)
    assert frames.shape == (2, 2, 3, 4, 6)
    assert torch.equal(frames[0, 1, 2], x[0, 24:, 2].view(4, 6))  # row by row, frame by frame
    assert torch.equal(packed(frames, GRID), x)
    assert on_grid(x, None) is x and packed(x, None) is x
    with pytest.raises(ValueError, match="no grid of 4×6"):
        on_grid(torch.zeros(1, 25, 3), GRID)


def test_modes_of_packed_latents_are_those_of_their_frames() -> None:
    name = basis_on(GRID, "dct2")
    assert name == "dct2@4×6" and basis_on(None, "dct2") == "dct2"
    assert basis_on(GRID, "identity") == "identity"
    own, plain = Basis(name, (48, 3)), Basis("dct2", (2, 3, 4, 6))
    assert own.shape == plain.shape == (2, 3, 2, 2)
    x = torch.randn(5, 48, 3, generator=torch.Generator().manual_seed(0))
    z = own.project(x)
    assert torch.equal(z, plain.project(on_grid(x, GRID)))
    torch.testing.assert_close(own.project(own.expand(z)), z)
    assert own.expand(z).shape == x.shape


def test_learned_noise_of_packed_latents_is_saved_with_its_grid(tmp_path: Path) -> None:
    basis = Basis("dct1@4×6", (24, 3))
    noise = NoiseDistribution(torch.ones(basis.shape), torch.ones(basis.shape), (24, 3), "dct1@4×6")
    noise.save(tmp_path / "noise.safetensors")
    again = NoiseDistribution.load(tmp_path / "noise.safetensors")
    assert torch.equal(again.sample(2, 0), noise.sample(2, 0)) and again.sample(2, 0).shape == (2, 24, 3)


@pytest.mark.parametrize("name", ["dct0", "dct3@", "dct3@4", "dct3@0×4", "haar", "dct3@4x6"])
def test_an_unknown_basis_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown basis"):
        Basis(name, (24, 3))
