"""A small file of every kind that is read, and its reader: what the tests damage."""

import io
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from diffalign import load_artifact
from diffalign.artifacts import RunFolder
from diffalign.cli import app
from diffalign.cli.settings import read_settings, spell_out
from diffalign.evaluation.sources import read_frames, read_source
from diffalign.files import GENERATOR, NOISE, NOISES, STATE
from diffalign.learners.result import SearchResult
from diffalign.loop import train
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.prompts import load_prompts
from diffalign.report.html import write_report
from diffalign.run.checkpoint import restore
from diffalign.run.comparison import read_rows, summarise_rows
from diffalign.run.folders import read_plan
from diffalign.settings.evaluation import FindEvaluation
from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling
from diffalign.study.questions import Design
from diffalign.study.results import results
from diffalign.study.votes import _TABLES, Votes
from diffalign.world.grammar import PromptError, parse
from tests.contracts.tables import LATENT, METADATA, NOISE_POLICIES, PROMPTS, make_learner
from tests.report.test_html import METRICS, SUMMARY
from tests.toys import half, sides


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the file.
        write: writes a whole one.
        read: reads one, and uses what it says; raises the errors of this project alone.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


PLAN = Plan("find", ("a dog",), METHODS["find"].presets["default"], FindEvaluation(), Sampling())
ROW = {"prompt": "a dog", "reward": [0.5, 1.0], "judged": [1, 0], "distance": 0.1}
LINE = {"method": "find", "seed": 0, "about": {"queries": 9, "model_fingerprint": "a-b-c"}, "seconds": 1.5}
LINE |= {"forwards": 80, "pictures": [ROW, ROW]}


def _json(content: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(content), "utf-8")


def _lines(*contents: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text("".join(json.dumps(line) + "\n" for line in contents), "utf-8")


def _yaml(content: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, "utf-8")


def _read_settings(path: Path) -> None:
    read_settings(path)  # which is fast, and refuses most
    app.parse_args(spell_out(["find", "--config", str(path)]), print_error=False, exit_on_error=False)


def _read_prompts(path: Path) -> None:
    for text in load_prompts(path).texts:
        try:
            parse(text)
        except PromptError as error:
            assert "\n" not in str(error)


def _read_metrics(path: Path) -> None:
    run = RunFolder(path.parent)
    for row in run.metrics():
        sum(row["rewards"], row["seconds"])
    run.truncate_metrics(1)


def _read_summary(path: Path) -> None:
    _lines(METRICS)(path.with_name("metrics.jsonl"))
    write_report(path.parent)


def _read_rows(path: Path) -> None:
    json.dumps(summarise_rows(read_rows(RunFolder(path.parent))), allow_nan=False)


def _write_study(path: Path, mode: Any) -> None:
    design = Design(mode, ("a", "b"), ("p", "q"), (2, 1), questions=3)
    with closing(sqlite3.connect(path)) as file, file:
        file.executescript("PRAGMA page_size = 512;" + _TABLES)
        file.execute("INSERT INTO study VALUES (1, 'i', 's', ?, 'd')", [json.dumps(asdict(design))])
        for prompt, position in ((0, 0), (0, 1), (1, 0)):
            for source in range(2):
                file.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", (prompt, position, source, b"png"))
        file.execute("INSERT INTO voters VALUES (1, 'v', 0.0)")
        answer = "left" if mode == "pairs" else "3"
        for question in range(3):
            file.execute("INSERT INTO votes VALUES (0, ?, 0, ?, ?, 0.0)", (question, answer, answer))


def _read_study(path: Path) -> None:
    with closing(Votes(path.parent)) as votes:
        json.dumps(results(votes.design, votes.all()))
        votes.answers("v")
        votes.png(0, 0, 0)
        if votes.number("v") is not None:
            votes.dealt("v")


def _write_noise(path: Path, name: str) -> None:
    NOISE_POLICIES[name].make()().save(path)


def _read_noise(path: Path) -> None:
    noise = load_artifact(path)
    assert isinstance(noise, NoiseDistribution)
    noise.sample(1, 0)
    noise.check_model("a-b-c", LATENT)


def _write_generator(path: Path, name: str) -> None:
    generator: Any = NOISE_POLICIES[name].make()
    generator.save(path)


def _read_generator(path: Path) -> None:
    generator = NoiseGenerator.load(path)
    generator._states = lambda prompt: sides(prompt)[:, :1].expand(-1, generator.shape.text_width)
    generator(PROMPTS[0]).sample(1, 0)


def _write_noises(path: Path) -> None:
    SearchResult(torch.zeros(2, *LATENT), torch.empty(0), torch.ones(2), (0, 1), METADATA).save(path)


def _read_noises(path: Path) -> None:
    load_artifact(path)


def _write_state(path: Path, name: str) -> None:
    learner = make_learner(name)
    rounds = train(learner, half)
    next(rounds)
    next(rounds)
    RunFolder(path.parent).save_state(*learner.state())


def _read_state(path: Path, name: str) -> None:
    learner = make_learner(name)
    restore(RunFolder(path.parent), learner)
    learner.ask()
    learner.state()


PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def _picture(path: Path, format: str, mode: str = "RGB", frames: int = 1) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]} if frames > 1 else {}
    image.save(path, format, exif=exif, **more)


