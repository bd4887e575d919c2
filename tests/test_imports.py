"""The architecture, enforced: who may import whom, and what nobody may import.

A check reads source with `ast`, so that lazy imports inside functions and imports for annotations
count as well: they are knowledge of another room all the same. Each check is also run on a tiny
package that breaks its rule.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffalign"

# Along the data flow: a room imports itself and the rooms before it. A new room is put in its place here.
ROOMS = (
    "settings",
    "files",
    "world",
    "prompts",
    "diffusion",
    "policies",
    "strategies",
    "rollout",
    "rewards",
    "advantages",
    "objectives",
    "learners",
    "loop",
    "methods",
    "metrics",
    "evaluation",
    "artifacts",
    "report",
    "study",
    "run",
    "cli",
)
# The ground: they know no room of the package, the other one neither.
GROUND = ("settings", "files")
# Pure functions of tensors: they know no other room, so an objective knows nothing of rewards.
PURE = ("advantages", "objectives")
# `diffusion` alone knows diffusers.
KNOW_DIFFUSERS = ("diffusion/", "diffusion.py")
# Folders beside `src`: they are not installed, so that the package cannot use them.
NOT_INSTALLED = ("recipes", "benchmarks", "examples", "tests")
VAGUE = ("utils", "util", "helpers", "helper", "common", "misc")
UNPICKLERS = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve")


class Import(NamedTuple):
    """That `file`, relative to the package, names module or attribute `target` in an import."""

    file: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.target}"


def sources(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(package.rglob("*.py")):
        yield file.relative_to(package), ast.parse(file.read_text("utf-8"), str(file))


def imports(package: Path) -> Iterator[Import]:
    """Every import of the package, relative ones resolved, `import_module("name")` included."""
    for file, tree in sources(package):
        inside = (package.name, *file.with_suffix("").parts)[:-1]
        for node in ast.walk(tree):
            match node:
                case ast.Import():
                    yield from (Import(file, node.lineno, alias.name) for alias in node.names)
                case ast.ImportFrom():
                    above = inside[: len(inside) + 1 - node.level] if node.level else ()
                    module = ".".join((*above, *filter(None, [node.module])))
                    yield from (Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names)
                case ast.Call(
                    func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                    args=[ast.Constant(value=str(target)), *_],
                ):
                    yield Import(file, node.lineno, target)


def room_of(file: Path) -> str:
    """The room of a file relative to the package; empty for the package's own `__init__.py`."""
    room = file.parts[0].removesuffix(".py")
    return "" if room == "__init__" else "cli" if room == "__main__" else room


def foreign(package: Path, *libraries: str) -> list[Import]:
    return [found for found in imports(package) if found.target.split(".")[0] in libraries]


def misplaced_imports(package: Path) -> list[str]:
    """Imports against the direction of `ROOMS`, and rooms that have no place in it."""
    faults = []
    for file, _ in sources(package):
        if room_of(file) not in ("", *ROOMS):
            faults.append(f"{file}: unknown room {room_of(file)!r}: give it its place in ROOMS of {__file__}")
    for found in imports(package):
        top, _, rest = found.target.partition(".")
        here, there = room_of(found.file), rest.partition(".")[0]
        if top != package.name or here not in ROOMS or there in (here, "__version__"):
            continue
        if there not in ROOMS:
            faults.append(f"{found}: a room imports rooms, not the front door, which imports them all")
        elif here in GROUND:
            faults.append(f"{found}: {here} is the ground and knows no other room")
        elif here in PURE:
            faults.append(f"{found}: {here} holds pure functions and knows no other room")
        elif ROOMS.index(there) > ROOMS.index(here):
            faults.append(f"{found}: {there} comes after {here}")
    return faults


def import_cycles(package: Path) -> list[str]:
    """Modules that import each other, in a ring. Of `cli`, whose commands load rooms when they run, imports
    inside functions do not count."""

    def module(file: Path) -> str:
        return ".".join((package.name, *file.with_suffix("").parts)).removesuffix(".__init__")

    graph = {module(file): set[str]() for file, _ in sources(package)}
    late = {
        (file, inner.lineno)
        for file, tree in sources(package)
        if room_of(file) == "cli"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    for found in imports(package):
        here = module(found.file)
        target = found.target if found.target in graph else found.target.rpartition(".")[0]
        if target in graph and target != here and (found.file, found.line) not in late:
            graph[here].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" → ".join(error.args[1])]
    return []


