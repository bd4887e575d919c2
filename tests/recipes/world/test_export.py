"""The shipped weights as finished stages, and the card beside them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffalign.world import FLOW_FOLDER, WORLD_FOLDER
from recipes.world.export import export_flow, unpack, write_card
from recipes.world.models import build_unet


def test_unpacked_weights_are_those_that_export_read(tmp_path: Path) -> None:
    unpack(WORLD_FOLDER, tmp_path)
    unpacked = load_file(tmp_path / "unet" / "ema.safetensors")
    shipped = load_file(WORLD_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(unpacked) == set(build_unet().state_dict())
    assert all(torch.equal(unpacked[name], shipped[name]) for name in shipped)
    with pytest.raises(SystemExit, match="empty folder"):
        unpack(WORLD_FOLDER, tmp_path)


@pytest.mark.parametrize("folder", [WORLD_FOLDER, FLOW_FOLDER], ids=["world", "world-flow"])
def test_the_shipped_card_is_what_the_recipe_writes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((folder / "recipe.json").read_bytes())
    write_card(tmp_path, {})
    written = (tmp_path / "README.md").read_text().splitlines()
    shipped = (folder / "README.md").read_text().splitlines()
    assert [line for line in written if line not in shipped] == ["| not yet | |"]


def test_the_flow_is_exported_with_its_own_parts_alone(tmp_path: Path) -> None:
    stage, target = tmp_path / "flow", tmp_path / "exported"
    stage.mkdir()
    shipped = load_file(FLOW_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(shipped, stage / "ema.safetensors", {"step": "7"})
    (stage / "log.jsonl").write_text('{"step": 6, "seconds": 60.0, "loss": 0.2, "grad_norm": 1.0}\n')
    export_flow(tmp_path, target)
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(FLOW_FOLDER).as_posix() for path in FLOW_FOLDER.rglob("*") if path.is_file()
    }
    for name in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert (target / name).read_bytes() == (FLOW_FOLDER / name).read_bytes(), name
    exported = load_file(target / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(exported[name], shipped[name]) for name in shipped)
    assert "| flow | 7 | 1 | 0.2000 |" in (target / "README.md").read_text()