def _grey(path: Path) -> None:
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(path)


def _write_prompt(path: Path) -> None:
    path.write_text("a dog\n", "utf-8")


def _read_prompt(path: Path) -> None:
    (path.parent / "a.png").write_bytes(PNG)
    read_source(str(path.parent))


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "png")
    return file.getvalue()


PNG = _png()
_TEXT = "a dog\nthree red cats on the moon\na car above an apple\n"
_ROWS = METRICS, {**METRICS, "round": 2, "held_out": {"reward": 1.0, "judged": 0.5, "distance": None}}
_LIST = ["a dog", {"text": "three cats", "aspect": "count"}, {"prompt": "a bird", "tag": None}]
_SETTINGS = {
    "queries": 9,
    "seed": 1,
    "guidance_scale": 2.5,
    "basis": "identity",
    "prompts": ["a dog", "a cat"],
}
KINDS: Mapping[str, Kind] = {
    "config": Kind("config.yaml", _yaml(PLAN.mapping()), lambda path: read_plan(RunFolder(path.parent))),
    "settings": Kind("mine.yaml", _yaml(_SETTINGS), _read_settings),
    "prompts": Kind("prompts.txt", _text(_TEXT), _read_prompts),
    "prompts-json": Kind("prompts.json", _json(_LIST), _read_prompts),
    "prompt": Kind("prompt.txt", _write_prompt, _read_prompt),
    "metrics": Kind("metrics.jsonl", _lines(*_ROWS), _read_metrics),
    "comparison": Kind("comparison.jsonl", _lines(LINE, {**LINE, "seed": 1}), _read_rows),
    "summary": Kind("summary.json", _json(SUMMARY), _read_summary),
    "study-pairs": Kind("study.sqlite", partial(_write_study, mode="pairs"), _read_study),
    "study-rating": Kind("study.sqlite", partial(_write_study, mode="rating"), _read_study),
    **{
        name: Kind(NOISE, partial(_write_noise, name=name), _read_noise)
        for name in ("noise", "noise-dct-preserving", "mixture")
    },
    **{
        name: Kind(GENERATOR, partial(_write_generator, name=name), _read_generator)
        for name in ("anchors", "gaussian")
    },
    "noises": Kind(NOISES, _write_noises, _read_noises),
    **{
        f"state-{name}": Kind(STATE, partial(_write_state, name=name), partial(_read_state, name=name))
        for name in ("find", "anchors", "noise-ppo-running", "tune-ppo", "spectral")
    },
    "png": Kind("a.png", partial(_picture, format="png"), read_frames),
    "palette": Kind("a.png", partial(_picture, format="png", mode="P"), read_frames),
    "transparent": Kind("a.png", partial(_picture, format="png", mode="RGBA"), read_frames),
    "grey": Kind("a.png", _grey, read_frames),
    "video": Kind("a.png", partial(_picture, format="png", frames=2), read_frames),
    "jpeg": Kind("a.jpg", partial(_picture, format="jpeg"), read_frames),
    "webp": Kind("a.webp", partial(_picture, format="webp", frames=2), read_frames),
}