def diffusers_outside_its_room(package: Path) -> list[str]:
    """Imports of diffusers outside `KNOW_DIFFUSERS`."""
    found = foreign(package, "diffusers")
    return [str(it) for it in found if not it.file.as_posix().startswith(KNOW_DIFFUSERS)]


def imports_of_what_is_not_installed(package: Path) -> list[str]:
    """Imports of `NOT_INSTALLED`, which work in the repository alone."""
    return [str(found) for found in foreign(package, *NOT_INSTALLED)]


def torchvision_imports(package: Path) -> list[str]:
    """Imports of torchvision, which a CPU build of torch cannot load."""
    return [str(found) for found in foreign(package, "torchvision")]


def vague_names(package: Path) -> list[str]:
    """Modules and folders named for nothing in particular."""
    files = [file.relative_to(package) for file in sorted(package.rglob("*.py"))]
    return [str(f) for f in files if any(part.strip("_") in VAGUE for part in f.with_suffix("").parts)]


def unsafe_deserialisation(package: Path) -> list[str]:
    """Whatever may run code out of a data file: pickle in its guises, `torch.load` ….

    The restricted loader of published checkpoints must say `weights_only=True`.
    """
    faults = [str(found) for found in foreign(package, *UNPICKLERS)]
    faults += [str(it) for it in imports(package) if it.target in ("torch.load", "torch.save")]
    for file, tree in sources(package):
        aliases = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.name == "torch"
        }
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr="load" | "save") if name in aliases:
                    faults.append(f"{file}:{node.lineno}: torch.{node.attr}")
                case ast.keyword(arg="allow_pickle", value=value):
                    if not (isinstance(value, ast.Constant) and value.value is False):
                        faults.append(f"{file}:{node.value.lineno}: allow_pickle")
                case ast.Call(func=ast.Name(id="load_state_dict_from_file"), keywords=given):
                    asked = {word.arg: word.value for word in given}.get("weights_only")
                    if not (isinstance(asked, ast.Constant) and asked.value is True):
                        faults.append(f"{file}:{node.lineno}: load_state_dict_from_file")
    return faults


CHECKS: dict[Callable[[Path], list[str]], dict[str, str]] = {
    # check: files that break its rule, each alone in a package called diffalign
    misplaced_imports: {
        "world/scenes.py": "from diffalign.rewards import clip",
        "policies/noise.py": "from ..loop import train",
        "policies/lazy.py": "def f():\n    import diffalign.cli",
        "rollout.py": "from . import methods",
        "prompts/typed.py": "if TYPE_CHECKING:\n    from diffalign.rollout import Rollout",
        "learners/named.py": 'import importlib\nimportlib.import_module("diffalign.report.html")',
        "objectives/ppo.py": "from diffalign.advantages import contrast",
        "advantages/value.py": "from diffalign.rewards import Reward",
        "cli/find.py": "from diffalign import find",
        "report/plots.py": "import diffalign",
        "run.py": "from diffalign.cli.progress import RunProgress",
        "files.py": "from diffalign.settings.fields import ConfigError",
        "settings/find.py": "from diffalign.files import NOISE",
        "backroom/secret.py": "",
    },
    import_cycles: {},  # which takes two files: see below
    diffusers_outside_its_room: {
        "policies/denoiser.py": "from diffusers import UNet2DConditionModel",
        "world/render.py": "def f():\n    import diffusers.models as m",
        "world/models.py": "from diffusers import UNet2DConditionModel",
    },
    imports_of_what_is_not_installed: {
        "world/scenes.py": "from recipes.world.data import near_miss",
        "cli/doctor.py": "def f():\n    import tests.conftest",
    },
    torchvision_imports: {"metrics/fid.py": "from torchvision.transforms import functional"},
    vague_names: {"utils.py": "", "rewards/_helpers.py": "", "cli/common/io.py": ""},
    unsafe_deserialisation: {
        "artifacts.py": "import pickle",
        "loop.py": "import torch\nstate = torch.load('state.pt')",
        "learners/renamed.py": "import torch as t\nt.save({}, 'state.pt')",
        "metrics/from_.py": "from torch import load",
        "rewards/file.py": "load_state_dict_from_file('x.pt')",
        "prompts/array.py": "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
    },
}
BREAKERS = [(check, file, source) for check, files in CHECKS.items() for file, source in files.items()]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_the_rule(check: Callable[[Path], list[str]]) -> None:
    assert list(sources(PACKAGE)), f"no source in {PACKAGE}"
    assert check(PACKAGE) == []


