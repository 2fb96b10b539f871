"""Write Slicer's terminology files from the task files of the bundle.

    python slicer_extension/make_terminology.py [--check]

With `--check` nothing is written; the exit code tells whether the files are as they should be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "monai_bundle" / "configs" / "tasks"
FOLDER = ROOT / "slicer_extension" / "SAM2UNet" / "Resources" / "Terminology"
_SCHEMAS = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"


def files(tasks: Path = TASKS) -> dict[str, str]:
    """Return the content of each terminology file, by name."""
    classes = [
        item
        for path in sorted(tasks.glob("*.json"))
        for item in json.loads(path.read_text(encoding="utf-8"))["classes"]
    ]
    return {
        "SAM2UNet.term.json": _text(
            {
                "SegmentationCategoryTypeContextName": "SAM2-UNet",
                "@schema": f"{_SCHEMAS}segment-context-schema.json#",
                "SegmentationCodes": {"Category": _categories(classes)},
            }
        ),
        "SAM2UNet-regions.term.json": _text(
            {
                "AnatomicContextName": "SAM2-UNet regions",
                "@schema": f"{_SCHEMAS}anatomic-context-schema.json#",
                "AnatomicCodes": {"AnatomicRegion": _regions(classes)},
            }
        ),
    }


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    wrong = [name for name, text in files().items() if _held(FOLDER / name) != text]
    if "--check" in arguments:
        return 1 if wrong else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in wrong:
        (FOLDER / name).write_text(files()[name], encoding="utf-8", newline="\n")
    return 0


def _held(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _categories(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the categories with their types; a type that two tasks share is there once."""
    categories: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, Any]]] = {}
    for item in classes:
        types = categories.setdefault(tuple(item["category"]), {})
        types.setdefault(
            tuple(item["type"]), {**_code(item["type"]), "recommendedDisplayRGBValue": item["rgb"]}
        )
    return [
        {**_code(category), "showAnatomy": True, "Type": list(types.values())}
        for category, types in sorted(categories.items())
    ]


def _regions(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    regions = {tuple(item["region"]) for item in classes if item["region"]}
    return [_code(region) for region in sorted(regions)]


def _code(code: Any) -> dict[str, Any]:
    scheme, value, meaning = code
    return {"CodingSchemeDesignator": scheme, "CodeValue": value, "CodeMeaning": meaning}


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
