"""Copy the front end's third-party files out of node_modules into the places they are committed, and write down what each one is.

Only who changes a version needs npm. In this directory: `npm ci --ignore-scripts && python copy_files.py`, then commit what changed.
What is copied, and under which name, is the table below; nothing is minified, bundled or edited, except that the icons become one file.
Which icons is icons.txt, one to a line: the name we draw it by, and after `=` the name Lucide has given it since, where that is another.
"""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Package:
    """One npm package: our short name for it, its licence as SPDX writes it, what is taken, and where its licence is told."""

    npm: str
    name: str
    licence: str
    files: tuple[str, ...] = ()
    licence_files: tuple[str, ...] = ("LICENSE",)

    @property
    def source(self) -> Path:
        return HERE / "node_modules" / self.npm

    @property
    def version(self) -> str:
        """The installed version, which is the one package.json asks for."""
        installed: str = json.loads((self.source / "package.json").read_text())["version"]
        wanted = json.loads((HERE / "package.json").read_text())
        if installed != {**wanted["dependencies"], **wanted["devDependencies"]}[self.npm]:
            raise SystemExit(f"{self.npm} {installed} is not the version in package.json; run npm ci --ignore-scripts.")
        return installed


ICONS = Package("lucide-static", "icons", "ISC AND MIT")
SHIPPED = (
    Package("htmx.org", "htmx", "0BSD", ("dist/htmx.min.js",)),
    Package("uplot", "uplot", "MIT", ("dist/uPlot.iife.min.js", "dist/uPlot.min.css")),
    Package("ansi_up", "ansi_up", "MIT", ("ansi_up.js",)),
    Package("@fontsource-variable/ibm-plex-sans", "ibm-plex-sans", "OFL-1.1", ("files/ibm-plex-sans-latin-wght-normal.woff2",)),
    Package(
        "@fontsource/ibm-plex-mono",
        "ibm-plex-mono",
        "OFL-1.1",
        ("files/ibm-plex-mono-latin-400-normal.woff2", "files/ibm-plex-mono-latin-600-normal.woff2"),
    ),
    ICONS,
)
FOR_TESTS = (Package("axe-core", "axe-core", "MPL-2.0", ("axe.min.js",), ("LICENSE", "LICENSE-3RD-PARTY.txt")),)

STROKE_WIDTH = "1.75"  # of 24; Lucide's own 2 looks heavy beside 13 px text


def copy_files(package: Package, directory: Path) -> list[Path]:
    """Copy the package's files into the directory, without their folders."""
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(package.source / file, directory / Path(file).name)) for file in package.files]


def copy_licences(package: Package, directory: Path) -> list[Path]:
    """Copy the package's licences as `<name>-<file>`, so that they can lie side by side."""
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(package.source / file, directory / f"{package.name}-{file}")) for file in package.licence_files]


def symbol(line: str) -> ET.Element:
    """One line of icons.txt as a `<symbol>` that is drawn in the text's colour. Width, height and class are left to the page."""
    name, _, new_name = line.partition(" = ")
    icon = ET.parse(ICONS.source / "icons" / f"{new_name or name}.svg").getroot()
    kept = {key: icon.attrib[key] for key in ("viewBox", "fill", "stroke", "stroke-linecap", "stroke-linejoin")}
    element = ET.Element(f"{{{SVG}}}symbol", {"id": name, **kept, "stroke-width": STROKE_WIDTH})
    element.extend(icon)
    return element


def write_sprite(directory: Path) -> list[Path]:
    """Write icons.svg, from which a page draws one icon with `<svg><use href="...icons.svg#name"/></svg>`."""
    directory.mkdir(parents=True, exist_ok=True)
    ET.register_namespace("", SVG)
    sprite = ET.Element(f"{{{SVG}}}svg")
    sprite.append(ET.Comment(f" Icons of Lucide {ICONS.version}, {ICONS.licence}, see LICENSES "))
    sprite.extend(symbol(line) for line in (HERE / "icons.txt").read_text().splitlines())
    ET.indent(sprite, "")
    file = directory / "icons.svg"
    file.write_text(ET.tostring(sprite, encoding="unicode") + "\n")
    return [file]


def describe(file: Path, package: Package, licences: list[Path], *, top: Path, shipped: bool) -> dict[str, object]:
    """The manifest's entry for one file; paths are relative to the manifest."""
    content = file.read_bytes()
    return {
        "name": package.name,
        "version": package.version,
        "licence": package.licence,
        "licence_files": [licence.relative_to(top).as_posix() for licence in licences],
        "file": file.relative_to(top).as_posix(),
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "shipped": shipped,
    }


def vendor(packages: tuple[Package, ...], top: Path, *, shipped: bool) -> None:
    """Replace everything in this directory by the packages' files, their licences and MANIFEST.json.

    What is shipped lies in a folder per version, so that an address never changes its content.
    """
    shutil.rmtree(top, ignore_errors=True)
    entries = []
    for package in packages:
        directory = top / f"{package.name}-{package.version}" if shipped else top
        files = write_sprite(directory) if package is ICONS else copy_files(package, directory)
        licences = copy_licences(package, top / "LICENSES")
        entries += [describe(file, package, licences, top=top, shipped=shipped) for file in files]
    (top / "MANIFEST.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    vendor(SHIPPED, ROOT / "static" / "vendor", shipped=True)
    vendor(FOR_TESTS, ROOT / "tests" / "browser" / "vendor", shipped=False)
