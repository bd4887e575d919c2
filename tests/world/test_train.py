"""The recipe's loop on a tiny stage, and what its batches hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from diffalign.world import WORLD_FOLDER, train
from diffalign.world.data import contrast_batch, near_miss, scene_batch, spoil, truth
from diffalign.world.export import unpack
from diffalign.world.grammar import caption, parse
from diffalign.world.models import MAX_TOKENS, WORDS, build_tokenizer, build_unet
from diffalign.world.scenes import EVEN, FREQUENCIES, Scene, Thing, sample_scene
from diffalign.world.stages import Stage


class Line(Stage):
    """Fits a line; each batch depends on its number alone."""

    name = "line"
    steps = 400
    learning_rate = 0.05

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.from_numpy(self.batch_generator(step).normal(size=(16, 3)).astype(np.float32))
        noise = 0.01 * torch.randn(16)  # from the global generator, which the loop seeds
        return (self.model(x)[:, 0] - x.sum(1) + noise).square().mean(), {}

    def picture(self) -> torch.Tensor:
        return self.model.weight.detach().view(1, 1, 3).expand(3, 2, 3)


class Kill(BaseException):
    """Ends training from within."""


def test_training_reduces_the_loss_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    train.run_stage(Line(), tmp_path / "whole", threads=1)

    class Killed(Line):
        def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == 133:
                raise Kill
            return super().loss(step)

    with pytest.raises(Kill):
        train.run_stage(Killed(), tmp_path / "parts", threads=1)
    train.run_stage(Line(), tmp_path / "parts", threads=1)
    for name in ("checkpoint.safetensors", "ema.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    weight = load_file(tmp_path / "whole" / "checkpoint.safetensors")["model.weight"]
    torch.testing.assert_close(weight, torch.ones(1, 3), atol=0.15, rtol=0)
    assert (tmp_path / "whole" / "samples.png").exists()


def test_the_shipped_vocabulary_is_what_any_process_builds() -> None:
    shipped = CLIPTokenizer.from_pretrained(WORLD_FOLDER / "tokenizer")
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    assert shipped("a red car").input_ids == build_tokenizer()("a red car").input_ids


def test_every_word_is_one_token_and_the_longest_caption_fits() -> None:
    tokenizer = build_tokenizer()
    assert [word for word in WORDS if len(tokenizer.tokenize(word)) != 1] == []
    longest = "a purple flower on the left of a yellow rabbit on the street"
    assert len(tokenizer(longest).input_ids) <= MAX_TOKENS


@pytest.mark.parametrize("name", FREQUENCIES)
def test_captions_are_true_of_their_scenes(name: str) -> None:
    rng = np.random.default_rng(3)
    scenes, images, captions = scene_batch(rng, 200, FREQUENCIES[name])
    assert images.shape == (200, 3, 64, 64)
    for scene, text in zip(scenes, captions, strict=True):
        assert all(parse(text).check(scene)), (text, scene)


def test_captions_tell_a_scene_from_its_near_miss() -> None:
    def holds(described: Scene, shown: Scene) -> bool:
        return all(all(parse(caption(described, rng, EVEN)).check(shown)) for _ in range(16))

    rng = np.random.default_rng(4)
    for _ in range(200):
        scene = sample_scene(rng, EVEN)
        miss = near_miss(scene, rng)
        # "a dog" is true of a green dog too, but "a green dog" is not of a dog
        assert not (holds(scene, miss) and holds(miss, scene)), (scene, miss)


def test_no_caption_is_true_of_a_spoilt_scene() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        scene = sample_scene(rng, EVEN)
        spoilt = spoil(scene, rng)
        assert 1 < len(spoilt.things) <= 5
        # a second one of a kind is "two dogs", which is not what the scene's own captions say
        assert not all(parse(caption(scene, rng, EVEN)).check(spoilt)), (scene, spoilt)


def test_near_misses_are_of_every_kind() -> None:
    rng = np.random.default_rng(8)
    two = Scene((Thing("dog", "red", 0, 0), Thing("cat", "blue", 40, 0)), "grass")
    captions = ["a red dog on the right of a blue cat", "a blue dog and a red cat", "a red dog"]
    captions += ["a red dog and a blue cat on the moon"]
    misses = [near_miss(two, rng) for _ in range(200)]
    assert truth(misses, captions).any(0).all()
    three = [near_miss(Scene(two.things[:1] * 3, "grass"), rng) for _ in range(200)]
    assert truth(three, ["two red dogs on the grass", "four red dogs on the grass"]).any(0).all()
    assert not truth(misses + three, ["a red dog on the left of a blue cat on the grass"]).any()


def test_a_batch_holds_each_scene_with_its_near_misses() -> None:
    pictures, captions, scenes = contrast_batch(np.random.default_rng(7), 12, EVEN, misses=2)
    assert pictures.shape == (12, 3, 64, 64) and len(captions) == 12
    for first, *misses in (scenes[i : i + 3] for i in range(0, 12, 3)):
        assert all(miss != first for miss in misses)


def test_unpacked_weights_are_those_that_export_read(tmp_path: Path) -> None:
    unpack(WORLD_FOLDER, tmp_path)
    unpacked = load_file(tmp_path / "unet" / "ema.safetensors")
    shipped = load_file(WORLD_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(unpacked) == set(build_unet().state_dict())
    assert all(torch.equal(unpacked[name], shipped[name]) for name in shipped)
    with pytest.raises(SystemExit, match="empty folder"):
        unpack(WORLD_FOLDER, tmp_path)


def test_batches_are_seeded() -> None:
    first, second = (contrast_batch(np.random.default_rng(5), 8, EVEN) for _ in range(2))
    assert torch.equal(first[0], second[0]) and first[1] == second[1]
