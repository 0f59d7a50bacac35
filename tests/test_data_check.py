"""The check of image folders: counts, sizes, problems that must be mended, and notes."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dfsc_tune.data.check import CategoryCheck, ImageCount, SizeCount, check_category, check_data
from dfsc_tune.errors import UserError
from tests.support.commands import invoke
from tests.support.trays import CATEGORY, make_tray

NOISE = np.random.default_rng(0)


def write_image(path: Path, array: np.ndarray | None = None) -> Path:
    """Writes `array` or, so that no two files are the same by chance, coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = NOISE.integers(1, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise if array is None else array).save(path)
    return path


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    """The folder of a category that gives neither problem nor note."""
    root = tmp_path / "nut"
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for index in range(count):
            write_image(root / split / "good" / f"{index}.png")
    write_image(root / "test" / "bent" / "0.png")
    write_image(root / "ground_truth" / "bent" / "0_mask.png", np.eye(6, 8, dtype=np.uint8))
    (root / "dataset.yaml").write_text("defect_types: {bent: logical}")
    return root


def check(root: Path) -> CategoryCheck:
    return check_category(root.parent, root.name)


def test_a_clean_category(nut):
    assert check(nut) == CategoryCheck(
        name="nut",
        layout="mvtec_ad",
        counts=(
            ImageCount("train", "good", "good", 4),
            ImageCount("validation", "good", "good", 2),
            ImageCount("test", "good", "good", 2),
            ImageCount("test", "logical", "bent", 1),
        ),
        sizes=(SizeCount(6, 8, 9),),
        problems=(),
        notes=(),
    )


def test_all_or_named_categories(nut):
    for index in range(3):
        write_image(nut.parent / "bolt" / "train" / "good" / f"{index}.png")
    assert [one.name for one in check_data(nut.parent)] == ["bolt", "nut"]
    assert [one.name for one in check_data(nut.parent, ["nut"])] == ["nut"]
    with pytest.raises(UserError, match="No category 'cap'"):
        check_data(nut.parent, ["nut", "cap"])


def test_held_out_images_count_as_validation(nut):
    for path in (nut / "validation" / "good").iterdir():
        path.unlink()
    found = check(nut)
    assert found.counts[:2] == (
        ImageCount("train", "good", "good", 3),
        ImageCount("validation", "good", "good", 1),
    )
    assert any("held out" in note for note in found.notes)
    assert "folder 'validation/good' has no images" in found.notes


def test_sizes_most_frequent_first(nut):
    write_image(nut / "train" / "good" / "9.png", np.zeros((3, 5, 3), np.uint8))
    assert check(nut).sizes == (SizeCount(6, 8, 9), SizeCount(3, 5, 1))


def test_broken_files_are_problems_and_all_are_found(nut):
    for name in ("train/good/1.png", "test/bent/0.png"):
        (nut / name).write_bytes((nut / name).read_bytes()[:50])
    first, second = check(nut).problems
    assert "train/good/1.png" in first
    assert "test/bent/0.png" in second


def test_a_link_to_nothing_is_a_problem(nut):
    (nut / "train" / "good" / "moved.png").symlink_to(nut / "nowhere.png")
    (problem,) = check(nut).problems
    assert "moved.png" in problem


def test_a_broken_mask_is_told_once(nut):
    (nut / "defects_config.json").write_text(
        '[{"defect_name": "bent", "pixel_value": 1, "saturation_threshold": 1.0, '
        '"relative_saturation": true}]'
    )
    assert check(nut).problems == ()
    (nut / "ground_truth" / "bent" / "0_mask.png").write_bytes(b"")
    (problem,) = check(nut).problems
    assert "0_mask.png" in problem


def test_a_mask_of_another_size_is_a_problem(nut):
    write_image(nut / "ground_truth" / "bent" / "0_mask.png", np.eye(5, dtype=np.uint8))
    (problem,) = check(nut).problems
    assert "is 5×5 pixels" in problem


def test_a_duplicate_between_splits_is_a_problem(nut):
    (nut / "test" / "good" / "1.png").write_bytes((nut / "train/good/0.png").read_bytes())
    (problem,) = check(nut).problems
    assert "keep one of 'train/good/0.png', 'test/good/1.png'" in problem


def test_an_image_both_good_and_defective_is_a_problem(nut):
    (nut / "test" / "good" / "1.png").write_bytes((nut / "test/bent/0.png").read_bytes())
    assert len(check(nut).problems) == 1


