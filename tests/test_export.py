"""The exported scorer: as `predict` on images, for every batch and size, in both formats."""

from __future__ import annotations

import resource
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import ExifTags, Image

import dfsc_tune
from dfsc_tune.config import ScoreConfig, TrialConfig
from dfsc_tune.data.images import PREPROCESSING, decode_images
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.evaluation import export
from dfsc_tune.evaluation.export import Scorer, export_detector
from dfsc_tune.evaluation.predict import predict
from dfsc_tune.models.detector import Detector, save_detector
from dfsc_tune.models.scoring import MapNormalization
from dfsc_tune.settings import loads
from dfsc_tune.training.prepare import CategoryData, prepare_category
from dfsc_tune.training.trial import finished_detector, run_trial
from tests.support.commands import invoke
from tests.support.readmes import block
from tests.support.trays import CATEGORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def detector(
    category_data: CategoryData, trial_config: TrialConfig, tmp_path_factory: pytest.TempPathFactory
) -> Detector:
    folder = tmp_path_factory.mktemp("trial")
    run_trial(trial_config, category_data.trial, lambda progress: None, folder)
    return finished_detector(trial_config, category_data.trial, folder, origin="a test")


@pytest.fixture(scope="module")
def exported(
    detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> dict[export.Format, Path]:
    """The detector's file in each format, alone in its folder."""
    files = {x: tmp_path_factory.mktemp(x) / "scorer" for x in export.SUFFIXES}
    for file_format, path in files.items():
        assert export_detector(detector, path, file_format) <= 1e-4
    return files


def run_onnx(path: Path) -> Callable[..., list[np.ndarray]]:
    session = onnxruntime.InferenceSession(str(path))
    return lambda images, size: session.run(
        ["scores", "maps"], {"images": images, "size": np.array(size)}
    )


def run_torchscript(path: Path) -> Callable[..., list[np.ndarray]]:
    with warnings.catch_warnings():
        # TorchScript is deprecated, but still what LibTorch programs load.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path))
    return lambda images, size: [
        x.numpy() for x in module(torch.from_numpy(images), torch.tensor(size))
    ]


@pytest.mark.parametrize(
    ("file_format", "load"), [("onnx", run_onnx), ("torchscript", run_torchscript)]
)
def test_scores_are_those_of_predict(
    detector: Detector,
    category_data: CategoryData,
    exported: dict[export.Format, Path],
    file_format: export.Format,
    load: Callable[[Path], Callable[..., list[np.ndarray]]],
) -> None:
    path = exported[file_format]
    # All in one file.
    assert list(path.parent.iterdir()) == [path]
    run = load(path)
    paths = [record.path for record in category_data.split.report]
    expected = [prediction.score for prediction in predict(detector, paths)]
    decoded = decode_images(paths, detector.config.model.image_size)
    images = np.ascontiguousarray(decoded.pixels.transpose(0, 2, 3, 1))
    size = decoded.original_sizes[0].tolist()
    for count in (1, 2, len(paths)):
        scores, maps = run(images[:count], size)
        np.testing.assert_allclose(scores, expected[:count], atol=1e-4)
        assert maps.shape == (count, *size)
        np.testing.assert_allclose(maps.max(axis=(1, 2)), scores)
    # Another size is another score, and that too is predict's.
    scores, maps = run(images, (31, 200))
    differences = detector.difference_maps(decoded.pixels)
    sizes = np.array([(31, 200)] * len(paths), dtype=np.int32)
    np.testing.assert_allclose(scores, detector.scores(differences, sizes), atol=1e-4)
    np.testing.assert_allclose(maps, detector.anomaly_maps(differences, sizes), atol=1e-4)


def test_the_metadata_say_what_a_user_needs(
    detector: Detector, exported: dict[export.Format, Path]
) -> None:
    model = onnx.load(exported["onnx"])
    onnx.checker.check_model(model)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts["category"] == CATEGORY
    assert float(texts["threshold"]) == detector.threshold
    assert texts["dfsc_tune_version"] == dfsc_tune.__version__
    assert texts["origin"] == "a test"
    assert "uint8 (N, image_size, image_size, 3)" in texts["inputs"]
    assert texts["preprocessing"] == PREPROCESSING
    assert loads(texts["config"], TrialConfig, "metadata") == detector.config
    files = dict.fromkeys(texts, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(str(exported["torchscript"]), _extra_files=files)
    assert {name: text.decode() for name, text in files.items()} == texts


def test_the_exported_model_is_used_as_the_readme_says(
    detector: Detector,
    category_data: CategoryData,
    exported: dict[export.Format, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "results" / "nightly" / "models" / "my_product" / "model.onnx"
    target.parent.mkdir(parents=True)
    shutil.copy(exported["onnx"], target)
    # In 16 bits and on its side, as cameras write them.
    with Image.open(category_data.split.report[0].path) as opened:
        values = np.asarray(opened.convert("L")).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = tmp_path / "incoming" / "001.png"
    image.parent.mkdir()
    Image.fromarray(values).save(image, exif=exif)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python onnx"), names)
    (prediction,) = predict(detector, [image])
    assert names["scores"][0] == pytest.approx(prediction.score, abs=1e-4)
    assert names["maps"][0].shape == (128, 96)
    assert capsys.readouterr().out.startswith("anomalous" if prediction.anomalous else "good")


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_monstrous_differences_are_scored_alike(
    detector: Detector, sigmoid: bool, spread: float
) -> None:
    def narrowed(quantiles: tuple[float, float]) -> tuple[float, float]:
        low, high = quantiles
        return low, low + spread * (high - low)

    found = detector.normalization
    changed = replace(
        detector,
        normalization=MapNormalization(narrowed(found.local), narrowed(found.global_)),
        config=detector.config.model_copy(update={"score": ScoreConfig(sigmoid=sigmoid)}),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 128, 128), dtype=np.uint8)
    size = (50, 70)
    expected = changed.scores(
        changed.difference_maps(pixels), np.array([size, size], dtype=np.int32)
    )
    images = torch.from_numpy(pixels.transpose(0, 2, 3, 1).copy())
    scores, _ = Scorer(changed)(images, torch.tensor(size))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    if sigmoid and spread < 1:
        # Beyond what float32 could tell from one.
        assert expected.max() > 100


def test_the_paper_of_old_is_exported_too(
    trial_config: TrialConfig, data_folder: Path, tmp_path: Path
) -> None:
    model = trial_config.model.model_copy(update={"instance_norm_relu": False})
    config = trial_config.model_copy(update={"model": model, "score": ScoreConfig(sigmoid=False)})
    data = prepare_category(config, data_folder)
    run_trial(config, data.trial, lambda progress: None, tmp_path)
    vanilla = finished_detector(config, data.trial, tmp_path)
    assert export_detector(vanilla, tmp_path / "vanilla.onnx", "onnx") <= 1e-4


def test_a_file_that_scores_otherwise_is_not_written(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(detector, normalization=MapNormalization((0.0, 1.0), (0.0, 1.0)))
    monkeypatch.setattr(export, "Scorer", lambda _: Scorer(other))
    with pytest.raises(UserError, match="differs from predict by"):
        export_detector(detector, tmp_path / "scorer.pt", "torchscript")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scorer.pt", "scorer.onnx"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    detector: Detector, tmp_path: Path, name: str
) -> None:
    file_format = "torchscript" if name.endswith(".pt") else "onnx"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match=f"cannot write .*{name}"):
            export_detector(detector, tmp_path / name, file_format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda x: None if x == "onnxruntime" else find_spec(x)
    )
    with pytest.raises(UserError, match=r"needs onnxruntime: .*\[export\]"):
        export_detector(detector, tmp_path / "scorer.onnx", "onnx")


def test_the_command_writes_beside_the_model(detector: Detector, tmp_path: Path) -> None:
    save_detector(tmp_path / "model", detector)
    command = ["export", str(tmp_path / "model"), "--format"]
    result = invoke(*command, "torchscript")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model" / "model.pt").is_file()
    wrong = invoke(*command, "tflite")
    assert wrong.exit_code == 2
    assert "onnx, torchscript" in wrong.stderr
