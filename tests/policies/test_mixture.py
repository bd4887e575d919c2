"""The mixture: its samples, its file, and what its weights learn; its density is in tests/parity."""

from pathlib import Path

import pytest
import torch

from diffalign.diffusion import seeded_noise
from diffalign.policies import MixturePolicy, NoiseDistribution
from diffalign.policies.natural import NaturalGradient

LATENT = (2, 6, 5)


def grown(basis: str = "identity", components: int = 4) -> MixturePolicy:
    policy = MixturePolicy(LATENT, components, 0.8, basis)
    policy.grow(seeded_noise(LATENT, 0, "test", range(components)))
    return policy


def weighted(policy: MixturePolicy, *weights: float) -> NoiseDistribution:
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(weights).log())
        return policy()


@pytest.mark.parametrize("basis", ["identity", "dct3"])
def test_it_starts_as_standard_noise(basis: str) -> None:
    distribution = MixturePolicy(LATENT, 4, 0.8, basis)()
    epsilon = seeded_noise(LATENT, 0, "test", range(3))
    torch.testing.assert_close(distribution.transform(epsilon), epsilon, atol=1e-6, rtol=0)


def test_samples_correlate_with_their_centre_and_are_typical() -> None:
    policy = grown(components=2)
    x_T = weighted(policy, 1.0, 1e-9).sample(2000, seed=1).flatten(1)
    centre = policy.centres[0].flatten()
    torch.testing.assert_close(x_T.mean(0), 0.8 * centre, atol=0.08, rtol=0)
    torch.testing.assert_close(x_T.std(0), torch.full_like(centre, 0.6), atol=0.06, rtol=0)


def test_a_basis_leaves_the_rest_of_the_noise_free() -> None:
    policy = grown("dct2", components=2)
    epsilon = seeded_noise(LATENT, 3, "test", range(50))
    moved = weighted(policy, 0.5, 0.5).transform(epsilon, torch.arange(50) % 2) - epsilon
    from diffalign.policies.basis import Basis

    basis = Basis("dct2", LATENT)
    torch.testing.assert_close(basis.expand(basis.project(moved)), moved, atol=1e-5, rtol=0)


def test_any_run_of_samples_has_each_component_by_its_weight() -> None:
    distribution = weighted(grown(), 0.1, 0.2, 0.3, 0.4)
    for start in (0, 7, 1000):
        chosen = distribution.components(0, "sample", range(start, start + 50))
        assert chosen is not None
        share = chosen.bincount(minlength=4) / 50
        torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.05, rtol=0)
    torch.testing.assert_close(distribution.sample(1, 5, start=9)[0], distribution.sample(12, 5)[9])
    firsts = {int(distribution.components(seed, "sample", [0])) for seed in range(20)}  # type: ignore[arg-type]
    assert len(firsts) > 1  # other seeds begin elsewhere


def test_the_file_keeps_samples_bit_for_bit(tmp_path: Path) -> None:
    distribution = weighted(grown(), 0.1, 0.2, 0.3, 0.4)
    distribution.save(tmp_path / "noise.safetensors")
    loaded = NoiseDistribution.load(tmp_path / "noise.safetensors")
    assert torch.equal(loaded.sample(8, 2), distribution.sample(8, 2))


def test_the_natural_gradient_moves_a_weight_by_its_mean_advantage() -> None:
    policy = grown(components=2)
    optimiser = NaturalGradient(policy, lr=0.5)
    own = torch.arange(8) % 2
    x_T = policy().transform(seeded_noise(LATENT, 4, "test", range(8)), own)
    advantage = torch.tensor([3.0, -1.0])[own][:, None] - 1  # components have equal shares
    log_prob = policy().log_prob(x_T)
    (-((log_prob - log_prob.detach()).exp() * advantage).mean()).backward()
    optimiser.step()
    assert (policy.logits[0] - policy.logits[1]).item() == pytest.approx(0.5 * 4.0, abs=1e-3)


def test_it_grows_from_as_many_samples_as_it_has_components() -> None:
    with pytest.raises(ValueError, match="grows from"):
        MixturePolicy(LATENT, 4, 0.8).grow(seeded_noise(LATENT, 0, "test", range(3)))
