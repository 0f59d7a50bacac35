"""Judging models and maps: the numbers, the maps' round trip, what is printed, what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import Result

from dfsc_tune.cli import app
from dfsc_tune.cli.options import check_output
from dfsc_tune.config import TrialConfig
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.evaluate import evaluate_maps, evaluate_model
from dfsc_tune.evaluation.maps import find_maps, map_paths, was_chosen_on, write_map
from dfsc_tune.metrics import Defect, image_auroc, localization
from dfsc_tune.models.detector import Detector, load_detector, save_detector
from dfsc_tune.reference import CATEGORIES, published_results
from dfsc_tune.training.prepare import prepare_category
from dfsc_tune.training.trial import finished_detector, run_trial
from tests.support.commands import invoke
from tests.support.pixel_maps import CASES, LIMITS, reference_case
from tests.support.trays import CATEGORY, make_masked_tray, make_tray

NAMES = ("logical", "structural", "mean")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masked_tray(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def model(data: Path, trial_config: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was chosen on half of the test images."""
    work = tmp_path_factory.mktemp("model")
    config = trial_config.model_copy(update={"data": str(data)})
    read = prepare_category(config, data)
    run_trial(config, read.trial, lambda _: None, work)
    detector = finished_detector(
        config,
        read.trial,
        work,
        selection_digests=read.selection_digests,
        training_digests=read.training_digests,
    )
    save_detector(work / "model", detector)
    return work / "model"


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return load_detector(model)


