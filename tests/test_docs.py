"""What the docs and the templates name exists: files, commands of make, scripts and modules."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for target in re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, re.MULTILINE):
        assert target in TARGETS, f"make {target}"
    for script in re.findall(r"python ((?:benchmarks|recipes|examples)/\S+\.py)", text):
        assert (ROOT / script).exists(), script
    for module in re.findall(r"-m ((?:recipes|benchmarks|examples)(?:\.\w+)+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_headings_that_links_point_at_exist() -> None:
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", page.read_text("utf-8")):
            target = page.parent / link if link else page
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{page.name}: {link}#{anchor}"


def test_the_changelog_keeps_its_headings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased = text.split("## [Unreleased]")[1].split("\n## [")[0]
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert re.findall(r"^### (.+)$", unreleased, re.MULTILINE) == kinds
    for kind in kinds:
        assert kind in (ROOT / "docs" / "releasing.md").read_text("utf-8")