@pytest.mark.parametrize(
    ("check", "file", "source"), BREAKERS, ids=lambda value: getattr(value, "__name__", None)
)
def test_check_finds_a_breaker(
    check: Callable[[Path], list[str]], file: str, source: str, tmp_path: Path
) -> None:
    breaker = tmp_path / "diffalign" / file
    breaker.parent.mkdir(parents=True)
    breaker.write_text(source)
    assert len(check(tmp_path / "diffalign")) == 1


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({"loop.py": "import diffalign.learners.find", "learners/find.py": "from .. import loop"}, 1),
        ({"loop.py": "from .rollout import collect", "rollout.py": "def f():\n    from . import loop"}, 1),
        ({"run/__init__.py": "from diffalign.run.a import a", "run/a.py": "from diffalign.run import b"}, 1),
        ({"cli/a.py": "def f():\n    from diffalign.cli import b", "cli/b.py": "import diffalign.cli.a"}, 0),
        ({"cli/a.py": "from diffalign.cli import b", "cli/b.py": "import diffalign.cli.a"}, 1),
        ({"loop.py": "from diffalign.rollout import collect", "rollout.py": "import torch"}, 0),
    ],
)
def test_rings_of_modules_are_found(files: dict[str, str], number: int, tmp_path: Path) -> None:
    for name, source in files.items():
        (tmp_path / "diffalign" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "diffalign" / name).write_text(source)
    assert len(import_cycles(tmp_path / "diffalign")) == number


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from diffalign.cli import main"),
        ("__main__.py", "from diffalign.cli import main"),
        ("cli/find.py", "from diffalign import __version__\nfrom diffalign.methods import find"),
        ("loop.py", "from diffalign.learners.contract import Learner\nfrom .rollout import collect"),
        ("settings/find.py", "from .fields import Settings\nfrom diffalign.settings import choices"),
        (
            "objectives/ppo.py",
            "from diffalign.objectives.kl import kl\nfrom . import dpo\nfrom .pg import pg",
        ),
        ("diffusion/pipeline.py", "import diffusers\nfrom diffalign.world import scenes"),
        ("artifacts.py", "import torch\nfrom safetensors.torch import load_file\ntorch.no_grad()"),
    ],
)
def test_checks_let_good_source_pass(file: str, source: str, tmp_path: Path) -> None:
    module = tmp_path / "diffalign" / file
    module.parent.mkdir(parents=True)
    module.write_text(source)
    assert [fault for check in CHECKS for fault in check(tmp_path / "diffalign")] == []


def test_recipes_keep_the_rules_that_are_not_of_rooms() -> None:
    assert list(sources(ROOT / "recipes")), "no source in recipes"
    for check in (torchvision_imports, vague_names, unsafe_deserialisation):
        assert check(ROOT / "recipes") == []


def test_tests_and_dependencies_are_free_of_torchvision() -> None:
    assert torchvision_imports(ROOT / "tests") == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    requirements = [*project["dependencies"], *(it for extra in extras for it in extra)]
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [it for it in (*requirements, *pinned) if it.startswith("torchvision")] == []


def test_importing_the_package_is_light() -> None:
    """The front door loads its rooms when they are asked for: `diffalign --help` must not wait."""
    script = "import sys, diffalign; print(*{'diffusers', 'transformers', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
