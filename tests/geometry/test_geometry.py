"""Geometry of frames: LPS, mm, one position each; irregular stacks are named, not averaged."""

from __future__ import annotations

import numpy as np
import pytest

from sam2unet_core.errors import GeometryError
from sam2unet_core.geometry import Geometry

AXIAL = {"row_cosine": (1, 0, 0), "column_cosine": (0, 1, 0), "spacing_mm": (0.5, 0.25)}


def at(*heights: float) -> Geometry:
    return Geometry(positions=[(10, 20, z) for z in heights], **AXIAL)  # type: ignore[arg-type]


def test_the_column_index_moves_by_the_column_pitch_along_the_row_cosine() -> None:
    oblique = Geometry(
        positions=[(1, 2, 3), (1, 2, 7)],  # type: ignore[arg-type]
        row_cosine=(0, -1, 0),  # type: ignore[arg-type]
        column_cosine=(1, 0, 0),  # type: ignore[arg-type]
        spacing_mm=(0.5, 0.25),
    )
    by_hand = [[0, 0.5, 0, 1], [-0.25, 0, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(oblique.affine(), by_hand)


def test_an_even_stack_is_regular_in_both_directions() -> None:
    assert at(0, 3, 6).regular
    assert at(6, 3, 0).regular
    np.testing.assert_allclose(at(6, 3, 0).affine()[:3, 2], (0, 0, -3))


def test_rounded_positions_still_are_an_even_stack() -> None:
    assert at(0, 0.67, 1.33, 2.0, 2.67, 3.33).regular


def test_a_missing_slice_is_named_and_no_affine_is_given() -> None:
    geometry = at(0, 3, 6, 12, 15)
    assert geometry.missing_slices == 1
    assert geometry.problems == ("1 slice missing",)
    with pytest.raises(GeometryError, match="1 slice missing"):
        geometry.affine()


def test_one_missing_slice_among_two_hundred_is_seen() -> None:
    heights = [z for z in range(200) if z != 57]
    assert at(*heights).missing_slices == 1
    assert not at(*heights).regular


def test_two_spacings_are_uneven_and_not_missing_slices() -> None:
    geometry = at(0, 4, 8, 15, 22)
    assert geometry.missing_slices == 0
    assert geometry.problems == ("uneven spacing (4 to 7 mm)",)


def test_time_frames_at_one_place_are_not_taken_for_slices() -> None:
    geometry = at(5, 5, 5)
    assert geometry.repeated
    with pytest.raises(GeometryError, match="several frames at one position"):
        geometry.affine()


def test_a_tilted_gantry_is_a_sheared_stack_not_an_upright_one() -> None:
    # Frames rise straight up while their planes lean by atan(3/4): 36.87 degrees.
    tilted = Geometry(
        positions=[(0, 0, z) for z in (0, 5, 10)],  # type: ignore[arg-type]
        row_cosine=(1, 0, 0),  # type: ignore[arg-type]
        column_cosine=(0, 0.8, -0.6),  # type: ignore[arg-type]
        spacing_mm=(1, 1),
    )
    assert tilted.tilted
    assert not tilted.uneven
    assert not tilted.regular
    assert tilted.tilt_degrees == pytest.approx(36.8699, abs=1e-3)
    with pytest.raises(GeometryError, match=r"tilted by 36\.9 degrees"):
        tilted.affine()
    np.testing.assert_allclose(tilted.affine(shear=True)[:3, 2], (0, 0, 5))


def test_a_single_frame_steps_by_its_thickness() -> None:
    single = Geometry(positions=[(0, 0, 0)], thickness_mm=2.5, **AXIAL)  # type: ignore[arg-type]
    np.testing.assert_allclose(single.affine()[:3, 2], (0, 0, 2.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_cosine": (1, 1, 0)}, "orthogonal unit vectors"),
        ({"column_cosine": (0.6, 0.8, 0)}, "orthogonal unit vectors"),
        ({"spacing_mm": (0.5, 0)}, "above 0"),
        ({"positions": []}, r"expected \(N, 3\)"),
        ({"positions": [(0, 0, float("nan"))]}, "orthogonal unit vectors|finite"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Geometry(**({"positions": [(0, 0, 0)]} | AXIAL | change))  # type: ignore[arg-type]