def test_a_duplicate_within_a_split_is_a_note(nut):
    (nut / "train" / "good" / "1.png").write_bytes((nut / "train/good/0.png").read_bytes())
    found = check(nut)
    assert found.problems == ()
    assert found.notes == ("the same image occurs 2 times: 'train/good/0.png', 'train/good/1.png'",)


def test_missing_masks_are_a_note(nut):
    write_image(nut / "test" / "bent" / "1.png")
    (note,) = check(nut).notes
    assert note.startswith("1 of 2 images in 'test/bent' have no mask, such as 'test/bent/1.png'")


def test_a_mask_without_image_is_a_note(nut):
    write_image(nut / "ground_truth" / "bent" / "7_mask.png")
    (note,) = check(nut).notes
    assert "'ground_truth/bent/7_mask.png' is not read: no anomalous test image" in note


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.full((6, 8, 4), 200, np.uint8), ["transparency"]),
        (np.full((6, 8), 200, np.uint8), ["grey, while the others are in colour"]),
        (np.full((6, 8), 60_000, np.uint16), ["16-bit", "grey, while"]),
        (np.full((6, 8), 4_095, np.uint16), ["16-bit", "decode dark", "grey, while"]),
    ],
)
def test_odd_pixels_are_notes(nut, array, told):
    write_image(nut / "train" / "good" / "0.png", array)
    found = check(nut)
    assert found.problems == ()
    assert len(found.notes) == len(told)
    for note, part in zip(found.notes, told, strict=True):
        assert part in note


def test_cmyk_is_a_note(nut):
    Image.new("CMYK", (8, 6), (10, 200, 0, 0)).save(nut / "train" / "good" / "5.jpg")
    assert any("CMYK" in note for note in check(nut).notes)


def test_float_pixels_are_a_problem(nut):
    write_image(nut / "train" / "good" / "5.tif", np.zeros((6, 8), np.float32))
    (problem,) = check(nut).problems
    assert "mode F" in problem


