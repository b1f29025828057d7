"""The documentation site: it builds, and each of its links and anchors leads somewhere."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mkdocs")

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from spoken import SPOKEN

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning fails the build."""
    place = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(place))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    config.plugins.on_shutdown()
    return place


@pytest.mark.filterwarnings("ignore")  # those of the libraries that build it
def test_the_site_builds_without_a_warning(site: Path) -> None:
    for page in PAGES:
        folder = site if page.stem == "index" else site / page.stem
        assert (folder / "index.html").is_file(), page.name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("study", ["search", "repeats", "Device-seconds", "1 to 10,000", "weight_decay"]),
        ("cluster", ["node_selector", "max_replicas", "start_minutes", "bucketSecret"]),
        ("methods", ["condconv", "policy_share", "arXiv 2007.03260", "as published"]),
        ("commands", ["--patience", "ISOFLOP_MLFLOW", "--broken", "an SQLite file in --out"]),
        ("api", ["isoflop.Study", "RoutedNetwork", "exit_code", "Raises"]),
    ],
)
def test_tables_come_from_the_code(site: Path, page: str, words: list[str]) -> None:
    text = (site / page / "index.html").read_text()
    assert [word for word in words if word.lower() not in text.lower()] == []
    assert "generated:" not in text


@pytest.mark.filterwarnings("ignore")
def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?://[^\"]+)\"")
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text()) == [], page


@pytest.mark.filterwarnings("ignore")
def test_a_broken_link_or_anchor_fails(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    for link in ("nowhere.md", "other.md#nowhere"):
        (pages / "index.md").write_text(f"# Home\n\n[there]({link})\n")
        (pages / "other.md").write_text("# Other\n")
        settings = load_config(
            str(ROOT / "mkdocs.yml"),
            strict=True,
            site_dir=str(tmp_path / "out"),
            docs_dir=str(pages),
            nav=["index.md", "other.md"],
            extra_css=[],
        )
        with pytest.raises(Abort):
            build(settings)


@pytest.mark.parametrize("page", TOP, ids=lambda page: page.name)
def test_links_of_the_top_level_lead_to_files(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text())
            assert anchor in [_slug(heading) for heading in headings], link


def test_the_readme_is_short_and_names_what_make_has() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    pattern = r"(?m)(?:^    |`)make ([a-z-]+)"
    named = [name for page in TOP for name in re.findall(pattern, page.read_text())]
    assert {"quickstart", "test", "docs"} <= set(named) <= set(targets)


def test_the_workflow_calls_what_exists() -> None:
    files = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(files) > 3
    parsed = {file.name: yaml.safe_load(file.read_text()) for file in files}
    jobs = parsed["ci.yml"]["jobs"].values()
    called = {step["run"] for job in jobs for step in job["steps"] if "run" in step}
    assert called == {".ci/run", "make docs"}
    assert (ROOT / ".ci/run").is_file()


def test_the_lock_has_what_builds_the_site() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for name in ("mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"):
        assert f"\n{name}=={version(name)}\n" in lock


def test_the_versions_agree() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == ours
    assert f"{{{ours}}}" in (ROOT / "docs/cite.md").read_text()


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: page.name)
def test_struck_phrases_stay_out(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        prose = re.sub(r"(?s)```.*?```", "", page.read_text())
        assert SPOKEN.findall(prose) == []


def _slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
