"""The metrics that the papers report: inception scores, frame consistency, tests of pairs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from diffalign.metrics import frame_consistency, inception_score, paired_test
from diffalign.metrics.features import feature_reader
from diffalign.metrics.inception import InceptionV3, load_inception
from diffalign.rewards import RewardError


def test_a_test_of_pairs_by_hand() -> None:
    # of the 8 ways to sign 1, 2 and 3, two have a mean of at least 2 in size
    assert paired_test([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == pytest.approx(2 / 8)
    assert paired_test([1.0, 0.0], [0.0, 1.0]) == 1.0
    assert paired_test([4.0], [1.0]) == 1.0
    many = torch.arange(30.0) / 30 + 1
    assert paired_test(many, torch.zeros(30)) < 1e-3
    assert paired_test(many, torch.zeros(30), seed=1) == pytest.approx(
        paired_test(many, torch.zeros(30)), abs=1e-3
    )
    with pytest.raises(ValueError, match="same shape"):
        paired_test([1.0], [1.0, 2.0])


def test_frame_consistency_by_hand() -> None:
    def embed(frames: torch.Tensor) -> torch.Tensor:
        return frames.mean((2, 3))[:, :2]

    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    video = torch.zeros(2, 3, 3, 4, 4)
    video[0, :, :2] = directions[:, :, None, None]
    video[1, :, 0] = 1  # still
    torch.testing.assert_close(frame_consistency(video, embed), torch.tensor([(0.6 + 0.8) / 2, 1.0]))
    with pytest.raises(ValueError, match="F at least 2"):
        frame_consistency(video[:, :1], embed)


@pytest.fixture(scope="module")
def inception_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published layout, with the second head that training used."""
    folder = tmp_path_factory.mktemp("inception")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = InceptionV3().state_dict()
    save_file(weights | {"AuxLogits.fc.weight": torch.zeros(1000, 768)}, folder / "model.safetensors")
    return folder


def test_inception_is_the_published_network(inception_folder: Path) -> None:
    network = load_inception(inception_folder)
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568
    names = network.state_dict().keys()
    assert {
        "Conv2d_4a_3x3.conv.weight",
        "Mixed_5b.branch5x5_2.bn.running_var",
        "Mixed_6a.branch3x3.conv.weight",
        "Mixed_6e.branch7x7dbl_5.conv.weight",
        "Mixed_7a.branch7x7x3_4.conv.weight",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "fc.bias",
    } <= names
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    seen: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    logits = network(pictures)
    assert logits.shape == (2, 1000) and seen[1].shape == (2, 2048)
    resized = 2 * F.interpolate(pictures, (299, 299), mode="bilinear", antialias=True) - 1
    torch.testing.assert_close(seen[0], resized)
    p = logits.softmax(1)
    by_hand = (p * (p / p.mean(0)).log()).sum(1).mean().exp()
    assert inception_score(logits)[0] == pytest.approx(float(by_hand))


def test_other_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="cannot load Inception v3"):
        load_inception(tmp_path)
    save_file({"fc.bias": torch.zeros(10)}, tmp_path / "model.safetensors")
    with pytest.raises(RewardError, match="cannot load Inception v3"):
        load_inception(tmp_path)


def test_features_are_not_made_unit_vectors(tmp_path: Path) -> None:
    from tests.rewards.tiny import pictures, save_clip

    model = save_clip(tmp_path)
    features = feature_reader(f"clip@{tmp_path}")(pictures())
    assert features.shape == (3, model.config.projection_dim)
    assert (features.norm(dim=1) - 1).abs().min() > 0.1
    assert feature_reader("pixels")(pictures()).shape == (3, 768)
    world = feature_reader("world-clip")(pictures(3, 64))
    assert world.shape == (3, 128) and (world.norm(dim=1) - 1).abs().min() > 0.1
    with pytest.raises(ValueError, match="unknown features 'clap'"):
        feature_reader("clap")
