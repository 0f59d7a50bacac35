"""Digests tell whether files, and a category's files as a whole, are the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfsc_tune.data.fingerprint import content_digest, fingerprint
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError

ENTRY = (
    '[{"defect_name": "bent", "pixel_value": 255, "saturation_threshold": 1.0, '
    '"relative_saturation": true}]'
)


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    """A category folder with masks and a defect config."""
    root = tmp_path / "data" / "nut"
    names = ["train/good/0", "train/good/1", "train/good/2", "test/good/0", "test/bent/0"]
    for value, name in enumerate([*names, "ground_truth/bent/0_mask"]):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 250 + value, np.uint8)).save(path)
    (root / "defects_config.json").write_text(ENTRY)
    return root


def digest_of(root: Path) -> str:
    return fingerprint(read_category(root.parent, root.name))


def test_a_content_digest_is_of_the_bytes(tmp_path):
    one, same, other = (tmp_path / name for name in ("1.png", "2.png", "3.png"))
    one.write_bytes(b"abc")
    same.write_bytes(b"abc")
    other.write_bytes(b"abd")
    assert content_digest(one) == content_digest(same) != content_digest(other)
    assert content_digest(one) == "cf4ab791c62b8d2b2109c90275287816"


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.png' cannot be read: No such file"):
        content_digest(tmp_path / "absent.png")


def test_a_fingerprint_does_not_depend_on_place_or_ignored_files(nut, tmp_path):
    before = digest_of(nut)
    assert len(before) == 32
    assert set(before) <= set("0123456789abcdef")
    (nut / "train" / "good" / "notes.txt").write_text("ignored")
    moved = tmp_path / "moved" / "nut"
    shutil.copytree(nut, moved)
    assert digest_of(moved) == before


@pytest.mark.parametrize(
    "name", ["train/good/1.png", "test/bent/0.png", "ground_truth/bent/0_mask.png"]
)
def test_changed_bytes_change_the_fingerprint(nut, name):
    before = digest_of(nut)
    image = np.zeros((4, 4), np.uint8)
    image[0] = 255
    Image.fromarray(image).save(nut / name)
    assert digest_of(nut) != before


def test_a_renamed_file_changes_the_fingerprint(nut):
    before = digest_of(nut)
    (nut / "train" / "good" / "1.png").rename(nut / "train" / "good" / "7.png")
    assert digest_of(nut) != before


def test_a_changed_config_changes_the_fingerprint(nut):
    before = digest_of(nut)
    (nut / "defects_config.json").write_text(ENTRY.replace("1.0", "0.5"))
    assert digest_of(nut) != before


def test_a_declared_kind_changes_the_fingerprint(nut):
    before = digest_of(nut)
    (nut / "dataset.yaml").write_text("defect_types: {bent: structural}")
    assert digest_of(nut) == before
    (nut / "dataset.yaml").write_text("defect_types: {bent: logical}")
    assert digest_of(nut) != before
