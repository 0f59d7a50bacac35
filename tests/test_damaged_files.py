"""Whatever befalls a file of what was computed, reading it ends in a sentence or the right result.

`DFSC_TUNE_MUTATIONS=1000 pytest tests/test_damaged_files.py` tries more of each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import Detector, load_detector, save_detector
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.state_dicts import pdn_sha256
from dfsc_tune.models.teacher import load_teacher, teacher_identity
from dfsc_tune.models.teacher_files import TeacherCard, card_path
from dfsc_tune.settings import dump
from dfsc_tune.storage import checkpoints
from dfsc_tune.storage.digest import file_sha256
from dfsc_tune.storage.documents import read_yaml
from dfsc_tune.storage.parquet import read_parquet, write_parquet
from dfsc_tune.synthetic import store
from dfsc_tune.synthetic.anomalies import Anomaly
from dfsc_tune.training.prepare import CategoryData
from dfsc_tune.training.trial import finished_detector, run_trial
from tests.support.damage import mutations


def wrong_of(path: Path, read: Callable[[], bool], seed: int = 0) -> list[str]:
    """The mutations of a file after which `read` neither refuses it nor says that all is right."""
    whole = path.read_bytes()
    wrong = []
    for name, damaged in mutations(whole, seed):
        path.write_bytes(damaged)
        try:
            if not read():
                wrong.append(name)
        except UserError:
            pass
    path.write_bytes(whole)
    assert read()
    return wrong


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(x, b[name]) for name, x in a.items())
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def test_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    weights = torch.randn(50, 400)
    state = {"training": {"step": 4, "student": weights}, "config": {"seed": 0}, "x": [1.5, None]}
    checkpoints.save(path, state)
    assert wrong_of(path, lambda: equal(checkpoints.load(path, dict), state)) == []


@pytest.fixture
def detector(trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path) -> Detector:
    run_trial(trial_config, category_data.trial, lambda _: None, tmp_path / "work")
    return finished_detector(
        trial_config, category_data.trial, tmp_path / "work", training_digests=("a", "b")
    )


@pytest.mark.parametrize("name", ["model.yaml", "model.safetensors"])
def test_a_model(detector: Detector, tmp_path: Path, name: str) -> None:
    save_detector(tmp_path, detector)

    def is_right() -> bool:
        found = load_detector(tmp_path)
        return all(
            getattr(found, x) == getattr(detector, x)
            for x in ("config", "threshold", "normalization", "num_validation", "training_digests")
        ) and all(
            equal(getattr(found, x).state_dict(), getattr(detector, x).state_dict())
            for x in ("teacher", "student", "autoencoder")
        )

    assert wrong_of(tmp_path / name, is_right) == []


def test_a_model_of_version_0_1_0_is_read(detector: Detector, tmp_path: Path) -> None:
    save_detector(tmp_path, detector)
    card = tmp_path / "model.yaml"
    above, _, digest = card.read_text().rpartition("card_sha256: ")
    assert len(digest.strip()) == 64
    card.write_text(above)
    assert load_detector(tmp_path).threshold == detector.threshold
    card.write_text(f"{above.replace('threshold: ', 'threshold: 1')}card_sha256: {digest}")
    with pytest.raises(UserError, match=r"model\.yaml is not as it was written.*--threshold"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("local_quantiles", [2.0, 1.0], "local_quantiles: the first must not exceed the second"),
        ("global_quantiles", [2.0, 1.0], "global_quantiles: the first must not exceed the second"),
        ("num_validation", -30, "num_validation: must be greater than or equal to 1"),
        ("threshold", float("nan"), "threshold: must be a finite number"),
    ],
)
def test_a_model_card_without_a_digest_holds_possible_numbers(
    detector: Detector, tmp_path: Path, key: str, value: object, message: str
) -> None:
    save_detector(tmp_path, detector)
    card = tmp_path / "model.yaml"
    tree = read_yaml(card)
    del tree["card_sha256"]
    card.write_text(yaml.safe_dump(tree))
    load_detector(tmp_path)
    card.write_text(yaml.safe_dump({**tree, key: value}))
    with pytest.raises(UserError, match=message):
        load_detector(tmp_path)


@pytest.mark.parametrize("name", ["teacher.pth", "teacher.safetensors", "teacher.yaml"])
def test_a_teacher(tmp_path: Path, name: str) -> None:
    pdn = build_pdn("tiny", teacher_channels("tiny"))
    weights = tmp_path / name.replace("yaml", "safetensors")
    if weights.suffix == ".pth":
        # torch's own checksums do without a card.
        torch.save(pdn.state_dict(), weights)
    else:
        save_file(pdn.state_dict(), weights)
        card = TeacherCard(
            network="tiny",
            origin="a test",
            file_sha256=file_sha256(weights),
            teacher_sha256=pdn_sha256(pdn),
        )
        card_path(weights).write_text(dump(card))
    model = ModelConfig(network="tiny", teacher=str(weights))
    right = pdn_sha256(pdn)
    assert wrong_of(tmp_path / name, lambda: teacher_identity(load_teacher(model)) == right) == []


def test_stored_anomalies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFSC_TUNE_CACHE", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    pixels[:, 20:] = 90
    made = [Anomaly("scar", "structural", 1, pixels, pixels[0] > 90)]
    monkeypatch.setattr(store, "make_anomalies", lambda *_: made)
    good, large = pixels[None], pixels[None].repeat(2, axis=2).repeat(2, axis=3)

    def is_right(seed: int = 0) -> bool:
        (found,) = store.stored_anomalies(good, large, {"scar": 1}, seed)
        return (found.recipe, found.kind, found.source) == ("scar", "structural", 1) and all(
            np.array_equal(getattr(found, x), getattr(made[0], x)) for x in ("pixels", "mask")
        )

    assert is_right()
    (path,) = tmp_path.rglob("*.npz")
    assert wrong_of(path, is_right) == []
    # Of another seed, under this one's name.
    made[:] = [Anomaly("scar", "structural", 0, pixels // 2, pixels[0] > 90)]
    store.stored_anomalies(good, large, {"scar": 1}, 7)
    (other,) = set(tmp_path.rglob("*.npz")) - {path}
    other.replace(path)
    made[:] = [Anomaly("scar", "structural", 1, pixels, pixels[0] > 90)]
    assert is_right()


def test_the_pages_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "reports.parquet"
    table = pd.DataFrame({"value": np.random.default_rng(0).random(20_000), "trial": "0001"})
    write_parquet(path, table)
    assert wrong_of(path, lambda: read_parquet(path, "").to_pandas().equals(table)) == []
