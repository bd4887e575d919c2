"""What `tune` saved and something damaged: an error in a line, and never the pictures of other weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffalign.diffusion import Sampler
from diffalign.files import DENOISER, LORA, ArtifactError
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.run.weights import TunedWeights
from tests.families import BY_NAME

Tensors = dict[str, torch.Tensor]
DAMAGES: dict[str, Callable[[Tensors, str], Tensors]] = {
    "nothing": lambda tensors, name: {},
    "one lost": lambda tensors, name: {key: value for key, value in tensors.items() if key != name},
    "one more": lambda tensors, name: {**tensors, "more": torch.ones(2)},
    "shape": lambda tensors, name: {**tensors, name: torch.ones(3, 3)},
    "scalar": lambda tensors, name: {**tensors, name: torch.ones(())},
    "integers": lambda tensors, name: {**tensors, name: tensors[name].int()},
    "complex": lambda tensors, name: {**tensors, name: tensors[name] * 1j},
    "no numbers": lambda tensors, name: {**tensors, name: tensors[name] * torch.nan},
    "another network's": lambda tensors, name: {f"x.{key}": value for key, value in tensors.items()},
}


def _tuned(family: str, folder: Path, rank: int) -> tuple[Any, Path]:
    """A pipeline of `family`, and the file of the weights that were saved in `folder`."""
    make, call = BY_NAME[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = make()
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=2, **call), rank=rank)
    policy.save(folder / (LORA if rank else DENOISER))
    policy.unload()
    (file,) = folder.glob("*/*.safetensors")
    return pipeline, file


@pytest.mark.parametrize(
    ("family", "rank"), [("stable_diffusion", 2), ("stable_diffusion", 0), ("pixart", 2)]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused_in_a_line(family: str, rank: int, damage: str, tmp_path: Path) -> None:
    pipeline, file = _tuned(family, tmp_path, rank)
    tensors = load_file(file)
    save_file(DAMAGES[damage](tensors, next(iter(tensors))), file)
    with pytest.raises(ArtifactError, match=r"cannot (read|use) the weights in .+; .+") as raised:
        TunedWeights(pipeline, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("family", "name"), [("pixart", "adapter_config.json"), ("stable_diffusion", "config.json")]
)
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "("},
        {"megatron_config": {}, "megatron_core": "x"},
        {"norm_num_groups": 0},
        [],
    ],
)
def test_settings_beside_the_weights_are_not_read(
    family: str, name: str, settings: Any, tmp_path: Path
) -> None:
    """Of an adapter they can import modules and ask for any memory; its tensors say all."""
    pipeline, file = _tuned(family, tmp_path, rank=2 if family == "pixart" else 0)
    path = file.with_name(name)
    content = settings and {**json.loads(path.read_text("utf-8")), **settings}
    path.write_text(json.dumps(content), "utf-8")
    held = list(TunedWeights(pipeline, tmp_path).tuned.state_dict().values())
    for tensor in load_file(file).values():
        assert any(torch.equal(tensor, each) for each in held)