@pytest.fixture(scope="module")
def saved(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder of saved maps, and what was printed when they were."""
    maps = tmp_path_factory.mktemp("saved")
    return maps, invoke("evaluate", model, "--save-maps", maps, "--json")


@pytest.fixture
def maps(saved: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the saved maps, to damage."""
    return shutil.copytree(saved[0], tmp_path / "maps")


def judge_maps(maps: Path, data: Path, *arguments: str) -> Result:
    return invoke("evaluate", "--maps", maps, "--data", data, "--category", CATEGORY, *arguments)


def assert_refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.output
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for text in texts:
        assert text in error


def test_every_number_is_there(data: Path, detector: Detector) -> None:
    found = evaluate_model(detector, data, CATEGORY, include_selection=True)
    assert found.num_images == {"good": 4, "logical": 4, "structural": 4}
    assert set(found.intervals) == set(NAMES)
    assert found.pixel is not None
    for name in NAMES:
        auroc, interval = found.aurocs[f"auroc_{name}"], found.intervals[name]
        assert auroc is not None
        assert interval.low <= auroc <= interval.high
        assert 0 < found.pixel.pixel_auroc[name] < 1
        assert set(found.pixel.au_pro[name]) == set(found.pixel.au_spro[name]) == set(LIMITS)
    types = {(one.kind, one.defect_type): one for one in found.defect_types}
    assert {key: one.num_images for key, one in types.items()} == {
        ("logical", "missing"): 4,
        ("structural", "dent"): 2,
        ("structural", "scratch"): 2,
    }
    missing = types["logical", "missing"]
    assert missing.auroc == found.aurocs["auroc_logical"]
    assert missing.au_spro == found.pixel.au_spro["logical"][0.05]
    assert missing.auroc_interval == found.intervals["logical"]


def test_numbers_are_those_of_the_maps_and_masks(data: Path, detector: Detector) -> None:
    found = evaluate_model(detector, data, CATEGORY, include_selection=True)
    records = [x for x in read_category(data, CATEGORY).test if x.kind != "logical"]
    images = np.stack(
        [np.asarray(Image.open(x.path).resize((128, 128), 2)).transpose(2, 0, 1) for x in records]
    )
    sizes = np.full((len(records), 2), (96, 128), np.int32)
    maps = detector.anomaly_maps(detector.difference_maps(images), sizes)
    kinds: list[str] = [record.kind for record in records]
    assert found.aurocs["auroc_structural"] == image_auroc([x.max() for x in maps], kinds).mean
    assert found.pixel is not None
    # After four good images come two with a scratch and two with a dent; the last has a second.
    scratch, corner = np.zeros((2, 96, 128), bool)
    scratch[40:50, 10:118] = True
    corner[:9, :9] = True
    defects = [Defect(4, scratch, 540), Defect(5, scratch, 540), Defect(6, scratch, 60)]
    defects += [Defect(7, scratch, 60), Defect(7, corner, 81)]
    expected = localization(maps, defects, LIMITS)
    assert found.pixel.au_spro["structural"] == pytest.approx(expected.au_spro)
    assert found.pixel.pixel_auroc["structural"] == pytest.approx(expected.pixel_auroc)


def test_saved_maps_give_the_same_numbers(
    saved: tuple[Path, Result], data: Path, model: Path
) -> None:
    maps, printed = saved
    assert printed.exit_code == 0, printed.output
    again = judge_maps(maps, data, "--json")
    assert json.loads(again.stdout) == json.loads(printed.stdout)
    honest = json.loads(again.stdout)
    assert honest["num_images"] == {"good": 2, "logical": 2, "structural": 2}
    assert not honest["optimistic"]
    assert any("left out 6 images" in note for note in honest["notes"])
    everything = judge_maps(maps, data, "--json", "--include-selection")
    of_model = invoke("evaluate", model, "--json", "--include-selection")
    assert json.loads(everything.stdout) == json.loads(of_model.stdout)
    assert json.loads(everything.stdout)["optimistic"]


def test_json_has_every_limit_and_the_shape_that_scripts_rely_on(
    saved: tuple[Path, Result],
) -> None:
    found = json.loads(saved[1].stdout)
    assert list(found) == [
        "category", "num_images", "aurocs", "intervals", "pixel", "defect_types", "published",
        "notes", "optimistic",
    ]  # fmt: skip
    assert list(found["aurocs"]) == [f"auroc_{name}" for name in NAMES]
    assert found["intervals"]["mean"].keys() == {"low", "high", "level"}
    pixel = found["pixel"]
    assert list(pixel) == ["pixel_auroc", "au_pro", "au_spro"]
    assert list(pixel["pixel_auroc"]) == list(NAMES)
    for metric in ("au_pro", "au_spro"):
        assert list(pixel[metric]) == list(NAMES)
        assert list(pixel[metric]["mean"]) == ["0.01", "0.05", "0.1", "0.3", "1.0"]
    assert found["defect_types"][0].keys() == {
        "kind", "defect_type", "num_images", "auroc", "auroc_interval", "au_spro",
    }  # fmt: skip
    assert found["published"] == []


def test_saved_maps_are_laid_out_for_the_official_tool(
    saved: tuple[Path, Result], data: Path
) -> None:
    folder = saved[0] / CATEGORY / "test"
    for kind in ("good", "logical_anomalies", "structural_anomalies"):
        assert sorted(path.name for path in (folder / kind).iterdir()) == [
            f"{index:03d}.tiff" for index in range(4)
        ]
    anomaly_map = tifffile.imread(folder / "good" / "000.tiff")
    assert (anomaly_map.dtype, anomaly_map.shape) == (np.float32, (96, 128))
    with Image.open(folder / "good" / "000.tiff") as image:
        assert np.array_equal(np.asarray(image), anomaly_map)
    category = read_category(data, CATEGORY)
    assert sum(was_chosen_on(path) for path in find_maps(saved[0], category).values()) == 6


@pytest.mark.parametrize(
    ("dtype", "options", "suffix"),
    [
        (np.float64, {}, ".tif"),
        (np.float16, {"compression": "zlib"}, ".TIFF"),
        (np.float32, {"byteorder": ">", "bigtiff": True}, ".tiff"),
    ],
)
def test_maps_of_other_programs_are_read(
    maps: Path, data: Path, dtype: type, options: dict[str, object], suffix: str
) -> None:
    before = evaluate_maps(maps, data, CATEGORY, include_selection=True)
    for path in maps.rglob("*.tiff"):
        anomaly_map = tifffile.imread(path)
        path.unlink()
        tifffile.imwrite(path.with_suffix(suffix), anomaly_map.astype(dtype), **options)
    found = evaluate_maps(maps, data, CATEGORY)
    assert found.num_images == {"good": 4, "logical": 4, "structural": 4}
    assert not found.optimistic
    assert found.pixel is not None
    assert before.pixel is not None
    assert found.aurocs == before.aurocs
    assert found.pixel.pixel_auroc == pytest.approx(before.pixel.pixel_auroc, abs=1e-3)


def drop(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def store(numbers: np.ndarray) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tifffile.imwrite(path, numbers, photometric="minisblack")

    return damage


@pytest.mark.parametrize(
    ("damage", "texts"),
    [
        (drop, ["1 of the 12 test images", "no map", "good/001.tiff"]),
        (cut_short, ["good/001.tiff", "cannot be read"]),
        (store(np.ones((48, 64), np.float32)), ["64×48", "128×96", "good/001.png"]),
        (store(np.full((96, 128), np.nan, np.float32)), ["good/001.tiff", "NaN"]),
        (store(np.full((96, 128), 1e300)), ["good/001.tiff", "float32"]),
        (store(np.ones((3, 96, 128), np.float32)), ["(3, 96, 128)", "one channel"]),
        (store(np.ones((96, 128), np.complex64)), ["complex64", "real numbers"]),
    ],
)
def test_unfit_maps_are_refused(
    maps: Path, data: Path, damage: Callable[[Path], None], texts: list[str]
) -> None:
    damage(maps / CATEGORY / "test" / "good" / "001.tiff")
    assert_refused(judge_maps(maps, data), *texts)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "either a MODEL"),
        (["MODEL", "--maps", "maps"], "either a MODEL"),
        (["--maps", "maps", "--data", "DATA"], "--maps needs --category"),
        (["--maps", "maps", "--category", CATEGORY, "--save-maps", "x"], "needs a MODEL"),
        (["--maps", "nowhere", "--category", CATEGORY, "--data", "DATA"], "12 of the 12"),
        (["--maps", "MODEL/model.yaml", "--category", CATEGORY, "--data", "DATA"], "is a file"),
        (["MODEL", "--save-maps", "MODEL/model.yaml"], "is a file"),
        (["MODEL", "--save-maps", "MODEL/model.yaml/maps"], "cannot write"),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(
    data: Path, model: Path, arguments: list[str], text: str
) -> None:
    given = [x.replace("MODEL", str(model)).replace("DATA", str(data)) for x in arguments]
    assert_refused(invoke("evaluate", *given), text)


def test_heat_maps_never_overwrite_images(data: Path, model: Path, tmp_path: Path) -> None:
    images = shutil.copytree(data / CATEGORY / "train" / "good", tmp_path / "images")
    (tmp_path / "link").symlink_to(images)
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    for heatmaps in (images, tmp_path / "link"):
        refused = invoke("predict", model, images, "--heatmaps", heatmaps)
        assert_refused(refused, "would overwrite", "another folder")
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_heat_maps_never_overwrite_images_beside_those_given(
    data: Path, model: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(data / CATEGORY / "train" / "good", tmp_path / "images")
    given = images / "given.jpg"
    with Image.open(images / "000.png") as image:
        image.save(given)
    other = images / "given.png"
    other.write_bytes(before := (images / "000.png").read_bytes())
    refused = invoke("predict", model, given, "--heatmaps", images)
    assert_refused(refused, "would overwrite", "another folder")
    assert other.read_bytes() == before
    for _ in range(2):
        assert invoke("predict", model, given, "--heatmaps", tmp_path / "heat").exit_code == 0
    assert (tmp_path / "heat" / "given.png").is_file()


def test_maps_never_lie_among_the_data(model: Path, tmp_path: Path) -> None:
    data = make_masked_tray(tmp_path / "data")
    shutil.copytree(data / CATEGORY, data / "other")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / CATEGORY).symlink_to(data / CATEGORY)
    before = sorted(data.rglob("*"))
    for maps in (data, data / CATEGORY, data / "other" / "test", tmp_path / "link"):
        refused = invoke("evaluate", model, "--data", data, "--save-maps", maps)
        assert_refused(refused, "among the data", "another folder")
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize("name", ["run.yaml", "best/tray.yaml", "trials.parquet"])
def test_no_output_replaces_a_file_of_a_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "run.yaml").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=f"--output would replace .*{name}, one of the files of"):
        check_output(tmp_path / "link" / name, "--output")


