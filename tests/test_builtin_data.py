"""The built-in data set: layout, determinism, masks, and rules that its pictures obey."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfsc_tune.data.builtin import CATEGORIES, Counts, make_dataset, render_image
from dfsc_tune.data.builtin.render import REGISTRY, render_scene
from dfsc_tune.data.sources import find_data
from dfsc_tune.errors import UserError

HEIGHT = 96
FEW = Counts(train=2, validation=1, test_good=1, logical=2, structural=2)
ASPECTS = {
    "breakfast_box": 1600 / 1280,
    "juice_bottle": 800 / 1600,
    "pushpins": 1700 / 1000,
    "screw_bag": 1600 / 1100,
    "splicing_connectors": 1700 / 850,
}
EVERY_DEFECT = [
    pytest.param(category, defect, id=f"{name}-{defect.name}")
    for name, category in REGISTRY.items()
    for defect in category.defects
]


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("builtin")
    make_dataset(root, counts=FEW, height=HEIGHT, seed=5, workers=1)
    return root


def test_layout_is_locos(made):
    assert sorted(path.name for path in made.iterdir()) == list(CATEGORIES)
    for category in CATEGORIES:
        folder = made / category
        images = {str(p.relative_to(folder)) for p in folder.rglob("*.png")}
        truth = {path for path in images if path.startswith("ground_truth")}
        assert images - truth == {
            "train/good/000.png",
            "train/good/001.png",
            "validation/good/000.png",
            "test/good/000.png",
            "test/logical_anomalies/000.png",
            "test/logical_anomalies/001.png",
            "test/structural_anomalies/000.png",
            "test/structural_anomalies/001.png",
        }
        assert {str(Path(path).parent) for path in truth} == {
            f"ground_truth/{kind}_anomalies/{index:03d}"
            for kind in ("logical", "structural")
            for index in range(2)
        }
        assert {path.name for path in folder.glob("*.json")} == {
            "defects_config.json",
            "builtin.json",
        }


@pytest.mark.parametrize("category", CATEGORIES)
def test_files_are_rgb_images_and_masks_of_listed_values(made, category):
    folder = made / category
    config = {d["pixel_value"]: d for d in json.loads((folder / "defects_config.json").read_text())}
    kinds = {defect.name: defect.kind for defect in REGISTRY[category].defects}
    size = (round(HEIGHT * ASPECTS[category]), HEIGHT)
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == size
            if "ground_truth" not in path.parts:
                assert image.mode == "RGB"
                continue
            assert image.mode == "L"
            background, value = np.unique(np.asarray(image))
        assert background == 0
        kind = path.parts[-3].removesuffix("_anomalies")
        assert kinds[config[int(value)]["defect_name"]] == kind


@pytest.mark.parametrize("category", CATEGORIES)
def test_defects_config_has_locos_form_and_scales_with_size(tmp_path, made, category):
    config = json.loads((made / category / "defects_config.json").read_text())
    assert len({entry["pixel_value"] for entry in config}) == len(config)
    for entry in config:
        assert set(entry) == {
            "defect_name",
            "pixel_value",
            "saturation_threshold",
            "relative_saturation",
        }
        threshold = entry["saturation_threshold"]
        if entry["relative_saturation"]:
            assert 0 < threshold <= 1
        else:
            assert isinstance(threshold, int)
            assert 4 < threshold < 0.4 * HEIGHT**2
    for defect in REGISTRY[category].defects:
        if defect.area is not None:
            assert defect.saturation(1000) == pytest.approx(4 * defect.saturation(500), rel=1e-3)


def test_builtin_json_says_how_it_was_made(made):
    origin = json.loads((made / "pushpins" / "builtin.json").read_text())
    assert origin["seed"] == 5
    assert origin["height"] == HEIGHT
    assert origin["counts"]["test_good"] == 1
    assert origin["generator_version"] >= 1


def test_same_files_from_two_workers_and_progress_counts_up(made, tmp_path):
    calls = []
    make_dataset(
        tmp_path,
        ["pushpins"],
        FEW,
        height=HEIGHT,
        seed=5,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert _files(tmp_path / "pushpins") == _files(made / "pushpins")
    assert calls == [(done, 8) for done in range(1, 9)]


def test_other_seed_and_more_images(made, tmp_path):
    more = Counts(train=3, validation=1, test_good=1, logical=3, structural=2)
    make_dataset(tmp_path / "more", ["juice_bottle"], more, height=HEIGHT, seed=5, workers=1)
    before, after = _files(made / "juice_bottle"), _files(tmp_path / "more" / "juice_bottle")
    for path in ("builtin.json", "SHA256SUMS"):
        assert before.pop(path) != after[path]
    assert {path: after[path] for path in before} == before
    make_dataset(tmp_path / "other", ["juice_bottle"], FEW, height=HEIGHT, seed=6, workers=1)
    other = _files(tmp_path / "other" / "juice_bottle")
    images = [path for path in before if path.endswith(".png") and "ground_truth" not in path]
    assert all(before[path] != other[path] for path in images)


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_images_vary_and_splits_are_disjoint(category):
    drawn = [
        render_image(category, "good", index, split, HEIGHT).image.astype(float)
        for split in ("train", "validation", "test")
        for index in range(2)
    ]
    for first in range(len(drawn)):
        for second in range(first):
            assert np.abs(drawn[first] - drawn[second]).mean() > 1.5


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("kind", ["logical", "structural"])
def test_defect_types_come_in_even_rounds(category, kind):
    names = [defect.name for defect in REGISTRY[category].of_kind(kind)]
    assert len(names) >= 3
    seen = [
        render_image(category, kind, k, height=HEIGHT).defects[0].name for k in range(len(names))
    ]
    assert sorted(seen) == sorted(names)
    assert not render_image(category, "good", 0, height=HEIGHT).defects


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_defect_changes_the_picture_inside_its_mask(category, defect):
    seeds = np.random.SeedSequence(11)
    bad = render_scene(category, defect, seeds, HEIGHT)
    good = render_scene(category, None, np.random.SeedSequence(11), HEIGHT)
    assert {found.name for found in bad.defects} == {defect.name}
    for found in bad.defects:
        assert found.mask.shape == bad.image.shape[:2]
        assert 0 < found.mask.sum() < 0.75 * found.mask.size
    marked = np.any([found.mask for found in bad.defects], axis=0)
    change = np.abs(bad.image.astype(float) - good.image).max(axis=-1)
    assert change[marked].max() > 25


@pytest.mark.parametrize("category", CATEGORIES)
def test_structural_defects_leave_the_rest_alone(category):
    product = REGISTRY[category]
    for defect in product.of_kind("structural"):
        bad = render_scene(product, defect, np.random.SeedSequence(3), HEIGHT)
        good = render_scene(product, None, np.random.SeedSequence(3), HEIGHT)
        change = np.abs(bad.image.astype(float) - good.image).max(axis=-1)
        marked = np.any([found.mask for found in bad.defects], axis=0)
        assert change[~marked].mean() < 2.0, defect.name


def test_odd_sizes_render():
    for category in CATEGORIES:
        image = render_image(category, "good", 0, height=201).image
        assert image.shape == (201, round(201 * ASPECTS[category]), 3)
        assert image.dtype == np.uint8


def test_existing_category_is_left_alone(made):
    before = _files(made / "pushpins")
    with pytest.raises(UserError, match=r"pushpins exists; choose another folder or delete it"):
        make_dataset(made, ["pushpins"], FEW, height=HEIGHT, workers=1)
    assert _files(made / "pushpins") == before


@pytest.mark.parametrize("theirs", [5, 6])
def test_another_process_may_be_quicker(made, tmp_path, theirs):
    def overtake(done: int, total: int) -> None:
        if done == total:
            make_dataset(tmp_path, ["pushpins"], FEW, height=HEIGHT, seed=theirs, workers=1)

    def ours() -> None:
        make_dataset(
            tmp_path, ["pushpins"], FEW, height=HEIGHT, seed=5, workers=1, progress=overtake
        )

    if theirs == 5:
        ours()
        assert _files(tmp_path / "pushpins") == _files(made / "pushpins")
    else:
        with pytest.raises(UserError, match="Directory not empty"):
            ours()
    assert [path.name for path in tmp_path.iterdir()] == ["pushpins"]


def test_interrupted_run_leaves_no_category(tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path, ["pushpins"], FEW, height=HEIGHT, workers=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categories": ["teapot"]}, "'teapot'; there are: breakfast_box"),
        ({"height": 63}, "63 is too small"),
        ({"seed": -1}, "negative"),
        ({"counts": Counts(train=0)}, "train=0"),
        ({"workers": 0}, "workers 0 is not positive"),
    ],
)
def test_mistakes_are_told(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        make_dataset(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_unwritable_root_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write to"):
        make_dataset(tmp_path / "file", ["pushpins"], FEW, height=HEIGHT, workers=1)


@pytest.mark.parametrize("damage", ["zeroed", "lost", "sums"])
def test_damaged_images_in_the_cache_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    small = partial(make_dataset, counts=Counts(1, 1, 1, 1, 1), height=HEIGHT, workers=1)
    monkeypatch.setattr("dfsc_tune.data.sources.make_dataset", small)
    monkeypatch.setenv("DFSC_TUNE_CACHE", str(tmp_path))
    notes: list[str] = []
    folder = find_data(None, ["pushpins"], note=notes.append) / "pushpins"
    whole = _files(folder)
    find_data(None, ["pushpins"], note=notes.append)
    path = folder / ("SHA256SUMS" if damage == "sums" else "test/good/000.png")
    if damage == "lost":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-60:-40] = bytes(20)
        path.write_bytes(content)
    assert find_data(None, ["pushpins"], note=notes.append) == folder.parent
    assert _files(folder) == whole
    assert notes == [f"{folder} is damaged, so it is made again"]
    # What version 0.1.0 made has no sums.
    (folder / "SHA256SUMS").unlink()
    find_data(None, ["pushpins"], note=notes.append)
    assert not (folder / "SHA256SUMS").exists()
