"""Write `configs/train.json` and `configs/inference.json` from the YAML of the same name.

`monai.bundle.load` reads only `configs/<workflow>.json`; people edit the YAML.
    python monai_bundle/scripts/write_json.py
"""

import json
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Write both files."""
    for name in ("train", "inference"):
        content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
        text = json.dumps(content, indent=2) + "\n"
        (CONFIGS / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
