"""No file, however damaged, gives another error than one that the command line prints in a line.

Each kind is damaged 500 times; `make nightly` does it 10 000 times.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffalign.cli.errors import is_mistake
from tests.damage.kinds import KINDS
from tests.damage.mutations import damage

EXAMPLES = int(os.environ.get("DAMAGE_EXAMPLES", 500))
#: The same each time, unless there are many: then they are others every night.
thorough = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 500,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warnings.catch_warnings(action="ignore"):  # of Pillow, at what it mends itself
        yield tmp_path_factory.mktemp("damage")


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_said_in_a_line(name: str, folder: Path) -> None:
    kind = KINDS[name]
    path = folder / name / kind.name
    path.parent.mkdir()
    kind.write(path)
    kind.read(path)
    whole = path.read_bytes()

    @thorough
    @given(st.data())
    def check(data: st.DataObject) -> None:
        for other in path.parent.iterdir():
            if other != path:
                other.unlink()
        data.draw(damage(path, whole))
        try:
            kind.read(path)
        except Exception as error:
            if not is_mistake(error) or "\n" in str(error).strip():
                raise AssertionError(f"{type(error).__name__}: {error}") from error

    check()
