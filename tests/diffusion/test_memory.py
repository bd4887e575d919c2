"""Batches that do not fit are halved, and the results are those of small batches from the start."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.diffusion.memory import Fitting, Pile, joined
from diffalign.evaluation import evaluate, pooled
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.denoiser import DenoiserLearner
from diffalign.learners.find import FindLearner
from diffalign.loop import train
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import Rollout
from diffalign.settings.find import FindConfig
from diffalign.settings.search import SearchConfig
from diffalign.settings.tune import TuneConfig
from tests.toys import Toy

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Small:
    """A hook that makes a network run out of memory with more than `rows` samples, in the given pass."""

    def __init__(self, network: torch.nn.Module, rows: int, backward: bool = False) -> None:
        self.rows, self.seen = rows, list[int]()
        if backward:
            network.register_full_backward_hook(self.after)
        else:
            network.register_forward_pre_hook(self.before)

    def before(self, module: Any, args: tuple[Any, ...]) -> None:
        self.check(len(args[0]))

    def after(self, module: Any, gradients: Any, outputs: Any) -> None:
        self.check(len(outputs[0]))

    def check(self, rows: int) -> None:
        if rows > self.rows:
            raise torch.OutOfMemoryError(FULL)
        self.seen.append(rows)


def test_a_batch_that_does_not_fit_is_halved_once_and_for_all() -> None:
    tried: list[int] = []

    def make(batch: slice) -> list[int]:
        tried.append(batch.stop - batch.start)
        if tried[-1] > 3:
            raise torch.OutOfMemoryError(FULL)
        return list(range(10))[batch]

    fitting = Fitting(8)
    with pytest.warns(UserWarning, match=r"with 8 samples at a time; going on with 4") as warned:
        assert [i for made in fitting.batches(make, 10) for i in made] == list(range(10))
    assert len(warned) == 2 and fitting.size == 2
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        next(Fitting(1).batches(lambda batch: make(slice(0, 9)), 1))
    with pytest.raises(RuntimeError, match="another"):
        next(Fitting(4).batches(lambda batch: (_ for _ in ()).throw(RuntimeError("another fault")), 4))


@pytest.mark.filterwarnings("ignore:out of memory")
def test_pictures_are_those_of_smaller_batches(tiny_pipeline_folder: Path) -> None:
    def pictures(batch_size: int, room: int) -> torch.Tensor:
        pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
        Small(pipeline.unet, room)
        sampler = Sampler(pipeline, num_steps=2, guidance_scale=2.0, batch_size=batch_size)
        return sampler(seeded_noise(sampler.latent_shape, 0, "test", range(6)), ["a dog", "a cat"] * 3)

    torch.testing.assert_close(pictures(6, 4), pictures(1, 100), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_learning_goes_on_with_smaller_batches(tiny_pipeline_folder: Path, backward: bool) -> None:
    """Also if memory runs out after some of a step's gradients were added."""

    def learned(room: int) -> torch.Tensor:
        config = TuneConfig(rounds=2, samples=8, interval="full", branches=1, threshold=0.0, micro_batch=8)
        sampler = Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=3, batch_size=8)
        policy = DenoiserPolicy(sampler, rank=config.lora_rank)
        network: Any = policy.denoiser
        small = Small(network.conv_out if backward else network, room, backward)
        learner = DenoiserLearner(policy, ["a dog", "a cat"], config)
        list(train(learner, lambda images, prompts: images.flatten(1).mean(1)))
        assert small.seen and max(small.seen) <= room
        return torch.cat([parameter.detach().flatten() for parameter in learner.parameters])

    torch.testing.assert_close(learned(2), learned(100), atol=1e-4, rtol=0)


def test_videos_are_bytes_once_they_are_scored() -> None:
    def rollout(*shape: int) -> Rollout:
        return Rollout(
            torch.zeros(1, 2, 4), torch.zeros(2, 1), range(1), torch.rand(2, *shape), ("",) * 2, (0, 1)
        )

    assert rollout(4, 3, 8, 8).scored().images.dtype == torch.uint8
    assert rollout(3, 8, 8).scored().images.dtype == torch.float32


def test_many_videos_lie_in_a_file_that_is_gone_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("diffalign.diffusion.memory.IN_MEMORY", 1000)
    files = Path("/proc/self/fd")  # a file without a name is seen by whoever holds it alone

    def opened() -> int:
        return sum(str(tmp_path) in str(file.readlink()) for file in files.iterdir() if file.is_symlink())

    videos = [torch.randint(0, 256, (n, 2, 3, 8, 8), dtype=torch.uint8) for n in (1, 3, 1, 2)]
    assert torch.equal(joined(videos[:1]), videos[0])
    pile, written = Pile(), list[int]()
    for video in videos:
        pile.add(video.transpose(3, 4))
        written.append(sum(tensor.nbytes for tensor in pile._waiting))
    assert max(written) <= 1000
    whole = pile.joined()
    assert torch.equal(whole, torch.cat(videos).transpose(3, 4)) and not list(tmp_path.iterdir())
    if files.is_dir():
        assert opened() > 0
        del whole, pile
        assert opened() == 0


def test_rounds_and_evaluations_are_the_same_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of searches, whose videos stay in full precision."""

    def brightness(images: torch.Tensor, prompts: Any) -> torch.Tensor:
        return images.flatten(1).mean(1)

    def made() -> list[torch.Tensor]:
        toy = Toy((3, 8, 8), lambda x_T, prompt: x_T.sigmoid()[:, None].repeat(1, 2, 1, 1, 1), batch_size=3)
        search = BestOfN(toy, ["a dog"], SearchConfig(queries=10, keep=4))
        find = FindLearner(toy, ["a dog"], FindConfig(queries=20, batch=10))
        rounds = [round.images for learner in (search, find) for round in train(learner, brightness)]
        noise = NoiseDistribution.standard((3, 8, 8))
        samples = evaluate(toy, "a dog", noise, brightness, n=7, seed=0, batch_size=3)
        return [*rounds, search.best.images, samples.images, pooled([samples, samples]).images]

    before = made()
    monkeypatch.setattr("diffalign.diffusion.memory.IN_MEMORY", 1000)
    mapped, from_numpy = list[int](), torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: mapped.append(array.nbytes) or from_numpy(array))
    after = made()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    spilled = {one.nbytes for one in after if one.nbytes > 1000 and one is not after[-3]}  # the kept are few
    assert spilled and spilled <= set(mapped)
