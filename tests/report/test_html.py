import base64
import copy
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import diffalign
from diffalign import NoiseDistribution
from diffalign.files import ArtifactError
from diffalign.report.html import write_report

EVIL = "<script>alert('1')</script> & \"dog\""
VOID = {"meta", "img", "br"}


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.125, "high": mean + 0.125, "n": 64}


ROW = {
    "reward": interval(12.5),
    "judged_accuracy": interval(0.25),
    "graded": interval(0.5),
    "diversity": {"pairwise_distance": 0.375, "vendi": 7.25, "on": "clip"},
}
COST = {"reward_queries": 1150, "denoiser_forwards": 6000, "seconds": 12.34, "peak_memory_mb": None}
SUMMARY: dict[str, Any] = {
    "schema": "diffalign.summary/1",
    "prompt": "a green dog",
    "model": "world",
    "reward": "world-clip",
    "judge": "world-scene",
    "n": 64,
    "rows": {"baseline": ROW, "best_of_n": ROW, "tuned": ROW},
    "gain": {
        "reward": interval(-1.5),
        "judged_accuracy": interval(0.484),
        "graded": interval(0.0),
        "pairwise_distance": interval(-0.25),
    },
    "cost": {"baseline": COST, "best_of_n": COST, "tuned": COST},
    "run": {"seed": 0, "num_steps": 20, "guidance_scale": 4.0, "command": "diffalign find 'a green dog'"},
}
METRICS = {
    "round": 1,
    "queries": 30,
    "optimiser_steps": 4,
    "rewards": [1.0],
    "mean_norm": 1.25,
    "effective_components": 1.0,
    "kl_to_standard": 2.5,
    "denoiser_forwards": 1200,
    "seconds": 9,
}


