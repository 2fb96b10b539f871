"""Draw the layers of the package as import-linter's contracts in pyproject.toml have them.

python docs/make_layers.py [FILE]        FILE is docs/images/layers.svg by default
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

WIDTH, MARGIN, GAP = 960, 16, 8
BOX_HEIGHT, PER_ROW = 34, 5
BOX_WIDTH = (WIDTH - 2 * MARGIN - GAP) // PER_ROW - GAP
BARRED = {
    (): ("#ffffff", "no rule on torch and MONAI"),
    ("monai",): ("#e3edf8", "does not import MONAI"),
    ("torch",): ("#fbeedd", "does not import torch"),
    ("monai", "torch"): ("#e4f2e4", "imports neither torch nor MONAI"),
}
"""Fill of a module and its meaning, by what `forbidden` contracts bar it from importing."""
LIBRARIES = {library for key in BARRED for library in key}
Contract = dict[str, Any]


def draw(pyproject: Path) -> str:
    """Return the SVG of all `layers` contracts; modules are coloured by the `forbidden` ones."""
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = settings["contracts"]
    barred = _barred(contracts)
    picture = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
    picture.set("font-family", "Verdana, DejaVu Sans, sans-serif")
    ElementTree.SubElement(picture, "rect", width="100%", height="100%", fill="#ffffff")
    y = MARGIN
    for contract in (contract for contract in contracts if contract["type"] == "layers"):
        y = _title(picture, y, contract["name"])
        for modules, independent in _layers(contract):
            y = _layer(picture, y, modules, independent=independent, barred=barred)
        y += MARGIN // 2
    y = _legend(picture, y)
    picture.set("viewBox", f"0 0 {WIDTH} {y}")
    ElementTree.indent(picture)
    return ElementTree.tostring(picture, encoding="unicode") + "\n"


def _barred(contracts: list[Contract]) -> dict[str, set[str]]:
    """Return the libraries that each module must not import."""
    barred: dict[str, set[str]] = {}
    for contract in contracts:
        if contract["type"] == "forbidden":
            libraries = LIBRARIES.intersection(contract["forbidden_modules"])
            for module in contract["source_modules"]:
                barred.setdefault(module, set()).update(libraries)
    return barred


def _layers(contract: Contract) -> Iterator[tuple[list[str], bool]]:
    """Yield each layer's modules, highest first, and whether they may not import one another."""
    for container in contract.get("containers", [""]):
        for layer in contract["layers"]:
            names = re.findall(r"[\w.]+", layer)  # parentheses mark what may be missing
            yield [f"{container}.{name}".lstrip(".") for name in names], "|" in layer


def _title(picture: ElementTree.Element, y: int, text: str) -> int:
    _text(picture, MARGIN, y + 16, text, size=16, weight="bold")
    return y + 30


def _layer(
    picture: ElementTree.Element,
    y: int,
    modules: list[str],
    *,
    independent: bool,
    barred: dict[str, set[str]],
) -> int:
    """Draw one layer, its modules in rows of at most `PER_ROW`; return where it ends."""
    rows = [modules[i : i + PER_ROW] for i in range(0, len(modules), PER_ROW)]
    height = GAP + len(rows) * (BOX_HEIGHT + GAP)
    layer = _box(picture, (MARGIN, y), (WIDTH - 2 * MARGIN, height), fill="#f3f3f3")
    layer.set("stroke-dasharray", "5 4" if independent else "none")
    for line, row in enumerate(rows):
        x = (WIDTH - len(row) * (BOX_WIDTH + GAP) + GAP) // 2
        top = y + GAP + line * (BOX_HEIGHT + GAP)
        for module in row:
            fill, _ = BARRED[tuple(sorted(barred.get(module, ())))]
            _box(picture, (x, top), (BOX_WIDTH, BOX_HEIGHT), fill=fill)
            name = module.partition(".")[2]
            _text(picture, x + BOX_WIDTH // 2, top + 22, name, size=15, anchor="middle")
            x += BOX_WIDTH + GAP
    return y + height + GAP


def _legend(picture: ElementTree.Element, y: int) -> int:
    """Say what frames and fills mean; return where the legend ends."""
    for line in (
        "A module imports only from layers below its own, and from its own layer;",
        "where the layer's frame is dashed, only from layers below.",
    ):
        _text(picture, MARGIN, y + 10, line, size=13)
        y += 20
    for place, (fill, meaning) in enumerate(BARRED.values()):
        x = MARGIN + place % 2 * (WIDTH // 2)
        top = y + place // 2 * 24
        _box(picture, (x, top), (24, 16), fill=fill)
        _text(picture, x + 34, top + 13, meaning, size=13)
    return y + (len(BARRED) + 1) // 2 * 24 + MARGIN // 2


def _box(
    picture: ElementTree.Element, place: tuple[int, int], size: tuple[int, int], *, fill: str
) -> ElementTree.Element:
    x, y = place
    width, height = size
    shape = {"x": x, "y": y, "width": width, "height": height, "rx": 4}
    box = ElementTree.SubElement(picture, "rect", {key: str(value) for key, value in shape.items()})
    box.set("fill", fill)
    box.set("stroke", "#5f6f7f")
    return box


def _text(
    picture: ElementTree.Element,
    x: int,
    y: int,
    text: str,
    *,
    size: int,
    weight: str = "normal",
    anchor: str = "start",
) -> None:
    place = {"x": str(x), "y": str(y), "font-size": str(size)}
    style = {"font-weight": weight, "text-anchor": anchor}
    ElementTree.SubElement(picture, "text", place | style).text = text


def main(file: Path) -> None:
    """Write the picture to `file`."""
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    file.write_text(draw(pyproject), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images/layers.svg")
