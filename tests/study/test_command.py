"""The commands: a study that goes on after a kill, its results, and what is refused."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffalign.cli import run
from diffalign.study.server import StudyServer
from diffalign.study.votes import Votes
from tests.processes import Process

from .conftest import Client, paint

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line; a server ends as soon as it would wait."""
    monkeypatch.setenv("COLUMNS", "200")

    def ran(*tokens: object) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(StudyServer, "serve_forever", lambda self: None)
            code = run([str(token) for token in tokens])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return ran


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., tuple[Process, str]]]:
    """Starts a server of its own process, and waits until it says where it listens."""
    started: list[Process] = []

    def start(*tokens: object) -> tuple[Process, str]:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(Process(["diffalign", "study", *tokens, "--port", "0"], folder))
        return started[-1], started[-1].wait_for(r"http://\S+").group()

    yield start
    for each in started:
        each.stop()


def test_a_killed_server_has_each_vote_and_the_voter_goes_on(
    process: Any, folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "study"
    first, url = process(*folders, "--out", out, "--questions", 4)
    client = Client(url)
    client.begin()
    client.vote(1, "left", "tie")
    before = client.vote(2, "right", "right")
    first.stop()
    _, client.url = process("--out", out)
    after = client.get("/vote")
    assert after.place == 3 and after.pictures == before.pictures
    client.vote(3, "tie", "tie")
    assert client.vote(4, "tie", "tie").url.endswith("/end")
    votes = Votes(out)
    (cookie,) = client.jar
    said = [votes.answers(cookie.value)[shown.number] for shown in votes.dealt(cookie.value)]
    votes.close()
    assert [(it.alignment, it.quality) for it in said] == [
        ("left", "tie"),
        ("right", "right"),
        ("tie", "tie"),
        ("tie", "tie"),
    ]


def test_results_are_printed_and_written(make: Any, serve: Any, command: Command, tmp_path: Path) -> None:
    votes = make(questions=2)
    url = serve(votes).url
    for _ in range(3):
        client = Client(url)
        client.begin()
        client.vote(1, "left", "tie")
        client.vote(2, "left", "tie")
    code, said = command("study-results", tmp_path / "study")
    assert (
        code == 0 and "6 votes of 3 voters on 2 prompts" in said and "ours-secret over frozen-secret" in said
    )
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    assert found["schema"] == "diffalign.study/1" and found["votes"] == 6
    assert found["rows"][0]["quality"]["mean"] == 0.5 and found["rows"][0]["quality_ties"] == 6


def test_scripts_read_results_and_the_address_as_lines_of_json(
    make: Any, serve: Any, command: Command, tmp_path: Path
) -> None:
    votes = make(questions=2)
    client = Client(serve(votes).url)
    client.begin()
    client.vote(1, "left", "tie")
    out = tmp_path / "study"
    code, said = command("--json", "study-results", out)
    found = json.loads(said)
    assert code == 0 and found.pop("folder") == str(out)
    assert found == json.loads((out / "results.json").read_text())
    code, said = command("--json", "study", "--out", out, "--port", 0)
    begun = json.loads(said)
    assert code == 0 and begun["url"].startswith("http://127.0.0.1:")
    assert (begun["folder"], begun["questions"], begun["votes"]) == (str(out), 2, 1)


def test_ratings_are_printed(make: Any, serve: Any, command: Command, tmp_path: Path) -> None:
    client = Client(serve(make(mode="rating")).url)
    shown = client.begin()
    while not shown.url.endswith("/end"):
        shown = client.vote(shown.place, "4", "2")
    code, said = command("study-results", tmp_path / "study")
    assert code == 0 and "ours-secret less frozen-secret" in said and "one voter alone" in said
    assert "4.00 [4.00, 4.00]" in said


def test_a_study_goes_on_only_as_it_was(command: Command, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "study"
    code, said = command("study", *folders, "--out", out, "--questions", 4, "--seed", 3, "--port", 0)
    assert code == 0 and "4 questions a voter, 0 votes so far" in said and f"study-results {out}" in said
    content = (out / "study.sqlite").read_bytes()
    for same in ([], ["--seed", 3], [*folders], [*folders, "--mode", "pairs", "--questions", 4]):
        assert command("study", *same, "--out", out, "--port", 0)[0] == 0
    for other, expected in (
        (["--mode", "rating"], "has mode 'pairs', not 'rating'; leave out --mode"),
        (["--questions", 5], "has questions 4, not 5"),
        (["--seed", 0], "has seed 3, not 0"),
        (["--anchor", "ours-secret"], "has anchor None"),
        (["--invite"], "has invite False, not True"),
        ([f"x={folders[0]}", folders[1]], "is of other folders"),
        ([folders[1], folders[0]], "is of other folders"),
    ):
        code, said = command("study", *other, "--out", out, "--port", 0)
        assert code == 2 and expected in said and "another --out" in said
    paint(folders[0] / "two-dogs" / "seed0-000.png", 200)
    code, said = command("study", *folders, "--out", out, "--port", 0)
    assert code == 2 and "has other pictures" in said
    assert (out / "study.sqlite").read_bytes() == content


def test_an_invitation_stays_the_same(command: Command, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "study"
    codes = set()
    for more in ([*folders, "--invite"], [], ["--invite"]):
        _, said = command("study", *more, "--out", out, "--port", 0)
        codes |= {*re.findall(r"http://\S+/\?code=([0-9a-f]{16})\n", said)}
    assert len(codes) == 1


def test_mistakes_are_said_in_a_line(command: Command, folders: list[Path], tmp_path: Path) -> None:
    out, full = tmp_path / "new", tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    broken = tmp_path / "broken" / "x.png"
    broken.parent.mkdir()
    broken.write_text("no picture")
    (tmp_path / "other").mkdir()
    paint(tmp_path / "other" / "x.png", 3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.sqlite").write_text(
        "no database at all, but long enough to look like one" * 99
    )
    for tokens, expected in (
        (["study", "--out", out], "at least two folders"),
        (["study", folders[0], "--out", out], "at least two folders, not 1"),
        (["study", *folders, "--out", full], "holds files that are no study"),
        (["study", *folders, "--out", out, "--questions", 99], "there are 6 questions to ask, not 99"),
        (["study", *folders, "--out", out, "--anchor", "x"], "unknown anchor 'x'"),
        (["study", *folders, "--out", out, "--mode", "stars"], "Choose from"),
        (["study", *folders, tmp_path / "nowhere", "--out", out], "is no folder"),
        (["study", *folders], "--out"),
        (
            ["study", broken.parent, tmp_path / "other", "--prompt", "a dog", "--out", out],
            "x.png is no picture that can be read",
        ),
        (["study-results", out], "there is no study in"),
        (["study-results", tmp_path / "bad"], "is no study: file is not a database"),
    ):
        code, said = command(*tokens)
        assert code == 2 and expected in said, said
        assert not (out / "study.sqlite").exists() and "Traceback" not in said
    assert (full / "thesis.txt").read_text() == "mine"


def test_a_taken_port_and_a_study_without_votes(
    make: Any, serve: Any, command: Command, tmp_path: Path
) -> None:
    server = serve(make())
    code, said = command("study", "--out", tmp_path / "study", "--port", server.address[1])
    assert code == 2 and "give another port" in said
    code, said = command("study-results", tmp_path / "study")
    assert code == 2 and "no votes yet" in said


def test_a_missing_package_is_named_before_a_study_is_made(
    command: Command, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "diffalign.study.server")
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    code, said = command("study", *folders, "--out", tmp_path / "new")
    assert code == 2 and "pip install 'diffalign[serve]'" in said
    assert not (tmp_path / "new").exists()
