"""The documents: the site builds without a warning or a fetch, generated pages are current, links and paths exist."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")]
TEXTS = [*PAGES, *sorted(DOCS.rglob("*.md"))]
SOURCES = [path for folder in ("minigpt", "corpora", "docs", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a broken link, anchor or name is a warning, which fails a strict build."""
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: it hides warnings from --strict, too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()


def test_the_site_fetches_nothing(site: Path) -> None:
    """Scripts, styles, fonts and pictures come from the site itself; only links lead elsewhere."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//[^"]*"', text)
        fetched += [tag for tag in re.findall(r'<link[^>]*href="(?:https?:)?//[^>]*>', text) if "canonical" not in tag]
        assert not fetched, page.name
    for style in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", style.read_text("utf-8")), style.name


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import minigpt

    text = (site / "reference" / "api.html").read_text("utf-8")
    for name in set(minigpt.__all__) - {"__version__"}:
        assert f'id="minigpt.{name}"' in text, name


def script(name: str) -> ModuleType:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["make_settings", "make_families", "make_picture"])
def test_generated_files_are_current(name: str) -> None:
    """`make docs` writes them again. (That of the commands is tested with the command line.)"""
    module = script(name)
    assert module.PAGE.read_text("utf-8") == module.content()


def test_descriptions_of_settings_are_read_from_docstrings() -> None:
    class Example:
        """A class.

        Attributes:
            first: one line,
                and its rest.
            second, third (int): for both: a colon.

        Raises:
            ConfigError: no field.
        """

    expected = {"first": "one line, and its rest.", "second": "for both: a colon.", "third": "for both: a colon."}
    assert script("make_settings").described(Example) == expected
    assert script("make_settings").described(Path) == {}


def slug(heading: str) -> str:
    """The anchor of a heading on GitHub."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_outside_the_site_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in {slug(line) for line in re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)}


def test_every_example_is_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text("utf-8")
    for path in (ROOT / "examples").iterdir():
        assert path.name.startswith((".", "_")) or path.name == "README.md" or f"]({path.name})" in listed, path.name


def test_paths_of_documents_in_code_exist() -> None:
    for source in SOURCES:
        for name in re.findall(r"docs/[\w/-]+\.(?:md|svg|jsonl?)", source.read_text("utf-8")):
            assert (ROOT / name).is_file() or "{" in name, f"{source.relative_to(ROOT)}: {name}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_prose_is_at_most_120_wide(page: Path) -> None:
    """Rows of tables may be longer: Markdown has no way to break them."""
    lines = page.read_text("utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120 and not line.startswith("|")] == []
