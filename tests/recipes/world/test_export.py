"""The shipped weights as finished stages, and the card beside them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffalign.world import WORLD_FOLDER
from recipes.world.export import unpack, write_card
from recipes.world.models import build_unet


def test_unpacked_weights_are_those_that_export_read(tmp_path: Path) -> None:
    unpack(WORLD_FOLDER, tmp_path)
    unpacked = load_file(tmp_path / "unet" / "ema.safetensors")
    shipped = load_file(WORLD_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(unpacked) == set(build_unet().state_dict())
    assert all(torch.equal(unpacked[name], shipped[name]) for name in shipped)
    with pytest.raises(SystemExit, match="empty folder"):
        unpack(WORLD_FOLDER, tmp_path)


def test_the_shipped_card_is_what_the_recipe_writes(tmp_path: Path) -> None:
    recipe = WORLD_FOLDER / "recipe.json"
    (tmp_path / "recipe.json").write_bytes(recipe.read_bytes())
    write_card(tmp_path, {})
    written = (tmp_path / "README.md").read_text().splitlines()
    shipped = (WORLD_FOLDER / "README.md").read_text().splitlines()
    assert [line for line in written if line not in shipped] == ["| not yet | |"]
