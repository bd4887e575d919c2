"""The wheel holds the package whole, and nothing else; its version is the package's."""

import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from diffalign import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "recipes", "tests", "benchmarks", "docs")
FILES = ("pyproject.toml", "README.md", "LICENSE")
CACHES = ("__pycache__", "*.egg-info", ".*_cache", ".DS_Store")
INFO = f"diffalign-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it, of a copy: a build writes beside the sources."""
    folder = tmp_path_factory.mktemp("repository")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*CACHES))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    # what work leaves behind, and must not be shipped
    (folder / "src/diffalign/__pycache__").mkdir()
    for stray in ("__pycache__/find.cpython-311.pyc", "world/weights/unet/checkpoint.partial", "notes.txt~"):
        (folder / "src/diffalign" / stray).touch()
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in the wheel."""
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_the_package_and_its_metadata_alone(names: set[str]) -> None:
    package = ROOT / "src" / "diffalign"
    ignored = shutil.ignore_patterns(*CACHES)
    files = [file.relative_to(package.parent) for file in package.rglob("*") if file.is_file()]
    expected = {file.as_posix() for file in files if not ignored("", file.parts)}
    assert {name for name in names if not name.startswith(f"{INFO}/")} == expected


@pytest.mark.parametrize(
    "name",
    [
        "diffalign/py.typed",
        "diffalign/prompts/data/world/heldout.json",
        "diffalign/prompts/data/geneval.jsonl",
        "diffalign/world/assets/sprites.png",
        "diffalign/world/assets/OFL.txt",
        "diffalign/world/flow/README.md",
        "diffalign/world/flow/model_index.json",
        "diffalign/world/flow/scheduler/scheduler_config.json",
        "diffalign/world/flow/unet/diffusion_pytorch_model.safetensors",
        "diffalign/world/video/README.md",
        "diffalign/world/video/unet/diffusion_pytorch_model.safetensors",
        "diffalign/world/weights/README.md",
        "diffalign/world/weights/clip/model.safetensors",
        "diffalign/world/weights/unet/diffusion_pytorch_model.safetensors",
        f"{INFO}/licenses/LICENSE",
        f"{INFO}/licenses/src/diffalign/world/assets/OFL.txt",
    ],
)
def test_it_holds_data_and_licences(names: set[str], name: str) -> None:
    assert name in names


def test_its_metadata(wheel: Path) -> None:
    assert wheel.name == f"diffalign-{__version__}-py3-none-any.whl"
    with ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())
        commands = archive.read(f"{INFO}/entry_points.txt").decode()
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "diffalign = diffalign.cli:main" in commands


def test_its_size(wheel: Path) -> None:
    """Of it, 17.3 MB are the world's weights, 11.1 `world-flow`'s, 15.2 `world-video`'s, hardly packed."""
    assert 36e6 < wheel.stat().st_size < 48e6
