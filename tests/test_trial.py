"""One trial's story: reports, checkpoints, resuming, and the detector that comes of it."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfsc_tune.config import TrialConfig
from dfsc_tune.data.images import decode_images
from dfsc_tune.data.prepared import PreparedImages
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.models.detector import load_detector, save_detector
from dfsc_tune.progress import CHECKPOINT, Progress
from dfsc_tune.search.single import train_config
from dfsc_tune.settings import loads
from dfsc_tune.storage import atomic
from dfsc_tune.storage import checkpoints as checkpoint
from dfsc_tune.training.prepare import CategoryData, prepare_images
from dfsc_tune.training.train import Training
from dfsc_tune.training.trial import finished_detector, run_trial


class Stop(Exception):
    """What an engine raises in a report to stop a trial."""


def test_reports_come_at_the_interval_and_after_the_last_step(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    config = trial_config.model_copy(
        update={"train": trial_config.train.model_copy(update={"num_steps": 10})}
    )
    reports: list[Progress] = []
    last = run_trial(config, category_data.trial, reports.append, tmp_path)
    assert [progress.step for progress in reports] == [4, 8, 10]
    assert last == reports[-1]
    assert set(last.metrics) == {0.9, 0.0}
    assert last.value == last.metrics[0.9]["auroc_mean"]
    assert last.losses.keys() >= {"total", "dfsc", "teacher_student"}
    assert reports[0].seconds < reports[1].seconds < reports[2].seconds


def test_a_stopped_trial_goes_on_as_if_it_had_not_been(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        run_trial(trial_config, category_data.trial, stop, tmp_path / "a")
    resumed: list[Progress] = []
    run_trial(trial_config, category_data.trial, resumed.append, tmp_path / "a")
    whole: list[Progress] = []
    run_trial(trial_config, category_data.trial, whole.append, tmp_path / "b")
    # First what the checkpoint holds, once more: its report may have been lost.
    assert [progress.step for progress in resumed] == [4, 8]
    assert (resumed[0].metrics, resumed[0].losses) == (whole[0].metrics, whole[0].losses)
    assert (resumed[-1].metrics, resumed[-1].losses) == (whole[-1].metrics, whole[-1].losses)
    states = [checkpoint.load(tmp_path / x / CHECKPOINT, dict)["training"] for x in "ab"]
    for name, tensor in states[0]["student"].items():
        assert torch.equal(tensor, states[1]["student"][name])


def test_a_training_on_its_own_ends_by_what_interrupted_it(
    trial_config: TrialConfig, data_folder: Path, tmp_path: Path
) -> None:
    # As a SIGTERM is told from Ctrl-C, and so the command's status 143 from 130.
    class Terminated(KeyboardInterrupt):
        pass

    def terminate(progress: Progress) -> None:
        raise Terminated

    with pytest.raises(Terminated, match="interrupted: the last report was at step 4"):
        train_config(
            trial_config, data_folder, tmp_path / "x", note=lambda text: None, progress=terminate
        )


def test_a_finished_trial_is_not_trained_again(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    first = run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    reports: list[Progress] = []
    assert run_trial(trial_config, category_data.trial, reports.append, tmp_path) == first
    assert reports == [first]


def test_a_trial_is_given_no_image_of_the_report_part(category_data: CategoryData) -> None:
    given = {
        record.name
        for part in (
            category_data.trial.train,
            category_data.trial.validation,
            category_data.trial.selection,
        )
        for record in part.records
    }
    assert category_data.split.report
    assert not given & {record.name for record in category_data.split.report}
    images = [x for x in vars(category_data.trial).values() if isinstance(x, PreparedImages)]
    assert len(images) == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Within the tensors, where torch sees nothing wrong.
    middle = len(content) // 2
    content[middle : middle + 1024] = bytes(1024)
    path.write_bytes(content)


def altered(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    state = checkpoint.load(path, dict)
    change(state)
    checkpoint.save(path, state)


def of_another_config(path: Path) -> None:
    altered(path, lambda state: state["config"]["loss"].update(margin=0.5))


def half_of_it(path: Path) -> None:
    # What is loaded first is another's, what is loaded last is missing.
    def change(state: dict[str, Any]) -> None:
        for tensor in state["training"]["student"].values():
            tensor.zero_()
        del state["training"]["random"]

    altered(path, change)


def no_state(path: Path) -> None:
    torch.save([1, 2, 3], path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "data.pkl").touch()


@pytest.mark.parametrize("num_damaged", [1, 2])
@pytest.mark.parametrize("damage", [cut, zeroed, of_another_config, half_of_it, no_state, a_folder])
def test_a_trial_falls_back_to_the_newest_whole_checkpoint_and_says_so(
    trial_config: TrialConfig,
    category_data: CategoryData,
    tmp_path: Path,
    num_damaged: int,
    damage: Callable[[Path], None],
) -> None:
    whole: list[Progress] = []
    run_trial(trial_config, category_data.trial, whole.append, tmp_path)
    right = checkpoint.load(tmp_path / CHECKPOINT, dict)["training"]
    newest = tmp_path / CHECKPOINT
    for path in (newest, checkpoint.previous(newest))[:num_damaged]:
        damage(path)
    again: list[Progress] = []
    notes: list[str] = []
    run_trial(trial_config, category_data.trial, again.append, tmp_path, note=notes.append)
    # One report is of the checkpoint at step 4, or, without any, of training anew.
    assert [progress.step for progress in again] == [4, 8]
    assert [x.losses for x in again] == [x.losses for x in whole]
    assert again[-1].value == whole[-1].value
    states = (right, checkpoint.load(newest, dict)["training"])
    for part in ("student", "autoencoder"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name])
    instead = ("goes on from the one before it", "begins anew")[num_damaged - 1]
    assert notes == [
        f"the checkpoint {newest} is damaged or not of this training, so the training {instead}"
    ]


def test_a_checkpoint_of_version_0_1_0_is_gone_on_from(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    last = run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    altered(tmp_path / CHECKPOINT, lambda state: state.pop("config"))
    reports: list[Progress] = []
    run_trial(trial_config, category_data.trial, reports.append, tmp_path)
    assert reports == [last]


def test_a_trial_goes_on_where_its_files_were_moved(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    last = run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    moved = trial_config.model_copy(update={"data": "elsewhere"})
    reports: list[Progress] = []
    run_trial(moved, category_data.trial, reports.append, tmp_path)
    assert reports == [last]


def test_a_checkpoint_of_another_trial_makes_no_detector(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    other = trial_config.with_values({"alpha": 1.0})
    with pytest.raises(UserError, match="damaged or not of this training"):
        finished_detector(other, category_data.trial, tmp_path)


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    trial_config: TrialConfig,
    category_data: CategoryData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", unreachable)
    with pytest.raises(StorageError, match="cannot read the checkpoint"):
        run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)


@pytest.mark.parametrize("where", ["__init__", "load_state_dict"])
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:123] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_a_machine_that_fails_does_not_make_a_checkpoint_damaged(
    trial_config: TrialConfig,
    category_data: CategoryData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Training, where, fails)
    with pytest.raises(type(error)) as raised:
        run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    assert raised.value is error
    with pytest.raises(type(error)) as raised:
        finished_detector(trial_config, category_data.trial, tmp_path)
    assert raised.value is error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_that_fails_at_the_beginning_makes_a_checkpoint_damaged(
    trial_config: TrialConfig,
    category_data: CategoryData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)

    def fails(*_: object) -> None:
        raise RuntimeError("Found no NVIDIA driver")

    monkeypatch.setattr("dfsc_tune.training.trial.resident", fails)
    with pytest.raises(RuntimeError, match="no NVIDIA driver"):
        run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)


def test_a_checkpoint_that_is_damaged_or_not_the_last_makes_no_detector(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    checkpoint.previous(tmp_path / CHECKPOINT).replace(tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match=r"of step 4, not of the last"):
        finished_detector(trial_config, category_data.trial, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(
        UserError, match=r"trial\.pt is damaged .*; its trial has ended, so restore"
    ):
        finished_detector(trial_config, category_data.trial, tmp_path)


def test_a_saved_detector_scores_as_before(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    detector = finished_detector(
        trial_config, category_data.trial, tmp_path, origin="a test", selection_digests=("a", "b")
    )
    records = category_data.split.report
    known = prepare_images(records, detector.teacher, trial_config.model)
    maps = detector.difference_maps(known.pixels, known.features)
    scores = detector.scores(maps, known.sizes)
    save_detector(tmp_path / "model", detector)
    loaded = load_detector(tmp_path / "model")
    decoded = decode_images([record.path for record in records], 128)
    again = loaded.difference_maps(decoded.pixels)
    np.testing.assert_array_equal(loaded.scores(again, decoded.original_sizes), scores)
    maxima = [x.max() for x in loaded.anomaly_maps(again, decoded.original_sizes)]
    np.testing.assert_allclose(maxima, scores, rtol=1e-5)
    assert (loaded.threshold, loaded.origin, loaded.selection_digests) == (
        detector.threshold,
        "a test",
        ("a", "b"),
    )


def test_the_threshold_is_the_highest_good_validation_score(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    detector = finished_detector(trial_config, category_data.trial, tmp_path)
    validation = category_data.trial.validation
    maps = detector.difference_maps(validation.pixels, validation.features)
    assert detector.scores(maps, validation.sizes).max() == detector.threshold


@pytest.mark.parametrize(
    "damage",
    [
        "no card", "cut card", "no threshold",
        "no weights", "cut weights", "other weights", "other network",
    ],
)  # fmt: skip
def test_damaged_model_folders_are_refused(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path, damage: str
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    folder = tmp_path / "model"
    save_detector(folder, finished_detector(trial_config, category_data.trial, tmp_path))
    card, weights = folder / "model.yaml", folder / "model.safetensors"
    if damage == "no card":
        card.unlink()
    elif damage == "cut card":
        text = card.read_text()
        card.write_text(text[: text.index("\n- ") + 5])
    elif damage == "no threshold":
        card.write_text(re.sub("threshold: .*", "threshold: .nan", card.read_text()))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "other weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:9999])
    else:
        card.write_text(card.read_text().replace("network: tiny", "network: small"))
    with pytest.raises(UserError, match=r"model\.(yaml|safetensors)"):
        load_detector(folder)


EFFICIENTAD_S = """
loss: {margin: 0.0}
model: {network: tiny, image_size: 128, instance_norm_relu: false}
score: {sigmoid: false}
train: {num_steps: 2, report_interval: 2, optimizer: adam, beta2: 0.999, warmup: false,
        decay_share: 0.05, ema_momentum: 0.0, autoencoder_augmentation: true,
        penalty_images: PHOTOS}
