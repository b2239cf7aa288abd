"""The project's own files: versions, extras, workflows, the citation, the changelog."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import rnnfast

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FOR_DEVELOPERS = {"all", "bench", "peers", "test"}  # extras that are lists of others, or of tools
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the module has another name


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------- versions


def versions_of_the_changelog() -> list[str]:
    return re.findall(r"^## (\d+\.\d+\.\d+) - ", read("CHANGELOG.md"), re.MULTILINE)


def test_the_changelog_begins_with_this_version() -> None:
    versions = versions_of_the_changelog()
    assert versions[0] == rnnfast.__version__
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)


def test_sections_of_the_changelog() -> None:
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for section in re.split(r"^## ", read("CHANGELOG.md"), flags=re.MULTILINE)[1:]:
        headings = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert headings
        assert len(set(headings)) == len(headings)
        assert set(headings) <= kinds


def test_the_citation_has_this_version_and_what_the_format_asks_for() -> None:
    text = read("CITATION.cff")
    fields = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= fields.keys()
    assert fields["version"] == rnnfast.__version__
    assert fields["license"] == PYPROJECT["project"]["license"]
    for author in PYPROJECT["project"]["authors"]:
        assert f"- name: {author['name']}" in text


@pytest.mark.skipif(not importlib.util.find_spec("cffconvert"), reason="needs cffconvert")
def test_the_citation_is_valid() -> None:
    command = [sys.executable, "-m", "cffconvert", "--validate", "-i", "CITATION.cff"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


# ------------------------------------------------------------------------------------------ extras


def optional_modules() -> set[str]:
    """What the package imports beyond the standard library and NumPy."""
    found = set()
    for path in (ROOT / "rnnfast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found - {*sys.stdlib_module_names, "numpy", "rnnfast"}


def test_every_optional_import_has_an_extra() -> None:
    modules = optional_modules()
    assert {"torch", "onnx", "matplotlib", "safetensors", "tqdm"} <= modules
    in_extras = {name_of(r) for requirements in EXTRAS.values() for r in requirements}
    assert {DISTRIBUTIONS.get(module, module) for module in modules} <= in_extras


def test_extras_that_messages_and_pages_name_exist() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "rnnfast").rglob("*.py")]
    named = set()
    for page in pages:
        for extras in re.findall(r"(?:rnnfast|'\.)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            named |= set(extras.split(","))
    assert {"files", "onnx", "plot"} <= named <= EXTRAS.keys()


def test_users_extras_ask_for_the_oldest_tested_release() -> None:
    for extra in EXTRAS.keys() - FOR_DEVELOPERS:
        for requirement in EXTRAS[extra]:
            assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement


def test_all_is_every_extra_of_users() -> None:
    (requirement,) = EXTRAS["all"]
    assert requirement == f"rnnfast[{','.join(sorted(EXTRAS.keys() - FOR_DEVELOPERS))}]"


# ---------------------------------------------------------------------------- wheels and workflows


def test_supported_pythons_are_the_same_everywhere() -> None:
    project = PYPROJECT["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)]
    minors = sorted(map(int, named))
    assert project["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
    built = PYPROJECT["tool"]["cibuildwheel"]["build"]
    assert built.split() == [f"cp3{minor}-*" for minor in minors]


def test_what_wheels_are_tested_with_is_there() -> None:
    commands = " ".join(PYPROJECT["tool"]["cibuildwheel"]["test-command"])
    paths = re.findall(r"\{project\}/(\S+)", commands)
    assert ".ci/smoke.py" in paths
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_take_pinned_actions_and_few_rights(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.*)", text)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert re.search(r"^permissions:\n  contents: read\n", text, re.MULTILINE)
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    rights = re.findall(r"^ +([\w-]+): write", text, re.MULTILINE)
    assert rights == (["id-token"] if path.name == "release.yml" else [])
    jobs = re.split(r"^  (?=\w+:$)", text.partition("\njobs:\n")[2], flags=re.MULTILINE)[1:]
    assert jobs
    assert all("timeout-minutes:" in job for job in jobs)


def test_only_what_was_tested_is_published() -> None:
    path = ROOT / ".github" / "workflows" / "release.yml"
    if not path.exists():
        pytest.skip("the workflows are not here")
    publish = path.read_text(encoding="utf-8").partition("\n  publish:\n")[2]
    assert "needs: [source, wheels]" in publish
    assert "if: github.event_name == 'push' && github.ref_type == 'tag'" in publish
    assert "environment: pypi" in publish


@pytest.mark.skipif(not shutil.which("actionlint"), reason="needs actionlint")
def test_workflows_are_valid() -> None:
    subprocess.run(["actionlint"], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_and_forms_can_be_read(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml":
        assert content.keys() >= {"name", "description", "body"}
        ids = [part["id"] for part in content["body"]]
        assert len(set(ids)) == len(ids)
        assert "info" in ids or path.name == "feature.yml"
