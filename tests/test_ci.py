"""The workflow calls what exists, on the Pythons that the package names; the issue forms are whole."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = [file for file in sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")) if file.stem != "config"]


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    """`ci.yml`, parsed."""
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))


def test_every_yaml_file_of_the_repository_parses() -> None:
    files = [*ROOT.glob(".github/**/*.yml"), *ROOT.glob("*.yaml"), ROOT / "CITATION.cff"]
    for file in [*files, ROOT / ".pre-commit-config.yaml"]:
        assert isinstance(yaml.safe_load(file.read_text("utf-8")), dict), file


def test_steps_call_targets_and_files_that_exist(workflow: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert all(workflow.values())  # an empty `env:` is no workflow
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = {target for command in commands for target in re.findall(r"\bmake ([a-z]+)", command)}
    assert {"lint", "test", "wheel"} <= called <= targets
    named = {name for command in commands for name in re.findall(r"tests/\S+\.py", command)}
    assert named and all((ROOT / name).exists() for name in named)


def test_it_runs_all_that_every_change_must_pass(workflow: dict[str, Any]) -> None:
    required = re.findall(r"^make ([a-z]+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    steps = " ".join(step.get("run", "") for step in workflow["jobs"]["check"]["steps"])
    assert required and all(f"make {target}" in steps for target in required)


def test_it_tests_every_python_that_the_package_names(workflow: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_whole(form: Path) -> None:
    """With the keys without which the form is not shown."""
    content = yaml.safe_load(form.read_text("utf-8"))
    assert content["name"] and content["description"]
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids)) > 0
    for field in content["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert field["attributes"]["label"]
        if field["type"] in ("dropdown", "checkboxes"):
            assert field["attributes"]["options"]


def test_there_are_forms_for_bugs_and_for_requests() -> None:
    assert {form.stem for form in FORMS} == {"bug", "method-or-reward"}