def write_deep_png(path: Path, values: np.ndarray) -> None:
    """Writes 16-bit colours (H, W, 3), which Pillow reads and does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("top", "is_dark"), [(4_095, True), (65_535, False)])
def test_twelve_bits_of_colour_in_sixteen_are_a_note(nut, suffix, top, is_dark):
    values = NOISE.integers(0, top, (6, 8, 3), dtype=np.uint16, endpoint=True)
    path = nut / "train" / "good" / f"5.{suffix}"
    if suffix == "png":
        write_deep_png(path, values)
    else:
        tifffile.imwrite(path, values, photometric="rgb")
    found = check(nut)
    assert found.problems == ()
    notes = [note for note in found.notes if "decode dark" in note]
    assert len(notes) == len(found.notes) == int(is_dark)
    assert all(f"1 of 10 images, such as 'train/good/5.{suffix}'," in note for note in notes)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_pages_after_the_first_are_a_note(nut, suffix):
    first, second = (Image.fromarray(NOISE.integers(1, 256, (6, 8, 3), np.uint8)) for _ in "ab")
    path = nut / "train" / "good" / f"5.{suffix}"
    first.save(path, save_all=True, append_images=[second])
    (note,) = check(nut).notes
    assert f"1 of 10 images, such as 'train/good/5.{suffix}', hold more than one page" in note


def white_box(size: int = 64) -> np.ndarray:
    """A mask of 100 pixels."""
    mask = np.zeros((size, size), np.uint8)
    mask[20:30, 21:31] = 255
    return mask


def masked_nut(nut: Path, mask: np.ndarray, name: str = "0_mask.png") -> CategoryCheck:
    noise = NOISE.integers(1, 256, (*mask.shape, 3), dtype=np.uint8)
    write_image(nut / "test" / "bent" / "0.png", noise)
    (nut / "ground_truth" / "bent" / "0_mask.png").unlink()
    write_image(nut / "ground_truth" / "bent" / name, mask)
    return check(nut)


def test_a_clean_mask_gives_no_note(nut):
    assert masked_nut(nut, white_box()).notes == ()


def test_a_lossy_mask_is_a_note(nut):
    (note,) = masked_nut(nut, white_box(), "0_mask.jpg").notes
    assert note.startswith(
        "1 of 1 masks, such as 'ground_truth/bent/0_mask.jpg', hold several values above zero"
    )


def test_an_inverted_mask_is_a_note(nut):
    (note,) = masked_nut(nut, 255 - white_box()).notes
    assert "mark more than half of the image: if they are inverted" in note


def test_pages_of_a_mask_are_a_note(nut):
    (nut / "ground_truth" / "bent" / "0_mask.png").unlink()
    pages = [Image.fromarray(np.eye(6, 8, k, dtype=np.uint8)) for k in (0, 1)]
    path = nut / "ground_truth" / "bent" / "0_mask.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    (note,) = check(nut).notes
    assert "1 of 1 masks" in note
    assert "more than one page" in note


def test_images_that_share_a_mask_are_named(nut):
    write_image(nut / "test" / "bent" / "0.bmp")
    (note,) = check(nut).notes
    assert note.startswith(
        "'test/bent/0.bmp' and 'test/bent/0.png' share the mask 'ground_truth/bent/0_mask.png'"
    )


def test_folders_that_lead_back_are_looked_at_once(nut):
    bent = nut / "ground_truth" / "bent"
    (bent / "again").symlink_to(nut / "ground_truth")
    (nut / "ground_truth" / "a_second_name").symlink_to(bent)
    assert check(nut).notes == ()
    for index in range(3):
        write_image(bent / f"{7 + index}_mask.png")
    (note,) = check(nut).notes
    assert "3 files in 'ground_truth/" in note


def test_misplaced_are_notes(nut):
    (nut / "train" / "good" / "Thumbs.db").write_bytes(b"")
    for name in ("1.HEIC", "2.heic"):
        (nut / "train" / "good" / name).write_bytes(b"")
    write_image(nut / "train" / "bad" / "0.png")
    write_image(nut / "test" / "loose.png")
    write_image(nut / "test" / "bent" / "more" / "0.png")
    notes = " | ".join(check(nut).notes)
    for part in (
        "'train/good/Thumbs.db' is not read",
        "2 files in 'train/good', such as '1.HEIC', are not read: save photographs",
        "'train/bad' is not read",
        "'test/loose.png' is not read: images belong one folder lower",
        "folders inside 'test/bent', such as 'more'",
    ):
        assert part in notes


def test_an_empty_folder_is_a_note(nut):
    (nut / "test" / "scratch").mkdir()
    assert "folder 'test/scratch' has no images" in check(nut).notes


def test_no_good_test_images_is_a_problem(nut):
    for path in (nut / "test" / "good").iterdir():
        path.unlink()
    (problem,) = check(nut).problems
    assert "no good ones" in problem


def test_no_training_images_is_a_problem_and_the_rest_is_still_checked(nut):
    for path in (nut / "train" / "good").iterdir():
        path.unlink()
    (nut / "test" / "good" / "0.png").write_bytes(b"")
    first, second = check(nut).problems
    assert "no good training images" in first
    assert "test/good/0.png" in second


def test_a_wrong_declaration_is_a_problem(nut):
    (nut / "dataset.yaml").write_text("kinds: {}")
    found = check(nut)
    assert found.layout is None
    assert len(found.problems) == 1


@pytest.mark.parametrize("name", ["dataset.yaml", "defects_config.json"])
@pytest.mark.parametrize(
    "put",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("moved"),
        lambda path: path.write_text("[" * 600),
        lambda path: path.write_bytes(b"\xff"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_a_problem_never_passed_over(nut, name, put):
    (nut / name).unlink(missing_ok=True)
    put(nut / name)
    (problem,) = check(nut).problems
    assert name in problem


@pytest.mark.parametrize("split", ["validation", "test", "ground_truth"])
def test_a_split_that_links_to_nothing_is_a_problem(nut, split):
    shutil.rmtree(nut / split)
    (nut / split).symlink_to("unplugged")
    (problem,) = check(nut).problems
    assert f"{split}' is a broken link" in problem


@pytest.mark.parametrize("name", ["--help", "a\nnext: rm"])
def test_the_suggested_search_names_any_category(tmp_path, name):
    make_tray(tmp_path / "data" / "made").rename(tmp_path / "all")
    (tmp_path / "all" / CATEGORY).rename(tmp_path / "all" / name)
    checked = invoke("data", "check", tmp_path / "all")
    (told,) = (line for line in checked.stderr.splitlines() if line.startswith("next: "))
    assert "--category=" in told
    assert told.rstrip("'").endswith(name.replace("\n", "\\n"))
