"""The published schema of the worker's lines: a client of another language is written from it.

`conftest.py` holds every line of the other tests against it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sam2unet_core import protocol
from sam2unet_core.inference.runtimes import RUNTIME_NAMES
from sam2unet_core.worker import fields


@pytest.fixture
def schema(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "docs" / "worker.schema.json").read_text(encoding="utf-8"))


def test_it_is_a_schema_with_every_word_of_the_protocol(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    words = schema["$defs"]
    assert tuple(words["requests"]) == tuple(words["results"]) == protocol.OPERATIONS
    assert set(words["events"]) == protocol.TERMINAL | {"progress", "partial"}
    assert tuple(words["events"]["failed"]["properties"]["kind"]["enum"]) == protocol.FAILURE_KINDS
    assert tuple(words["array"]["properties"]["dtype"]["enum"]) == protocol.DTYPES
    assert words["array"]["properties"]["shape"]["maxItems"] == protocol.MAX_DIMENSIONS
    assert words["id"]["maximum"] == protocol.MAX_ID
    assert tuple(words["load"]["properties"]["runtime"]["enum"]) == (*RUNTIME_NAMES, None)
    segment = words["requests"]["segment"]["properties"]
    assert tuple(segment["plane"]["enum"]) == (*fields.PLANES, None)
    assert segment["smoothing_px"]["maximum"] == fields.MAX_SMOOTHING_PX
    assert segment["min_area_px"]["maximum"] == fields.MAX_AREA_PX
    assert words["frames"]["maxItems"] == fields.MAX_FRAMES
    assert words["path_input"]["properties"]["path"]["maxLength"] == fields.MAX_TEXT


@pytest.mark.parametrize(
    "name", ["a.raw", "A-b_c.0", ".a", "a.", "../a", "a/b", "\u00e4", "", "a\n"]
)
def test_file_names_are_those_of_the_protocol(name: str, schema: dict[str, Any]) -> None:
    of_name = {**schema, "oneOf": [{"$ref": "#/$defs/file_name"}]}
    assert jsonschema.Draft202012Validator(of_name).is_valid(name) == protocol.is_safe_basename(
        name
    )
