"""A study in one SQLite file: its design, its pictures, its voters and their votes.

A vote is one transaction, and on the disk before the voter sees the next question: a kill or a power cut
loses none. A voter has one vote on each question; a later vote replaces an earlier one. Of pictures only the
pixels are stored, encoded alike: names and metadata, which may reveal the source, are left out, and a study
does not change when a folder does.
"""

import hashlib
import io
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffalign.evaluation.sources import Source, read_frames
from diffalign.files import replacing
from diffalign.report.video import FPS
from diffalign.settings.reading import parse_json
from diffalign.study import StudyError
from diffalign.study.questions import GREATEST, LEAST, Design, Mode, Shown, deal, pool

STUDY, RESULTS = "study.sqlite", "results.json"
#: Answers, by mode.
ALLOWED: dict[Mode, tuple[str, ...]] = {
    "pairs": ("left", "tie", "right"),
    "rating": tuple(str(rating) for rating in range(LEAST, GREATEST + 1)),
}
_VERSION = 1
_LOCK_SECONDS = 10  # to wait for another process that writes to the file
_TABLES = """
CREATE TABLE study (version INTEGER, id TEXT, secret TEXT, design TEXT, digest TEXT);
CREATE TABLE pictures (prompt INTEGER, position INTEGER, source INTEGER, png BLOB NOT NULL,
    PRIMARY KEY (prompt, position, source)) WITHOUT ROWID;
CREATE TABLE voters (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, began REAL NOT NULL);
CREATE TABLE votes (voter INTEGER NOT NULL REFERENCES voters, question INTEGER NOT NULL,
    swapped INTEGER NOT NULL, alignment TEXT NOT NULL, quality TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (voter, question));
"""
_CAST = """INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (voter, question) DO UPDATE SET
    alignment = excluded.alignment, quality = excluded.quality, at = excluded.at"""


@dataclass(frozen=True)
class Answer:
    """The answers to both questions: which shows the prompt better, which looks better; or two ratings."""

    alignment: str
    quality: str


@dataclass(frozen=True)
class Vote:
    """The vote of voter number `voter` on a question, by its number in `pool`, and how it was shown."""

    voter: int
    question: int
    swapped: bool
    answer: Answer


