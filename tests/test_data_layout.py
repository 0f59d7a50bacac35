"""Reading folders of both layouts: splits, kinds, defect types, masks, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfsc_tune.data.layout import find_categories, list_category, read_category
from dfsc_tune.data.masks import read_masks
from dfsc_tune.errors import UserError
from dfsc_tune.reference import CATEGORIES

DEFECTS_CONFIGS = Path(__file__).parent / "assets" / "defects_config"

ENTRIES = [
    {
        "defect_name": "missing_screw",
        "pixel_value": 255,
        "saturation_threshold": 20,
        "relative_saturation": False,
    },
    {
        "defect_name": "scratch",
        "pixel_value": 254,
        "saturation_threshold": 0.5,
        "relative_saturation": True,
    },
]


def write_image(path: Path, value: int = 0, shape: tuple[int, ...] = (6, 8), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path, **options)
    return path


def write_mask(path: Path, value: int = 255, shape: tuple[int, int] = (6, 8)) -> Path:
    marked = np.zeros(shape, np.uint8)
    marked[:2, :3] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marked).save(path)
    return path


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    """A data folder with one category, "bag", of the MVTec LOCO layout."""
    bag = tmp_path / "bag"
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for index in range(count):
            write_image(bag / split / "good" / f"{index:03}.png", index)
    for kind, value in (("logical", 255), ("structural", 254)):
        write_image(bag / "test" / f"{kind}_anomalies" / "000.png")
        write_mask(bag / "ground_truth" / f"{kind}_anomalies" / "000" / "000.png", value)
    write_mask(bag / "ground_truth" / "logical_anomalies" / "000" / "001.png", 254)
    (bag / "defects_config.json").write_text(json.dumps(ENTRIES))
    return tmp_path


@pytest.fixture
def mvtec_ad(tmp_path: Path) -> Path:
    """A data folder with one category, "nut", of the MVTec AD layout."""
    nut = tmp_path / "nut"
    for index in range(20):
        write_image(nut / "train" / "good" / f"{index:03}.png", index)
    write_image(nut / "test" / "good" / "000.png")
    for defect_type in ("bent", "no_thread"):
        write_image(nut / "test" / defect_type / "000.jpg")
        write_mask(nut / "ground_truth" / defect_type / "000_mask.png")
    return tmp_path


def kinds(data: Path, name: str = "nut") -> dict[str, str]:
    return {record.defect_type: record.kind for record in read_category(data, name).test}


class TestFindCategories:
    def test_a_category_has_a_train_good_inside(self, tmp_path):
        for name in ("line10", "line2", ".hidden"):
            (tmp_path / name / "train" / "good").mkdir(parents=True)
        (tmp_path / "pairs").mkdir()
        write_image(tmp_path / "photo.png")
        assert find_categories(tmp_path) == ("line2", "line10")

    def test_missing_folder(self, tmp_path):
        with pytest.raises(UserError, match=r"Data folder .*absent' does not exist"):
            find_categories(tmp_path / "absent")

    def test_a_file_is_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="is not a folder"):
            find_categories(write_image(tmp_path / "photo.png"))

    def test_no_category_says_what_is_expected(self, tmp_path):
        with pytest.raises(UserError, match=r"No category .*<category>/train/good"):
            find_categories(tmp_path)

    @pytest.mark.parametrize("folder", [".", "good", "nut/train"])
    def test_no_category_says_where_images_lie_instead(self, tmp_path, folder):
        write_image(tmp_path / folder / "0.png")
        with pytest.raises(UserError, match=f"Images lie in '{tmp_path / folder}' instead"):
            find_categories(tmp_path)

    def test_a_category_itself_says_to_give_its_parent(self, loco, monkeypatch):
        with pytest.raises(UserError, match=f"'{loco}' and --category bag"):
            find_categories(loco / "bag")
        monkeypatch.chdir(loco / "bag")
        with pytest.raises(UserError, match=f"'{loco}' and --category bag"):
            find_categories(Path())


class TestLoco:
    def test_splits_names_and_kinds(self, loco):
        bag = read_category(loco, "bag")
        assert (bag.name, bag.root, bag.layout, bag.notes) == ("bag", loco / "bag", "loco", ())
        assert [len(split) for split in bag.splits.values()] == [4, 2, 4]
        assert [(r.name, r.kind, r.defect_type) for r in bag.test] == [
            ("test/good/000.png", "good", "good"),
            ("test/good/001.png", "good", "good"),
            ("test/logical_anomalies/000.png", "logical", "missing_screw"),
            ("test/structural_anomalies/000.png", "structural", "scratch"),
        ]
        assert all(record.path == bag.root / record.name for record in bag.records)

    def test_one_mask_a_file_with_the_entry_of_its_value(self, loco):
        bag = read_category(loco, "bag")
        first, second = read_masks(bag.test[2], bag, (6, 8))
        assert (first.name, first.saturation_threshold, first.relative_saturation) == (
            "missing_screw",
            20.0,
            False,
        )
        assert (second.name, second.saturation_threshold, second.relative_saturation) == (
            "scratch",
            0.5,
            True,
        )
        assert first.mask.dtype == np.bool_
        assert first.mask.shape == (6, 8)
        assert first.mask.sum() == 6

    def test_good_images_have_no_masks(self, loco):
        write_mask(loco / "bag" / "ground_truth" / "good" / "000" / "000.png")
        bag = read_category(loco, "bag")
        assert read_masks(bag.test[0], bag, (6, 8)) == ()

    def test_without_config_the_folder_names_the_defect_type(self, loco):
        (loco / "bag" / "defects_config.json").unlink()
        bag = read_category(loco, "bag")
        assert bag.layout == "loco"
        assert bag.test[2].defect_type == "logical_anomalies"
        mask = read_masks(bag.test[2], bag, (6, 8))[0]
        assert (mask.name, mask.saturation_threshold, mask.relative_saturation) == (
            "logical_anomalies",
            1.0,
            True,
        )

    def test_without_masks_the_folder_names_the_defect_type(self, loco):
        write_image(loco / "bag" / "test" / "logical_anomalies" / "001.png")
        assert read_category(loco, "bag").test[3].defect_type == "logical_anomalies"

    def test_unknown_pixel_value_names_file_and_value(self, loco):
        folder = loco / "bag" / "ground_truth" / "logical_anomalies" / "000"
        write_mask(folder / "001.png", 77)
        bag = read_category(loco, "bag")
        with pytest.raises(UserError, match=r"000/001\.png' has pixel value 77.*254, 255"):
            read_masks(bag.test[2], bag, (6, 8))
        write_mask(folder / "000.png", 78)
        with pytest.raises(UserError, match=r"000/000\.png' has pixel value 78"):
            read_category(loco, "bag")

    def test_several_values_in_a_mask(self, loco):
        path = loco / "bag" / "ground_truth" / "logical_anomalies" / "000" / "000.png"
        Image.fromarray(np.array([[0, 254, 255]], np.uint8)).save(path)
        with pytest.raises(UserError, match=r"several pixel values, \[0, 254, 255\]"):
            read_category(loco, "bag")

    def test_a_name_that_is_no_text_is_told(self, loco):
        odd = bytes(loco / "bag" / "train" / "good") + b"/gr\xf6\xdfe.png"
        write_image(loco / "bag" / "train" / "good" / "004.png").rename(os.fsdecode(odd))
        with pytest.raises(UserError, match=r"good/gr\\udcf6\\udcdfe\.png' is not UTF-8 text"):
            list_category(loco, "bag")

    def test_empty_mask(self, loco):
        write_mask(loco / "bag" / "ground_truth" / "logical_anomalies" / "000" / "000.png", 0)
        with pytest.raises(UserError, match=r"000\.png' marks no pixel"):
            read_category(loco, "bag")

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("{", "not valid JSON"),
            ("{}", "the file: Input should be a valid list"),
            (json.dumps([{**ENTRIES[0], "pixel_value": "255"}]), "0.pixel_value"),
            (json.dumps([{**ENTRIES[0], "saturation_threshold": 0}]), "0.saturation_threshold"),
            (json.dumps([{**ENTRIES[1], "saturation_threshold": 50}]), "0: .*a share, 1 at most"),
            (json.dumps([{"defect_name": "scratch"}]), "0.pixel_value: Field required"),
            (json.dumps([ENTRIES[0], ENTRIES[0]]), "pixel value 255 to two defects"),
        ],
    )
    def test_wrong_config(self, loco, content, told):
        (loco / "bag" / "defects_config.json").write_text(content)
        with pytest.raises(UserError, match=told) as caught:
            read_category(loco, "bag")
        assert "defects_config.json" in str(caught.value)

    @pytest.mark.parametrize("name", CATEGORIES)
    def test_mvtec_configs_are_read(self, loco, name):
        config = DEFECTS_CONFIGS / f"{name}.json"
        for folder in ("logical_anomalies", "structural_anomalies"):
            write_mask(loco / "bag" / "ground_truth" / folder / "000" / "000.png", 255)
        (loco / "bag" / "defects_config.json").write_text(config.read_text())
        entries = read_category(loco, "bag").defect_entries
        assert {value: entry.name for value, entry in entries.items()} == {
            entry["pixel_value"]: entry["defect_name"] for entry in json.loads(config.read_text())
        }


class TestMvtecAd:
    def test_splits_kinds_and_masks(self, mvtec_ad):
        nut = read_category(mvtec_ad, "nut")
        assert nut.layout == "mvtec_ad"
        assert nut.defect_entries == {}
        assert [(r.name, r.kind, r.defect_type) for r in nut.test] == [
            ("test/good/000.png", "good", "good"),
            ("test/bent/000.jpg", "structural", "bent"),
            ("test/no_thread/000.jpg", "structural", "no_thread"),
        ]
        (mask,) = read_masks(nut.test[1], nut, (6, 8))
        assert (mask.name, mask.saturation_threshold, mask.relative_saturation) == (
            "bent",
            1.0,
            True,
        )
        assert mask.mask.sum() == 6

    def test_a_mask_may_have_its_image_s_name(self, mvtec_ad):
        masks = mvtec_ad / "nut" / "ground_truth" / "bent"
        (masks / "000_mask.png").rename(masks / "000.png")
        nut = read_category(mvtec_ad, "nut")
        assert [path.name for path in nut.test[1].mask_paths] == ["000.png"]

    def test_undeclared_defect_types_count_as_structural_with_a_note(self, mvtec_ad):
        assert (
            "defect type 'bent' is not declared logical or structural, so it counts as "
            "structural; say otherwise in dataset.yaml"
        ) in read_category(mvtec_ad, "nut").notes

    def test_dataset_yaml_in_data_and_category_folder(self, mvtec_ad):
        (mvtec_ad / "dataset.yaml").write_text(
            "defect_types: {bent: logical, no_thread: logical, of_another_category: logical}"
        )
        assert kinds(mvtec_ad) == {"good": "good", "bent": "logical", "no_thread": "logical"}
        (mvtec_ad / "nut" / "dataset.yaml").write_text("defect_types: {bent: structural}")
        assert kinds(mvtec_ad) == {"good": "good", "bent": "structural", "no_thread": "logical"}
        assert len(read_category(mvtec_ad, "nut").notes) == 1

    def test_a_declared_type_without_a_folder_is_noted(self, mvtec_ad):
        (mvtec_ad / "nut" / "dataset.yaml").write_text("defect_types: {bnet: logical}")
        assert any("'bnet'" in note for note in read_category(mvtec_ad, "nut").notes)

    def test_empty_dataset_yaml(self, mvtec_ad):
        (mvtec_ad / "dataset.yaml").write_text("")
        assert kinds(mvtec_ad)["bent"] == "structural"

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("defect_type: {bent: logical}", "defect_type: this key is unknown"),
            ("defect_types: {bent: broken}", r"defect_types\.bent: .*'logical' or 'structural'"),
            ("defect_types: {7: logical}", r"defect_types\.7.*: Input should be a valid string"),
            ("defect_types: {good: logical}", r"defect_types\.good"),
            ("defect_types: {bent", "not valid YAML"),
            ("- bent", "the file"),
            (b"\xff\xfe\xfa", "it is not UTF-8 text"),
        ],
    )
    @pytest.mark.parametrize("folder", [".", "nut"])
    def test_wrong_dataset_yaml_names_file_and_key(self, mvtec_ad, content, told, folder):
        path = mvtec_ad / folder / "dataset.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=told) as caught:
            read_category(mvtec_ad, "nut")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_loco_folder_names_count_in_any_layout(self, mvtec_ad):
        write_image(mvtec_ad / "nut" / "test" / "logical_anomalies" / "0.png")
        assert kinds(mvtec_ad)["logical_anomalies"] == "logical"

    def test_a_validation_folder_is_used(self, mvtec_ad):
        write_image(mvtec_ad / "nut" / "validation" / "good" / "0.png")
        nut = read_category(mvtec_ad, "nut")
        assert (len(nut.train), len(nut.validation)) == (20, 1)

    def test_coloured_and_palette_masks(self, mvtec_ad):
        path = mvtec_ad / "nut" / "ground_truth" / "bent" / "000_mask.png"
        coloured = np.zeros((6, 8, 3), np.uint8)
        coloured[0, 0] = (0, 0, 7)
        nut = read_category(mvtec_ad, "nut")
        for image in (Image.fromarray(coloured), Image.fromarray(coloured).quantize(2)):
            image.save(path)
            (mask,) = read_masks(nut.test[1], nut, (6, 8))
            assert np.argwhere(mask.mask).tolist() == [[0, 0]]

    def test_mask_of_another_size_names_both_files_and_sizes(self, mvtec_ad):
        write_mask(mvtec_ad / "nut" / "ground_truth" / "bent" / "000_mask.png", shape=(6, 7))
        nut = read_category(mvtec_ad, "nut")
        with pytest.raises(UserError, match=r"000_mask\.png' is 7×6 .*000\.jpg' is 8×6"):
            read_masks(nut.test[1], nut, (6, 8))

    def test_broken_mask(self, mvtec_ad):
        path = mvtec_ad / "nut" / "ground_truth" / "bent" / "000_mask.png"
        path.write_bytes(path.read_bytes()[:40])
        nut = read_category(mvtec_ad, "nut")
        with pytest.raises(UserError, match=r"000_mask\.png' cannot be read"):
            read_masks(nut.test[1], nut, (6, 8))

    def test_real_cookies(self, photographs):
        cookies = read_category(photographs, "cookies")
        assert [len(split) for split in cookies.splits.values()] == [26, 5, 46]
        (mask,) = read_masks(cookies.test[-1], cookies, (768, 576))
        assert mask.mask.any()


class TestHeldOut:
    def test_a_share_is_held_out_with_a_note(self, mvtec_ad):
        nut = read_category(mvtec_ad, "nut")
        assert (len(nut.train), len(nut.validation)) == (17, 3)
        assert not set(nut.train) & set(nut.validation)
        assert any("3 of the 20 good training images are held out" in n for n in nut.notes)
        names = [record.name for record in nut.train]
        assert names == sorted(names)

    def test_the_choice_follows_names_only(self, mvtec_ad, tmp_path):
        def held_out(data: Path) -> list[str]:
            return [record.name for record in read_category(data, "nut").validation]

        copy = tmp_path / "elsewhere"
        for index in reversed(range(20)):
            write_image(copy / "nut" / "train" / "good" / f"{index:03}.png", 99)
        assert held_out(mvtec_ad) == held_out(copy)
        # Fixed for good: results of earlier versions stay comparable.
        assert held_out(mvtec_ad) == [f"train/good/{name}.png" for name in ("007", "008", "012")]

    def test_two_training_images_give_one(self, tmp_path):
        for index in range(2):
            write_image(tmp_path / "nut" / "train" / "good" / f"{index}.png")
        nut = read_category(tmp_path, "nut")
        assert (len(nut.train), len(nut.validation), nut.test) == (1, 1, ())

    def test_one_training_image_is_refused(self, tmp_path):
        write_image(tmp_path / "nut" / "train" / "good" / "0.png")
        with pytest.raises(UserError, match="one good training image and no validation"):
            read_category(tmp_path, "nut")


class TestReadCategory:
    def test_missing_category_names_those_there_are(self, loco):
        with pytest.raises(UserError, match=r"No category 'bgg' in .*; choose from bag"):
            read_category(loco, "bgg")

    def test_no_good_training_images(self, loco):
        for path in (loco / "bag" / "train" / "good").iterdir():
            path.unlink()
        with pytest.raises(UserError, match="no good training images"):
            read_category(loco, "bag")
        assert list_category(loco, "bag").train == ()

    def test_names_are_sorted_naturally(self, tmp_path):
        for name in ("10.JPG", "9.png", "b1.png", "09.png", "1.tiff"):
            write_image(tmp_path / "nut" / "train" / "good" / name)
        names = [record.path.name for record in list_category(tmp_path, "nut").train]
        assert names == ["1.tiff", "09.png", "9.png", "10.JPG", "b1.png"]

    def test_other_and_hidden_files_are_not_images(self, loco):
        folder = loco / "bag" / "train" / "good"
        (folder / "Thumbs.db").write_bytes(b"")
        (folder / "._000.png").write_bytes(b"")
        (folder / "folder.png").mkdir()
        assert len(read_category(loco, "bag").train) == 4

    def test_real_loco_sample(self, photographs):
        bottle = read_category(photographs / "loco_samples", "juice_bottle")
        assert bottle.layout == "loco"
        assert [len(split) for split in bottle.splits.values()] == [3, 1, 9]
        assert {record.kind for record in bottle.test} == {"good", "logical", "structural"}
