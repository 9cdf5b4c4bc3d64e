"""The documents hold together: links lead somewhere, the drawn states are the table, nothing names somebody's machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.plan.lifecycle import diagram

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# What only makes sense on one machine, or to those who were there.
FORBIDDEN = re.compile(r"(?<![\w}/.:])/(?:root|work)/|(?:pypi|pythonhosted)\.(?:org|internal)|\bissue \d|/opt/pypi")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".j2", ".example", ".txt", ".cfg", ""}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


PAGES = [path for path in tracked() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """The ids of a page's headings, as the places that show Markdown make them."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(FENCE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = []
    for link in LINK.findall(FENCE.sub("", text)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    pages = {path for path in PAGES if path.parent in {ROOT / "docs", ROOT / "docs" / "decisions"}}
    assert pages - {index} - linked == set()


def test_the_state_diagram_is_the_table() -> None:
    drawn = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.DOTALL)
    assert diagram().strip() in [each.strip() for each in drawn]


def test_no_file_names_a_machine_a_package_host_or_how_it_was_made() -> None:
    found = [
        f"{name_of(path)}: {match.group()}"
        for path in tracked()
        if path.suffix in TEXT and path != Path(__file__)
        for match in FORBIDDEN.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_changelog_says_what_comes_next() -> None:
    assert re.search(r"^## Unreleased\n\n### ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