class Votes:
    """An open study, which threads may share: one at a time reads or writes the file.

    Raises:
        StudyError: if there is no study in the folder, or it is of another version.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / STUDY
        if not path.is_file():
            raise StudyError(
                f"there is no study in {folder}; make one with: diffalign study A B --out {folder}"
            )
        self._lock = threading.Lock()
        # autocommit, so that each statement is a transaction
        self._file = sqlite3.connect(
            path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError | TypeError | ValueError):
                raise StudyError(f"{path} is no study: {error}") from error
            raise

    def _open(self) -> None:
        """Reads the design, and checks that what it says is there."""
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        row = self._file.execute("SELECT version, id, secret, design, digest FROM study").fetchone()
        if row is None or row[0] != _VERSION:
            raise StudyError("it is of another version of diffalign; finish it with that one")
        self.id, self.secret, self.digest = str(row[1]), str(row[2]), str(row[4])
        self.design = Design(**parse_json(row[3]))
        self._check()

    def _check(self) -> None:
        """Checks that each picture and answer is there that the design and the votes speak of."""
        names = self.design.sources
        found = self._rows("SELECT prompt, position, source, typeof(png) FROM pictures ORDER BY 1, 2, 3")
        if len(found) != sum(self.design.counts) * len(names) or found != [
            (prompt, position, source, "blob")
            for prompt, count in enumerate(self.design.counts)
            for position in range(count)
            for source in range(len(names))
        ]:
            raise StudyError("its pictures are not those of its design")
        self.all()

    @property
    def invitation(self) -> str:
        """The code that voters need where the design wants one: the same whenever the study is served."""
        return hashlib.blake2b(b"invitation", key=bytes.fromhex(self.secret), digest_size=8).hexdigest()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    def register(self) -> str:
        """Registers a new voter, and returns an id that nobody can guess."""
        voter = secrets.token_hex(16)
        self._rows("INSERT INTO voters (id, began) VALUES (?, ?)", voter, time.time())
        return voter

    def number(self, voter: str) -> int | None:
        """The number of a voter, from 0 in the order of registration; None for an unknown id."""
        rows = self._rows("SELECT number FROM voters WHERE id = ?", voter)
        return int(rows[0][0]) - 1 if rows else None

    def dealt(self, voter: str) -> tuple[Shown, ...]:
        """A voter's questions, in the order in which they are shown.

        Raises:
            KeyError: if there is no such voter.
        """
        number = self.number(voter)
        if number is None:
            raise KeyError(voter)
        return deal(self.design, number, voter)

    def cast(self, voter: str, shown: Shown, answer: Answer) -> None:
        """Records a vote, instead of an earlier one on the question.

        Raises:
            StudyError: if the mode does not allow the answer.
            KeyError: if there is no such voter.
        """
        allowed, number = ALLOWED[self.design.mode], self.number(voter)
        if answer.alignment not in allowed or answer.quality not in allowed:
            raise StudyError(f"both questions want an answer of: {', '.join(allowed)}")
        if number is None:
            raise KeyError(voter)
        self._rows(_CAST, number, shown.number, shown.swapped, answer.alignment, answer.quality, time.time())

    def answers(self, voter: str) -> dict[int, Answer]:
        """The answers of a voter so far, by the number of the question."""
        query = "SELECT question, alignment, quality FROM votes WHERE voter = ?"
        return {int(question): Answer(*rest) for question, *rest in self._rows(query, self.number(voter))}

    def all(self) -> list[Vote]:
        """All votes, sorted by voter and question; raises a `StudyError` if one is none."""
        query = "SELECT voter, question, swapped, alignment, quality FROM votes ORDER BY voter, question"
        allowed, questions = ALLOWED[self.design.mode], range(len(pool(self.design)))
        votes = list[Vote]()
        for voter, question, side, *rest in self._rows(query):
            whole = isinstance(voter, int) and isinstance(question, int) and side in (0, 1)
            if not whole or question not in questions or not all(answer in allowed for answer in rest):
                raise StudyError(f"the vote of voter {voter} on question {question} is none")
            votes.append(Vote(voter, question, bool(side), Answer(*rest)))
        return votes

    def png(self, prompt: int, position: int, source: int) -> bytes:
        """The PNG of a picture, by its numbers."""
        query = "SELECT png FROM pictures WHERE prompt = ? AND position = ? AND source = ?"
        return bytes(self._rows(query, prompt, position, source)[0][0])

    def _rows(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._file.execute(statement, values).fetchall()
        except sqlite3.OperationalError:  # such as of a full disk
            raise
        except sqlite3.DatabaseError as error:
            raise StudyError(f"the study's file is damaged: {error}") from error


def create(folder: Path, design: Design, sources: Sequence[Source]) -> None:
    """Writes a new study, whole or not at all.

    Raises:
        StudyError: if the folder holds something else.
        SourceError: if a picture cannot be read.
        WriteError: if the disk is full or the folder cannot be written.
    """
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if inside - {f"{STUDY}.partial", f"{STUDY}.partial-journal"}:
        raise StudyError(f"{folder} holds files that are no study; give an empty or new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / STUDY) as partial:
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as file, file:
            file.executescript(_TABLES)
            digest = hashlib.sha256()
            for *numbers, png in pictures(design, sources):
                file.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", (*numbers, png))
                digest.update(png)
            identity = (_VERSION, secrets.token_hex(4), secrets.token_hex(32))
            file.execute(
                "INSERT INTO study VALUES (?, ?, ?, ?, ?)",
                (*identity, json.dumps(asdict(design)), digest.hexdigest()),
            )


def pictures(design: Design, sources: Sequence[Source]) -> Iterator[tuple[int, int, int, bytes]]:
    """Prompt, position, source (as numbers) and PNG of each picture.

    Raises:
        SourceError: if a picture cannot be read.
    """
    for prompt, text in enumerate(design.prompts):
        for position in range(design.counts[prompt]):
            for number, source in enumerate(sources):
                yield prompt, position, number, _pixels(source.pictures[text][position])


def digest_of(design: Design, sources: Sequence[Source]) -> str:
    """A hash of all pictures, as `create` records it, to tell studies apart.

    Raises:
        SourceError: as `pictures` does.
    """
    digest = hashlib.sha256()
    for *_, png in pictures(design, sources):
        digest.update(png)
    return digest.hexdigest()


def _pixels(path: Path) -> bytes:
    """The PNG of a picture, without metadata; of a video an animated one."""
    file, (first, *others) = io.BytesIO(), read_frames(path)
    if others:
        first.save(file, "png", save_all=True, append_images=others, duration=1000 / FPS, loop=0)
    else:
        first.save(file, "png")
    return file.getvalue()