class Page(HTMLParser):
    """Checks that tags match; collects the text, the tags and what is referred to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.tags, self.references = "", [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def make(folder: Path, summary: dict[str, Any] = SUMMARY) -> Page:
    (folder / "summary.json").write_text(json.dumps(summary))
    return Page(write_report(folder).read_text("utf-8"))


def test_the_whole_report(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(METRICS) + '\n{"round": 2, "que')  # cut by a kill
    (tmp_path / "config.yaml").write_text("queries: 30\n")
    (tmp_path / "before_after.png").write_bytes(b"before")
    (tmp_path / "reward_curve.png").write_bytes(b"curve")
    page = make(tmp_path)
    encoded = [base64.b64encode(content).decode() for content in (b"before", b"curve")]
    assert page.references == [f"data:image/png;base64,{it}" for it in encoded]
    for text in (
        "“a green dog”",
        "+48.4 points",
        "95 % interval +35.9 to +60.9",
        "−1.500",
        "25.0",
        "12.5 to 37.5",
        "12.50",
        "0.375",
        "1 150",
        "12.3",
        "Best of N",
        "measured on clip",
        "1 round, 30 reward queries, 4 optimiser steps in all",
        "2.5 nats",
        "num_inference_steps=20",
        "diffalign find 'a green dog'",
        "queries: 30",
    ):
        assert text in page.text, text
    assert sorted(it.name for it in tmp_path.iterdir() if it.suffix == ".partial") == []


def test_a_loss_of_diversity_is_coloured_as_one_of_alignment(tmp_path: Path) -> None:
    make(tmp_path)
    cards = re.findall(
        r'<dt>([^,]+), learned less frozen</dt>\s*<dd><span class="(\w*)">([^<]+)',
        (tmp_path / "report.html").read_text("utf-8"),
    )
    assert cards == [
        ("Judged right", "up", "+48.4 points"),
        ("Reward world-clip", "down", "−1.500"),
        ("Diversity", "down", "−0.250"),
    ]
    gain = {name: value for name, value in SUMMARY["gain"].items() if name != "pairwise_distance"}
    assert "Diversity, tuned" not in make(tmp_path, {**SUMMARY, "gain": gain}).text  # of an earlier version


def test_it_is_self_contained_and_has_a_dark_side(tmp_path: Path) -> None:
    page = make(tmp_path)
    source = (tmp_path / "report.html").read_text("utf-8")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", source)
    assert "prefers-color-scheme: dark" in source


def test_everything_is_escaped(tmp_path: Path) -> None:
    summary = copy.deepcopy(SUMMARY)
    summary.update(prompt=EVIL, model=EVIL, reward=EVIL, judge=EVIL)
    summary["run"] = {EVIL: EVIL, "command": EVIL, "num_steps": EVIL}
    summary["rows"][EVIL] = {**ROW, "diversity": {**ROW["diversity"], "on": EVIL}}
    summary["cost"][EVIL] = COST
    (tmp_path / "config.yaml").write_text(EVIL)
    page = make(tmp_path, summary)
    assert "script" not in page.tags
    assert page.text.count("<script>") >= 10
    assert not [tag for tag in page.tags if tag not in VOID and not tag.isalnum()]


@pytest.mark.parametrize(
    ("kind", "latent"), [("tiny_pipeline", (4, 8, 8)), ("tiny_video_pipeline", (4, 3, 8, 8))]
)
def test_the_snippet_runs(
    kind: str,
    latent: tuple[int, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = request.getfixturevalue(kind)
    monkeypatch.setattr(diffalign, "load_pipeline", lambda name: pipeline, raising=False)
    NoiseDistribution.standard(latent).save("noise.safetensors")
    page = make(tmp_path, {**SUMMARY, "prompt": 'it\'s "a" dog\\n', "run": {"num_steps": 2}})
    start = page.text.index("from diffalign import")
    names: dict[str, Any] = {}
    exec(page.text[start : page.text.index("The model is untouched", start)], names)
    assert len(names["pictures"]) == 8


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    bare = {**ROW, "judged_accuracy": None, "graded": None, "diversity": None}
    page = make(
        tmp_path,
        {
            **SUMMARY,
            "judge": None,
            "rows": {"baseline": bare},
            "cost": {"baseline": COST},
            "gain": None,
            "run": {},
        },
    )
    assert page.references == []
    for text in (
        "Before and after",
        "Reward while",
        "plain diffusers",
        "Command",
        "points",
        "Best of N",
        "judged by",
    ):
        assert text not in page.text, text
    assert page.text.count("–") == 5  # judged, graded, two of diversity, memory


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no finished run"),
        ("{", "corrupt"),
        ("[]", "no summary of the schema"),
        ('{"schema": "other/1"}', "no summary of the schema"),
        ('{"schema": []}', "no summary of the schema"),
        (
            '{"schema": "diffalign.search/1", "prompt": "a dog"}',
            "does not follow the schema diffalign.search",
        ),
        ('{"schema": "diffalign.summary/1", "prompt": "a dog"}', "does not follow the schema"),
    ],
)
def test_a_folder_without_a_summary(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


SEARCH: dict[str, Any] = {
    "schema": "diffalign.search/1",
    "prompt": "a green dog",
    "model": "world",
    "reward": "world-clip",
    "judge": "world-scene",
    "description": "the best 2 of 150",
    "previews": None,
    "all": {"reward": interval(10.5)},
    "kept": {
        **{"indices": [3, 1], "rewards": [14.0, 13.0], "reward": interval(13.5), "judged": [True, False]},
        **{"judged_accuracy": interval(0.5), "diversity": None},
    },
    "cost": COST,
    "run": {"seed": 0, "command": "diffalign search 'a green dog'", "guidance_scale": 4.0},
}


def test_the_page_of_a_search(tmp_path: Path) -> None:
    (tmp_path / "best.png").write_bytes(b"best")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(METRICS) + "\n")
    page = make(tmp_path, SEARCH)
    assert page.references == [f"data:image/png;base64,{base64.b64encode(b'best').decode()}"]
    for text in ("“a green dog”", "The best 2 of 150 by reward world-clip", "judged by world-scene"):
        assert text in page.text, text
    assert [text in page.text for text in ("10.50", "13.50", "50.0", "1 150 reward queries", "Previews")] == [
        *[True] * 4,
        False,
    ]
    assert "plain diffusers" not in page.text
    previews = {**SEARCH, "previews": {"reward": interval(7.25)}}
    assert "Previews" in make(tmp_path, previews).text and "7.250" in make(tmp_path, previews).text


def test_a_table_has_every_prompt(tmp_path: Path) -> None:
    prompts = ["a green dog", EVIL, "字" * 3000, "a dog " * 3000]
    bare = {**ROW, "judged_accuracy": None, "diversity": None}
    gain = {**SUMMARY["gain"], "judged_accuracy": None, "pairwise_distance": None}
    parts = [
        {"prompt": prompt, "n": 8, "rows": {"baseline": ROW, "tuned": ROW}, "gain": SUMMARY["gain"]}
        for prompt in prompts
    ]
    parts[1] |= {"rows": {"baseline": bare, "tuned": bare}, "gain": gain}
    page = make(tmp_path, {**SUMMARY, "by_prompt": parts})
    table = page.text[page.text.index("By prompt") :]
    assert "a green dog" in table and "<script>" in table and "8 pictures a prompt" in table
    assert "字" * 100 in table and max(map(len, table.splitlines())) < 200
    assert "+48.4" in table and "−1.500" in table
    assert "“" not in page.text[: page.text.index("Model")]  # a number of prompts is no prompt
    assert "By prompt" not in make(tmp_path, {**SUMMARY, "by_prompt": []}).text


def test_a_prompt_of_thousands_of_words_is_shortened_in_titles(tmp_path: Path) -> None:
    make(tmp_path, {**SUMMARY, "prompt": "a dog " * 3000, "run": {}})
    source = (tmp_path / "report.html").read_text("utf-8")
    title, heading = (re.search(f"<{tag}[^>]*>(.*)</{tag}>", source) for tag in ("title", "h1"))
    assert title is not None and len(title[1]) < 80 and heading is not None and len(heading[1]) < 220
    assert repr("a dog " * 3000) in html.unescape(source)  # what is run is whole


def test_it_replaces_an_older_report(tmp_path: Path) -> None:
    make(tmp_path)
    first = (tmp_path / "report.html").read_text("utf-8")
    make(tmp_path, {**SUMMARY, "prompt": "a red cat"})
    assert "a red cat" in (tmp_path / "report.html").read_text("utf-8") != first
