"""Third-party files are the ones the manifests describe, and no page asks another host, or a file that is not there, for anything."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "static"
VENDORED = [STATIC / "vendor", ROOT / "tests" / "browser" / "vendor"]

# What makes a browser load something: an attribute, a style, an import or a request, and then an address with a host. Plain links load nothing.
ELSEWHERE = re.compile(
    r"""(?:\b(?:src|srcset|href|poster|data|action|hx-\w+)\s*=|url\(|@import|\bimport\b|\bfrom|\b(?:fetch|Worker|EventSource)\()"""
    r"""\s*\(?\s*["'`]?\s*(?:https?:)?//""",
    re.IGNORECASE,
)
LINK = re.compile(r"<a\s[^>]*>")
STATIC_FILE = re.compile(r"""\bstatic\(\s*["']([^"']+)["']""")
STYLE_FILE = re.compile(r"""url\(\s*["']?(?!data:|#)([^"')]+)""")


def faults(directory: Path) -> list[str]:
    """What is wrong between a directory and its MANIFEST.json."""
    entries = json.loads((directory / "MANIFEST.json").read_text())
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    listed = {entry["file"] for entry in entries} | {file for entry in entries for file in entry["licence_files"]} | {"MANIFEST.json"}
    found = [f"{file} is not listed" for file in sorted(present - listed)] + [f"{file} is missing" for file in sorted(listed - present)]
    for entry in entries:
        if not entry["licence"] or not entry["licence_files"]:
            found.append(f"{entry['file']} has no licence")
        if entry["file"] in present:
            content = (directory / entry["file"]).read_bytes()
            if (len(content), sha256(content).hexdigest()) != (entry["bytes"], entry["sha256"]):
                found.append(f"{entry['file']} is another file than the one listed")
    return found


def asked_elsewhere(text: str) -> list[str]:
    return ELSEWHERE.findall(LINK.sub("", text))


def our_files(*suffixes: str) -> list[Path]:
    """Templates and static files that we wrote."""
    files = [path for directory in (ROOT / "templates", STATIC) for path in directory.rglob("*") if path.suffix in suffixes]
    return [path for path in files if STATIC / "vendor" not in path.parents]


@pytest.mark.parametrize("directory", VENDORED, ids=["shipped", "for tests"])
def test_every_vendored_file_is_the_one_its_manifest_lists(directory: Path) -> None:
    assert faults(directory) == []


@pytest.mark.parametrize("directory", VENDORED, ids=["shipped", "for tests"])
def test_only_what_is_shipped_says_so(directory: Path) -> None:
    entries = json.loads((directory / "MANIFEST.json").read_text())
    assert {entry["shipped"] for entry in entries} == {directory == STATIC / "vendor"}


def test_a_changed_a_strange_and_a_missing_file_are_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "vendor"
    shutil.copytree(STATIC / "vendor", copy)
    script, licence = next(copy.glob("htmx-*/htmx.min.js")), copy / "LICENSES" / "uplot-LICENSE"
    script.write_bytes(script.read_bytes() + b" ")
    (copy / "strange.js").touch()
    licence.unlink()
    name = script.relative_to(copy).as_posix()
    assert faults(copy) == ["strange.js is not listed", "LICENSES/uplot-LICENSE is missing", f"{name} is another file than the one listed"]


def test_the_vendored_versions_are_those_of_package_json() -> None:
    wanted = json.loads((ROOT / "tools" / "vendor" / "package.json").read_text())
    entries = [entry for directory in VENDORED for entry in json.loads((directory / "MANIFEST.json").read_text())]
    versions = {entry["name"]: entry["version"] for entry in entries}
    assert sorted(versions.values()) == sorted([*wanted["dependencies"].values(), *wanted["devDependencies"].values()])


def test_no_page_asks_another_host_for_anything() -> None:
    asking = {str(path.relative_to(ROOT)): asked_elsewhere(path.read_text()) for path in our_files(".html", ".css", ".js", ".svg")}
    assert asking, "there are pages"
    assert {path: found for path, found in asking.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js">',
        "<img src='//cdn.example/x.png'>",
        '<link rel="stylesheet" href=http://cdn.example/x.css>',
        "a { background: url( 'https://cdn.example/x.png' ) }",
        '@import "https://cdn.example/x.css";',
        "import { x } from 'https://cdn.example/x.js'",
        'await import("https://cdn.example/x.js")',
        'fetch("https://cdn.example/x")',
        '<use href="https://cdn.example/icons.svg#x"/>',
    ],
)
def test_a_resource_of_another_host_is_recognised(text: str) -> None:
    assert asked_elsewhere(text)


@pytest.mark.parametrize(
    "text",
    [
        '<svg xmlns="http://www.w3.org/2000/svg">',
        "document.createElementNS('http://www.w3.org/2000/svg', 'g')",
        '<a href="https://lucide.dev">Lucide</a>',
        "import { x } from './x.js' // ours",
    ],
)
def test_name_spaces_and_links_are_no_resources(text: str) -> None:
    assert not asked_elsewhere(text)


def test_every_static_file_that_a_template_names_exists() -> None:
    named = {match for path in our_files(".html") for match in STATIC_FILE.findall(path.read_text())}
    assert named, "templates name static files"
    assert {name for name in named if not (STATIC / name).is_file()} == set()


def test_every_file_that_a_style_sheet_names_exists() -> None:
    named = {(path, match) for path in our_files(".css") for match in STYLE_FILE.findall(path.read_text())}
    assert named, "style sheets name fonts"
    assert {match for path, match in named if not (path.parent / match).is_file()} == set()


def test_every_icon_that_a_template_names_is_in_the_sprite() -> None:
    sprite = next((STATIC / "vendor").glob("icons-*/icons.svg")).read_text()
    named = {match for path in our_files(".html") for match in re.findall(r"""\bicon\(\s*["']([\w-]+)["']""", path.read_text())}
    assert named, "templates name icons"
    assert {name for name in named if f'id="{name}"' not in sprite} == set()