def test_no_output_replaces_a_file_of_a_model(data: Path, model: Path, tmp_path: Path) -> None:
    image = data / CATEGORY / "test" / "good" / "000.png"
    (tmp_path / "run.yaml").write_text("")
    (tmp_path / "models").mkdir()
    own = shutil.copytree(model, tmp_path / "models" / CATEGORY)
    scores = tmp_path / "scores.parquet"
    assert_refused(invoke("predict", own, image, "--output", scores), "--output would replace")
    assert not scores.exists()
    for output in (own / "model.safetensors", tmp_path / "ledger.jsonl"):
        refused = invoke("export", own, "--format", "torchscript", "--output", output)
        assert_refused(refused, f"--output would replace {output}")
    for output in (own / "model.onnx", own / "scores.parquet", tmp_path / "report.html"):
        check_output(output, "--output")


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf"])
def test_a_threshold_is_a_finite_number(data: Path, model: Path, threshold: str) -> None:
    refused = invoke("predict", model, data / CATEGORY / "test" / "good", "--threshold", threshold)
    assert_refused(refused, "--threshold must be a finite number")


def test_a_link_that_leads_back_stops_no_other_image(
    data: Path, model: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(data / CATEGORY / "test" / "good", tmp_path / "images")
    (images / "loop.png").symlink_to("loop.png")
    found = invoke("predict", model, images, "--heatmaps", tmp_path / "heat")
    assert found.exit_code == 1, found.output
    assert "loop.png" in found.stderr
    assert len(list((tmp_path / "heat").iterdir())) == len(found.stdout.splitlines()) == 4


def test_what_is_left_unscored_is_said(data: Path, model: Path, tmp_path: Path) -> None:
    images = shutil.copytree(data / CATEGORY / "test" / "good", tmp_path / "images")
    for name in ("phone.HEIC", "camera.dng", "no_suffix", "Thumbs.db"):
        shutil.copy(images / "000.png", images / name)
    (images / "more").mkdir()
    with Image.open(images / "000.png") as image:
        image.save(images / "pages.tif", save_all=True, append_images=[image.copy()])
    parts = (
        f"2 files in '{images}', such as 'camera.dng', are not read: save photographs",
        f"2 files in '{images}', such as 'Thumbs.db', are not read: their names",
        f"folders inside '{images}', such as 'more', are not read",
        f"1 of 5 images, such as '{images / 'pages.tif'}', hold more than one page",
    )
    found = invoke("predict", model, images, "--json")
    assert found.exit_code == 0, found.output
    notes = json.loads(found.stdout)["notes"]
    assert len(notes) == len(parts)
    for part, note in zip(parts, notes, strict=True):
        assert part in note
        assert f"note: {part}" in found.stderr


def test_names_that_cannot_be_are_one_sentence(data: Path, model: Path, tmp_path: Path) -> None:
    image = data / CATEGORY / "test" / "good" / "000.png"
    long = "x" * 300
    no_text = tmp_path / os.fsdecode(b"\xff.png")
    shutil.copy(image, no_text)
    for arguments, told in (
        ([image, "--output", tmp_path / f"{long}.csv"], long),
        ([image, "--output", tmp_path / "x.csv" / "x.csv"], "x.csv"),
        ([image, "--heatmaps", tmp_path / long], long),
        ([tmp_path / f"{long}.png"], long),
        ([no_text], "not UTF-8"),
    ):
        (tmp_path / "x.csv").mkdir(exist_ok=True)
        (tmp_path / "x.csv" / "x.csv").mkdir(exist_ok=True)
        refused = invoke("predict", model, *arguments)
        assert_refused(refused, told)
        # Before anything is scored.
        assert refused.stdout == ""


def test_images_of_one_long_name_each_have_a_heat_map(
    data: Path, model: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(data / CATEGORY / "test" / "good" / "000.png", folder / f"{'ü' * 125}.png")
    found = invoke("predict", model, *folders, "--heatmaps", tmp_path / "heat")
    assert found.exit_code == 0, found.output
    assert len(list((tmp_path / "heat").iterdir())) == 2


def test_a_terminal_that_lacks_a_letter_ends_nothing(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(data / CATEGORY / "test" / "good" / "000.png", tmp_path / "€.png")
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told, encoding="latin-1"))
    with pytest.raises(SystemExit) as ended:
        app(["predict", str(model), str(tmp_path)])
    assert ended.value.code == 0
    assert rb"\u20ac.png" in told.getvalue()


def test_a_folder_of_what_is_not_read_is_refused_with_the_reason(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "1.HEIC").write_bytes(b"")
    assert_refused(invoke("predict", model, tmp_path), "no images", "as JPEG or PNG")


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_predict_finishes_though_nobody_reads(
    data: Path,
    model: Path,
    tmp_path: Path,
    json_option: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = data / CATEGORY / "test" / "good"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w", encoding="utf-8") as unread:  # noqa: PTH123
        for name in ("stdout", "__stdout__"):
            monkeypatch.setattr(sys, name, unread)
        targets = ("--output", tmp_path / "scores.csv", "--heatmaps", tmp_path / "heat")
        with pytest.raises(SystemExit) as ended:
            app([str(x) for x in ("predict", model, images, broken, *targets, *json_option)])
    assert ended.value.code == 1
    assert "broken.png" in capsys.readouterr().err
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 6
    assert len(list((tmp_path / "heat").iterdir())) == 4


def test_odd_masks_and_pages_are_said(tmp_path: Path, saved: tuple[Path, Result]) -> None:
    data = make_masked_tray(tmp_path / "data")
    (data / CATEGORY / "defects_config.json").unlink()
    masks = data / CATEGORY / "ground_truth"
    lossy = masks / "logical_anomalies" / "000" / "000.png"
    with Image.open(lossy) as image:
        image.save(lossy.with_suffix(".jpg"))
    lossy.unlink()
    inverted = masks / "logical_anomalies" / "001" / "000.png"
    with Image.open(inverted) as image:
        values = 255 - np.asarray(image)
    Image.fromarray(values).save(inverted)
    good = data / CATEGORY / "test" / "good" / "000.png"
    with Image.open(good) as image:
        image.save(good.with_suffix(".tif"), save_all=True, append_images=[image.copy()])
    good.unlink()
    found = evaluate_maps(saved[0], data, CATEGORY, include_selection=True)
    notes = " | ".join(found.notes)
    for part in (
        "1 of 9 masks, such as 'ground_truth/logical_anomalies/000/000.jpg', hold several values",
        "1 of 9 masks, such as 'ground_truth/logical_anomalies/001/000.png', mark more than half",
        "1 of 12 images, such as 'test/good/000.tif', hold more than one page",
    ):
        assert part in notes


def test_a_threshold_decides_what_is_anomalous(data: Path, model: Path) -> None:
    images = data / CATEGORY / "test" / "good"
    count = len(list(images.iterdir()))
    own = invoke("predict", model, images)
    # The tray has three validation images.
    assert "highest score of 3 good validation images, which about 1 in 4" in own.stderr
    for threshold, anomalous in ((-1e9, count), (1e9, 0)):
        found = invoke("predict", model, images, f"--threshold={threshold}")
        assert found.stderr.startswith(f"{anomalous} of {count} anomalous")
        assert "--threshold" in found.stderr
        told = json.loads(
            invoke("predict", model, images, f"--threshold={threshold}", "--json").stdout
        )
        assert told["threshold"] == threshold
        assert sum(x["anomalous"] for x in told["images"]) == anomalous


def test_without_masks_image_metrics_remain(tmp_path: Path, detector: Detector) -> None:
    data = make_masked_tray(tmp_path)
    shutil.rmtree(data / CATEGORY / "ground_truth" / "logical_anomalies" / "002")
    found = evaluate_model(detector, data, CATEGORY, include_selection=True)
    assert found.aurocs["auroc_mean"] is not None
    assert found.pixel is None
    assert all(one.au_spro is None for one in found.defect_types)
    (note,) = [note for note in found.notes if "mask" in note]
    assert "1 anomalous images" in note
    assert "test/logical_anomalies/002.png" in note


def test_nothing_left_to_judge_on_is_said(data: Path, maps: Path) -> None:
    category = read_category(data, CATEGORY)
    for record in category.test:
        if record.kind == "good":
            path = map_paths(maps, category)[record.name]
            write_map(path, tifffile.imread(path), chosen_on=True)
    assert_refused(judge_maps(maps, data), "no good or no anomalous", "--include-selection")


def test_images_that_the_model_was_trained_on_are_left_out(
    detector: Detector, tmp_path: Path
) -> None:
    root = make_masked_tray(tmp_path) / CATEGORY
    honest = evaluate_model(detector, tmp_path, CATEGORY)
    for path in (root / "train" / "good").iterdir():
        shutil.copy(path, root / "test" / "good" / f"was_trained_on_{path.name}")
    later = evaluate_model(detector, tmp_path, CATEGORY)
    assert (later.num_images, later.aurocs) == (honest.num_images, honest.aurocs)
    assert "to train or choose the model" in later.notes[-1]


def test_images_that_would_share_a_map_are_refused(tmp_path: Path) -> None:
    data = make_tray(tmp_path)
    good = data / CATEGORY / "test" / "good"
    shutil.copy(good / "000.png", good / "000.jpg")
    assert_refused(judge_maps(tmp_path / "maps", data), "good/000.jpg", "good/000.png", "000.tiff")


def test_the_table_stands_beside_the_papers(data: Path, maps: Path, tmp_path: Path) -> None:
    as_loco = tmp_path / "loco"
    shutil.copytree(data / CATEGORY, as_loco / "pushpins")
    shutil.copytree(maps / CATEGORY, maps / "pushpins")
    judge = ("evaluate", "--maps", maps, "--data", as_loco, "--category", "pushpins")
    printed = invoke(*judge)
    assert printed.exit_code == 0, printed.output
    rows = [line.split() for line in printed.stdout.splitlines()]
    assert ["DFSC,", "published", "0.998", "0.956", "0.977"] in rows
    assert ["DFSC,", "published", "–", "–", "0.844"] in rows
    starts = [" ".join(row[:2]) for row in rows]
    for label in ("image AUROC", "pixel AUROC", "AU-PRO, FPR", "AU-sPRO, FPR", "logical: missing"):
        assert label in starts
    assert "left out 6 images" in printed.stderr
    # Rendered categories bear the same names, but show other images.
    (as_loco / "pushpins" / "builtin.json").write_text("{}")
    assert "published" not in invoke(*judge).stdout


def test_published_results_are_the_papers() -> None:
    for category in CATEGORIES:
        dfsc, baseline = published_results(category)
        assert (dfsc.method, baseline.method) == ("DFSC", "EfficientAD-S")
        assert set(dfsc.image_auroc) == set(baseline.image_auroc) == set(NAMES)
    mean = np.mean([published_results(name)[0].image_auroc["mean"] for name in CATEGORIES])
    assert mean == pytest.approx(0.920, abs=5e-4)
    assert np.mean([published_results(name)[0].au_spro for name in CATEGORIES]) == pytest.approx(
        0.789, abs=5e-4
    )
    assert published_results("tray") == ()


@pytest.mark.parametrize("index", range(4))
def test_folders_of_maps_are_judged_as_the_official_tool_does(index: int, tmp_path: Path) -> None:
    maps, _, expected = reference_case(index)
    with np.load(CASES / "au_spro_cases.npz") as arrays:
        masks, owners = arrays[f"case{index}_masks"], arrays[f"case{index}_mask_image"]
    root = make_tray(tmp_path, "case", num_train=2, num_test=0) / "case"
    config = json.loads((CASES / "au_spro_cases.json").read_text())["defects_config"]
    (root / "defects_config.json").write_text(json.dumps(config))
    for image, anomaly_map in enumerate(maps):
        folder = "structural_anomalies" if image in owners else "good"
        path = root / "test" / folder / f"{image:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(anomaly_map.shape, np.uint8)).save(path)
        write_map(
            tmp_path / "maps" / "case" / "test" / folder / f"{image:03d}.tiff",
            anomaly_map.astype(np.float32),
        )
        for number in np.flatnonzero(owners == image):
            mask_path = root / "ground_truth" / folder / f"{image:03d}" / f"{number:03d}.png"
            mask_path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(masks[number]).save(mask_path)
    found = evaluate_maps(tmp_path / "maps", tmp_path, "case")
    assert found.pixel is not None
    for limit in LIMITS:
        area = found.pixel.au_spro["structural"][limit]
        assert area == pytest.approx(expected["au_spro_official"][str(limit)], abs=1e-3)
    assert found.aurocs["auroc_structural"] == pytest.approx(expected["image_auroc_official"])