"""
TABLE_4 = {
    "vanilla": "model: {network: tiny, image_size: 128, instance_norm_relu: false}\n"
    "score: {sigmoid: false}\nloss: {margin: 0}\ntrain: {ema_momentum: 0}",
    "IN+ReLU": "model: {network: tiny, image_size: 128}\n"
    "score: {sigmoid: false}\nloss: {margin: 0}\ntrain: {ema_momentum: 0}",
    "Sigmoid": "model: {network: tiny, image_size: 128}\nloss: {margin: 0}\n"
    "train: {ema_momentum: 0}",
    "DFSC": "model: {network: tiny, image_size: 128}\ntrain: {ema_momentum: 0}",
    "Momentum": "model: {network: tiny, image_size: 128}",
}


@pytest.mark.parametrize("row", TABLE_4)
def test_every_row_of_table_4_is_a_config(
    row: str, category_data: CategoryData, tmp_path: Path
) -> None:
    config = loads(f"category: tray\n{TABLE_4[row]}", TrialConfig, row)
    short = config.train.model_copy(update={"num_steps": 2, "report_interval": 2})
    config = config.model_copy(update={"train": short})
    last = run_trial(config, category_data.trial, lambda progress: None, tmp_path)
    assert 0 <= last.value <= 1
    assert (last.losses["dfsc"] > 0) == (row in ("DFSC", "Momentum"))


def test_efficientad_with_its_extras_is_a_config(
    trial_config: TrialConfig, data_folder: Path, tmp_path: Path
) -> None:
    from dfsc_tune.training.prepare import prepare_category

    photos = data_folder / "tray" / "train" / "good"
    text = f"category: tray\n{EFFICIENTAD_S.replace('PHOTOS', str(photos))}"
    config = loads(text, TrialConfig, "efficientad")
    data = prepare_category(config, data_folder)
    last = run_trial(config, data.trial, lambda progress: None, tmp_path)
    assert last.losses["penalty"] > 0
    assert last.losses["dfsc"] == 0


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")

    def break_off() -> None:
        with atomic.atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise Stop

    with pytest.raises(Stop):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_under_any_name_but_a_folder_s(tmp_path: Path) -> None:
    # As long as names may be.
    longest = tmp_path / f"{'é' * 125}.txt"
    atomic.write_text(longest, "text")
    assert longest.read_text() == "text"
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"the file .*folder: a folder has that name"):
        atomic.write_text(tmp_path / "folder", "text")
