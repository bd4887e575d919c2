"""The shipped weights as finished stages, and the card beside them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffalign.world import FLOW_FOLDER, VIDEO_FOLDER, WORLD_FOLDER
from recipes.world.export import export_flow, export_video, unpack, write_card
from recipes.world.models import build_unet


def test_unpacked_weights_are_those_that_export_read(tmp_path: Path) -> None:
    unpack(WORLD_FOLDER, tmp_path)
    unpacked = load_file(tmp_path / "unet" / "ema.safetensors")
    shipped = load_file(WORLD_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(unpacked) == set(build_unet().state_dict())
    assert all(torch.equal(unpacked[name], shipped[name]) for name in shipped)
    with pytest.raises(SystemExit, match="empty folder"):
        unpack(WORLD_FOLDER, tmp_path)


@pytest.mark.parametrize(
    "folder", [WORLD_FOLDER, FLOW_FOLDER, VIDEO_FOLDER], ids=["world", "world-flow", "world-video"]
)
def test_the_shipped_card_is_what_the_recipe_writes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((folder / "recipe.json").read_bytes())
    write_card(tmp_path, {})
    written = (tmp_path / "README.md").read_text().splitlines()
    shipped = (folder / "README.md").read_text().splitlines()
    assert [line for line in written if line not in shipped] == ["| not yet | |"]


@pytest.mark.parametrize(
    ("stage", "shipped", "export", "parts"),
    [
        ("flow", FLOW_FOLDER, export_flow, {"": "unet/diffusion_pytorch_model.safetensors"}),
        (
            "video",
            VIDEO_FOLDER,
            export_video,
            {
                "unet.": "unet/diffusion_pytorch_model.safetensors",
                "text_encoder.": "text_encoder/model.safetensors",
            },
        ),
    ],
    ids=["flow", "video"],
)
def test_a_sibling_is_exported_with_its_own_parts_alone(
    stage: str, shipped: Path, export: Callable[[Path, Path], None], parts: dict[str, str], tmp_path: Path
) -> None:
    folder, target = tmp_path / stage, tmp_path / "exported"
    folder.mkdir()
    weights = {
        f"{prefix}{name}": tensor
        for prefix, file in parts.items()
        for name, tensor in load_file(shipped / file).items()
    }
    save_file(weights, folder / "ema.safetensors", {"step": "7"})
    (folder / "log.jsonl").write_text('{"step": 6, "seconds": 60.0, "loss": 0.2, "grad_norm": 1.0}\n')
    export(tmp_path, target)
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    for name in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert (target / name).read_bytes() == (shipped / name).read_bytes(), name
    for file in parts.values():
        exported, original = load_file(target / file), load_file(shipped / file)
        assert exported.keys() == original.keys()
        assert all(torch.equal(exported[name], original[name]) for name in original)
    assert f"| {stage} | 7 | 1 | 0.2000 |" in (target / "README.md").read_text()
