"""The noise policy: its samples, its file, and what it refuses; its density is in tests/parity."""

import math
from pathlib import Path

import pytest
import torch

from diffalign.diffusion import seeded_noise
from diffalign.files import ArtifactError, save_tensors
from diffalign.policies import NoiseDistribution, NoisePolicy
from diffalign.policies.basis import Basis, dct_matrix
from diffalign.policies.noise import FORMAT
from diffalign.settings.fields import ConfigError

LATENT = (2, 6, 5)


def random_distribution(basis: str) -> NoiseDistribution:
    shape = Basis(basis, LATENT).shape
    generator = torch.Generator().manual_seed(0)
    mean = 0.3 * torch.randn(shape, generator=generator)
    return NoiseDistribution(
        mean, 0.5 + torch.rand(shape, generator=generator), LATENT, basis, {"prompt": "a"}
    )


def test_dct_is_orthonormal_and_starts_with_the_mean() -> None:
    matrix = dct_matrix(6, 6)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix[0], torch.full((6,), 6**-0.5))


@pytest.mark.parametrize("weights", [[0.5, 0.6], [-0.5, 1.5], [math.nan, 1.0], [math.inf, 1.0], [[0.5, 0.5]]])
def test_weights_are_probabilities(weights: list[float]) -> None:
    shape = (2, *LATENT) if isinstance(weights[0], float) else (1, 2, *LATENT)
    with pytest.raises(ValueError, match="probabilities"):
        NoiseDistribution(torch.zeros(shape), torch.ones(shape), LATENT, weights=torch.tensor(weights))


def test_a_mixture_is_drawn_from_as_many_components_as_its_diversity_says() -> None:
    weights = torch.tensor([0.05, 0.6, 0.3, 0.05])
    shape = (4, *LATENT)
    noise = NoiseDistribution(torch.zeros(shape), torch.ones(shape), LATENT, weights=weights)
    for diversity in (0.25, 0.5, 0.9):
        found = noise.with_diversity(diversity)
        assert found.effective_components() == pytest.approx(4**diversity, rel=1e-4)
        assert found.weights is not None and found.weights.argsort(descending=True)[:2].tolist() == [1, 2]
        assert found.mean is noise.mean
    best, all_alike = noise.with_diversity(0).weights, noise.with_diversity(1).weights
    torch.testing.assert_close(best, torch.tensor([0.0, 1, 0, 0]))
    torch.testing.assert_close(all_alike, torch.full((4,), 0.25))


@pytest.mark.parametrize("weights", [[1.0, 0.0, 0.0], [1e-30, 1.0, 0.0]])
def test_diversity_of_a_mixture_that_ended_on_one_component(weights: list[float]) -> None:
    shape = (3, *LATENT)
    noise = NoiseDistribution(torch.zeros(shape), torch.ones(shape), LATENT, weights=torch.tensor(weights))
    assert noise.with_diversity(0.5).effective_components() == pytest.approx(3**0.5, rel=1e-3)


def test_diversity_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="one Gaussian has no components"):
        NoiseDistribution.standard(LATENT).with_diversity(0.5)
    shape = (2, *LATENT)
    noise = NoiseDistribution(torch.zeros(shape), torch.ones(shape), LATENT, weights=torch.tensor([0.5, 0.5]))
    for diversity in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            noise.with_diversity(diversity)


@pytest.mark.parametrize("basis", ["identity", "dct2"])
def test_moments_of_samples(basis: str) -> None:
    distribution = random_distribution(basis)
    z = Basis(basis, LATENT).project(distribution.sample(4000, seed=3))
    torch.testing.assert_close(z.mean(0), distribution.mean, atol=0.12, rtol=0)
    torch.testing.assert_close(z.std(0), distribution.std, atol=0.1, rtol=0)


def test_the_preserving_policy_keeps_second_moments() -> None:
    policy = NoisePolicy(LATENT, "dct2", "preserving")
    with torch.no_grad():
        policy.mean.uniform_(-0.9, 0.9)
    distribution = policy()
    torch.testing.assert_close(distribution.mean**2 + distribution.std**2, torch.ones(2, 2, 2))


@pytest.mark.parametrize("std", ["learned", "preserving"])
@pytest.mark.parametrize("basis", ["identity", "dct3"])
def test_every_policy_starts_as_standard_noise_with_ratio_one(basis: str, std: str) -> None:
    distribution = NoisePolicy(LATENT, basis, std)()
    epsilon = seeded_noise(LATENT, 0, "test", range(3))
    torch.testing.assert_close(distribution.transform(epsilon), epsilon, atol=1e-6, rtol=0)
    standard = NoiseDistribution.standard(LATENT).log_prob(epsilon)
    torch.testing.assert_close(distribution.log_prob(epsilon), standard, atol=1e-5, rtol=0)


def test_no_samples_are_none() -> None:
    with pytest.raises(ConfigError, match="n must be at least 1, not 0"):
        NoiseDistribution.standard((4, 2, 2)).sample(0, seed=0)


def test_samples_do_not_depend_on_the_batch() -> None:
    distribution = random_distribution("identity")
    whole = distribution.sample(6, seed=9)
    parts = torch.cat([distribution.sample(4, seed=9), distribution.sample(2, seed=9, start=4)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, distribution.sample(6, seed=10))
    assert not torch.equal(whole, distribution.sample(6, seed=9, stream="train"))


@pytest.mark.parametrize("basis", ["identity", "dct2"])
def test_a_file_gives_the_same_samples(tmp_path: Path, basis: str) -> None:
    distribution = random_distribution(basis)
    distribution.save(tmp_path / "noise.safetensors")
    loaded = NoiseDistribution.load(tmp_path)
    assert torch.equal(loaded.sample(3, seed=1), distribution.sample(3, seed=1))
    assert loaded.metadata == {"prompt": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["noise.safetensors"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    with pytest.raises(ArtifactError, match="there is no"):
        NoiseDistribution.load(path)
    random_distribution("identity").save(path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x80\x04\x95pickled", whole[:8] + b"{" * 40):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match="corrupt"):
            NoiseDistribution.load(path)
    save_tensors(path, {"mean": torch.zeros(2)}, {}, "something else")
    with pytest.raises(ArtifactError, match="of the format 'something else'"):
        NoiseDistribution.load(path)
    save_tensors(
        path,
        {"mean": torch.full(LATENT, torch.nan), "std": torch.ones(LATENT)},
        {"basis": "identity", "latent": "2,6,5"},
        FORMAT,
    )
    with pytest.raises(ArtifactError, match="no numbers"):
        NoiseDistribution.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    random_distribution("identity").save(path)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1  # of a number, which stays a number
    path.write_bytes(whole)
    with pytest.raises(ArtifactError, match="corrupt"):
        NoiseDistribution.load(path)


def test_another_model_is_refused() -> None:
    learned = NoiseDistribution(
        torch.zeros(LATENT), torch.ones(LATENT), LATENT, metadata={"model": "x", "model_fingerprint": "abc"}
    )
    learned.check_model("abc", LATENT)
    with pytest.raises(ArtifactError, match="fingerprint is abc"):
        learned.check_model("def", LATENT)
    with pytest.raises(ArtifactError, match="shape"):
        learned.check_model("abc", (4, 8, 8))


def test_unknown_bases_and_modes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown basis 'wavelet'"):
        Basis("wavelet", LATENT)
    with pytest.raises(ValueError, match="preserving"):
        NoisePolicy(LATENT, std="fixed")
    with pytest.raises(ValueError, match="must both have shape"):
        NoiseDistribution(torch.zeros(3), torch.ones(3), LATENT)
