"""The committed digits, and how one is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lattice.cli import demo_digits
from lattice.cli.demo import play
from lattice.cli.demo_processes import Processes
from lattice.cli.demo_screen import Screen
from lattice.cli.output import console
from lattice.core.errors import LatticeError


def blob() -> np.ndarray:
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 4:7, 10:13] = [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    return image


def test_a_picture_is_cropped_to_its_ink_and_has_half_the_lines() -> None:
    assert demo_digits.picture(blob(), "is") == ["█▄▀", "  ▀", "is "]


def test_a_caption_wider_than_the_ink_widens_the_picture() -> None:
    assert demo_digits.picture(blob(), "says 7") == ["█▄▀   ", "  ▀   ", "says 7"]


@pytest.mark.parametrize(("width", "lines"), [(80, 3), (9, 3), (8, 6)])
def test_pictures_stand_beside_each_other_as_far_as_the_terminal_is_wide(width: int, lines: int) -> None:
    drawn = demo_digits.side_by_side([demo_digits.picture(blob(), "is")] * 2, width)
    assert len(drawn) == lines
    assert max(map(len, drawn)) <= width


def test_pictures_of_unequal_height_are_aligned_at_their_captions() -> None:
    flat = np.zeros((1, 28, 28), np.float32)
    flat[0, 5, 3:6] = 1
    drawn = demo_digits.side_by_side([demo_digits.picture(flat, "a"), demo_digits.picture(blob(), "b")], 80)
    assert drawn == ["      █▄▀", "▀▀▀     ▀", "a     b"]


def test_the_committed_digits_are_images_that_the_model_takes() -> None:
    for name, count in (("calibration", 200), ("digits", 20)):
        digits = demo_digits.read(name)
        assert digits.x.shape == (count, 1, 28, 28)
        assert digits.x.min() == 0
        assert digits.x.max() == 1
        assert digits.y.shape == (count,)
        assert set(digits.y.tolist()) <= set(range(10))
    inked = demo_digits.read("calibration").x.max(axis=0) > 0
    assert not ((demo_digits.read("digits").x > 0) & ~inked).any(), "the compiler would warn of these"


def test_an_act_that_cannot_be_played_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_digits, "FOLDER", tmp_path)
    with Processes(tmp_path) as processes, pytest.raises(LatticeError, match="clone") as caught:
        play(processes, Screen(console()), "encrypted")
    assert caught.value.code == "backend_unavailable"
    assert not list(tmp_path.iterdir())


def test_a_clone_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_digits.why_not() is None
    monkeypatch.setattr(demo_digits, "FOLDER", demo_digits.FOLDER / "elsewhere")
    assert "clone" in str(demo_digits.why_not())
