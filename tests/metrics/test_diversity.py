import math

import pytest
import torch

from diffalign.metrics import (
    distance_by_picture,
    diversity,
    embedder,
    inception_score,
    mean_measured,
    mean_pairwise_distance,
    vendi_score,
)


def test_equal_pictures_are_one_picture() -> None:
    embeddings = torch.tensor([[3.0, 4.0]]).expand(5, 2) * torch.tensor([[1.0], [2], [3], [4], [5]])
    assert mean_pairwise_distance(embeddings) == pytest.approx(0, abs=1e-12)
    assert vendi_score(embeddings) == pytest.approx(1)


def test_orthogonal_pictures_all_count() -> None:
    assert mean_pairwise_distance(torch.eye(6)) == pytest.approx(1)
    assert vendi_score(torch.eye(6)) == pytest.approx(6)


def test_a_picture_alone_has_no_diversity() -> None:
    assert mean_pairwise_distance(torch.ones(1, 3)) is vendi_score(torch.ones(1, 3)) is None
    distances = [mean_pairwise_distance(embeddings) for embeddings in (torch.ones(1, 3), torch.eye(3))]
    assert mean_measured(distances) == pytest.approx(1)  # of the prompt with several
    assert mean_measured([None]) is mean_measured([]) is None


def test_values_worked_by_hand() -> None:
    # two at 60°: K/n has the eigenvalues (1 ± cos)/2 = 3/4, 1/4
    embeddings = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    assert mean_pairwise_distance(embeddings) == pytest.approx(0.5)
    assert vendi_score(embeddings) == pytest.approx(4 / 3**0.75)
    # three, two of them opposite: pairs at 2, 1, 1; eigenvalues 2/3, 1/3, 0
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert mean_pairwise_distance(embeddings) == pytest.approx(4 / 3)
    assert vendi_score(embeddings) == pytest.approx(3 / 2 ** (2 / 3))


def test_vendi_is_the_entropy_of_the_kernels_eigenvalues() -> None:
    embeddings = torch.nn.functional.normalize(
        torch.randn(20, 7, generator=torch.Generator().manual_seed(0)), dim=1
    )
    eigenvalues = torch.linalg.eigvalsh((embeddings @ embeddings.mT).double() / 20).clamp_min(0)
    expected = torch.special.entr(eigenvalues).sum().exp().item()
    assert vendi_score(embeddings) == pytest.approx(expected, rel=1e-6)


def test_blank_embeddings_are_alike_and_unlike_others() -> None:
    assert vendi_score(torch.zeros(4, 3)) == pytest.approx(1)
    assert mean_pairwise_distance(torch.tensor([[0.0, 0.0], [0.0, 1.0]])) == pytest.approx(1)


def test_what_a_picture_contributes_to_the_distance_is_the_jackknifes() -> None:
    embeddings = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    whole, contributed = mean_pairwise_distance(embeddings), distance_by_picture(embeddings)
    for i, value in enumerate(contributed.tolist()):
        without = mean_pairwise_distance(torch.cat([embeddings[:i], embeddings[i + 1 :]]))
        assert value == pytest.approx(6 * whole - 5 * without)
    assert contributed.mean().item() == pytest.approx(whole)
    with pytest.raises(ValueError, match="takes 3 pictures, not 2"):
        distance_by_picture(embeddings[:2])


def test_the_distance_varies_as_its_interval_says() -> None:
    """Not half as much, as each picture's mean distance to the others would say."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(30, 2, generator=generator) + 1 for _ in range(400)]
    spread = torch.tensor([mean_pairwise_distance(embeddings) for embeddings in drawn]).std().item()
    errors = [distance_by_picture(embeddings).std() / 30**0.5 for embeddings in drawn]
    assert torch.stack(errors).mean().item() == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("measure", [mean_pairwise_distance, vendi_score, distance_by_picture])
def test_bad_shapes(measure) -> None:
    for shape in ((0, 3), (3,)):
        with pytest.raises(ValueError, match=r"\(n, D\)"):
            measure(torch.ones(shape))


def test_other_models_are_compared_by_pixels() -> None:
    embed = embedder("owner/model")
    assert embed.on == "pixels"
    images = torch.rand(5, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    embeddings = embed(images)
    assert embeddings.shape == (5, 3 * 16 * 16)
    torch.testing.assert_close(embeddings.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    # brightness is no difference, layout is
    brighter = torch.cat([images[:1], images[:1] * 0.5 + 0.5, images[:1].flip(-1)])
    assert mean_pairwise_distance(embed(brighter[:2])) == pytest.approx(0, abs=1e-6)
    assert mean_pairwise_distance(embed(brighter[::2])) > 0.5


def test_video_is_compared_frame_by_frame() -> None:
    video = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embeddings = diversity.embed_pixels(video)
    assert embeddings.shape == (2, 4 * 768)
    assert not torch.allclose(embeddings, diversity.embed_pixels(video.flip(1)))


def test_the_world_is_compared_by_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffalign.rewards import world_clip

    class Fake:
        def embed_images(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    monkeypatch.setattr(world_clip, "WorldClip", Fake)
    embed = embedder("world")
    assert embed.on == "clip"
    torch.testing.assert_close(embed(torch.full((2, 3, 4, 4), 0.25)), torch.full((2, 3), 0.25))


def test_inception_score_by_hand() -> None:
    assert inception_score(torch.ones(4, 3)) == pytest.approx((1, 0))
    assert inception_score(100 * torch.eye(5)) == pytest.approx((5, 0))  # each picture a class of its own
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.4, 0.6])
    mean = (p + q) / 2
    expected = math.exp(float(((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()) / 2))
    assert inception_score(torch.stack([p.log(), q.log() + 3])) == pytest.approx((expected, 0))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    parts = inception_score(100 * torch.eye(6), splits=3)  # two pictures, and classes, a part
    assert parts == pytest.approx((2, 0)) and torch.equal(torch.random.get_rng_state(), before)
    uneven = inception_score(100 * torch.eye(11), splits=4)  # parts of 3, 3, 3 and 2 pictures
    assert uneven == pytest.approx((11 / 4, 0.5))
    with pytest.raises(ValueError, match="at least 8"):
        inception_score(torch.eye(7), splits=4)
    with pytest.raises(ValueError, match="shape"):
        inception_score(torch.ones(4))
