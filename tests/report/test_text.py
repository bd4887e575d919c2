"""Fonts and lines of text in pictures, with what matplotlib ships alone."""

import warnings
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.font_manager import FontEntry

from diffalign.report import text
from diffalign.report.pictures import grid
from diffalign.report.text import families, fitted, width_of


def test_a_font_is_chosen_that_has_what_the_first_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"one": "字漢", "more": "字漢क", "other": "ख", "none": ""}
    monkeypatch.setattr(text, "_installed", lambda: [(name, name) for name in has])
    ours = text._characters
    monkeypatch.setattr(text, "_characters", lambda file: frozenset(has[file]) if file in has else ours(file))
    families.cache_clear()
    assert families("a dog, ein Käfer, собака, كلب") == ["DejaVu Sans"]
    assert families("字 dog") == ["DejaVu Sans", "one"]
    assert families("字क ख\u200d 🐕") == ["DejaVu Sans", "more", "other"]
    families.cache_clear()


def test_a_font_that_cannot_be_read_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert text._characters(str(tmp_path / "broken.ttf")) == frozenset()


def test_fonts_installed_since_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    (tmp_path / "new.ttf").write_bytes(source.read_bytes())
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    known: list[FontEntry] = list(text.fontManager.ttflist)
    monkeypatch.setattr(text.fontManager, "ttflist", known)
    monkeypatch.setattr(text, "findSystemFonts", lambda: [str(file) for file in tmp_path.iterdir()])
    text._installed.cache_clear()
    assert ("DejaVu Sans", str(tmp_path / "new.ttf")) in text._installed()
    text._installed.cache_clear()


@pytest.mark.parametrize(
    "prompt", ["一只狗在月球上", "कुत्ता", "كلب أزرق", "🐕‍🦺 on ☀️", "𓀀 ᚠᚢᚦ", "a\n\tdog", "$x^$"]
)
def test_no_script_is_complained_of(prompt: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    pictures = torch.zeros(2, 3, 8, 8)
    for name in ("a.png", "a.pdf"):
        grid(pictures, tmp_path / name, title=prompt, captions=[prompt] * 2, verdicts=[True, False])
    assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []


def test_lines_fit() -> None:
    found = fitted("a very long prompt of a dog on the moon", 120, 11, lines=2)
    assert len(found) == 2 and found[0] == "a very long prompt" and found[1].endswith("…")
    assert all(width_of(line, 11) <= 120 for line in found)
    assert fitted("a dog", 120, 11, lines=2) == ["a dog"]
    assert fitted("字" * 50, 60, 11)[0].endswith("字…")
    assert fitted("abc", 1, 11, lines=2) == ["a", "b…"]  # nothing fits: it ends all the same


def test_joined_emoji_are_drawn_apart() -> None:
    assert fitted("🐕‍🦺 क्‍ष", 500, 11) == ["🐕🦺 क्‍ष"]
