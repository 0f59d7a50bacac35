"""Distils a teacher from a folder of photographs into a weights file with a card; resumable."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file

from dfsc_tune import __version__
from dfsc_tune.config import Network
from dfsc_tune.data.files import is_image_name, map_in_threads
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.data.images import decode_images
from dfsc_tune.errors import UserError
from dfsc_tune.models.distill_config import DistillConfig
from dfsc_tune.models.state_dicts import pdn_sha256, read_pdn
from dfsc_tune.models.teacher_files import TeacherCard, card_path
from dfsc_tune.settings import dump, validate
from dfsc_tune.storage.atomic import atomic_path, write_text
from dfsc_tune.storage.checkpoints import load_newest, save_next
from dfsc_tune.storage.digest import file_sha256, has_changed, write_sums
from dfsc_tune.teachers.backbones import Backbone, backbone_kind, load_backbone
from dfsc_tune.teachers.distillation import Distillation
from dfsc_tune.teachers.targets import Targets, compute_features, feature_shapes, fit_targets

_BATCH = 8
_INTERVAL = 100

ProgressCallback = Callable[[int, int, str], None]
"""Called with the amount done, the amount in all, and what is being done."""


@dataclass(frozen=True)
class DistillRequest:
    """The user's request for a distillation."""

    config: DistillConfig
    images: Path
    """A folder of photographs, including its subfolders."""
    output: Path
    """The .safetensors file to make; its card goes beside it."""
    about_images: str
    """The card's words on the photographs: what they are, their origin and their licence."""
    command: str
    hardware: str
    device: str = "cpu"


@dataclass(frozen=True)
class _Defaults:
    """Default settings of a network: minutes on a CPU for tiny, else EfficientAD's training."""

    image_size: int
    num_steps: int
    learning_rate: float


_DEFAULTS: dict[Network, _Defaults] = {
    "tiny": _Defaults(image_size=128, num_steps=2_500, learning_rate=1e-3),
    "small": _Defaults(image_size=256, num_steps=60_000, learning_rate=1e-4),
    "medium": _Defaults(image_size=256, num_steps=60_000, learning_rate=1e-4),
}


def distill_config(network: str, backbone: str, **given: Any) -> DistillConfig:
    """Returns a distillation's settings: those given, and defaults for network and backbone.

    Args:
        network: of the teacher.
        backbone: one of `BACKBONES`.
        given: other settings; None counts as not given.

    Raises:
        UserError: a setting is not allowed.
    """
    if network not in get_args(Network):
        raise UserError(f"no network '{network}'; choose from {', '.join(get_args(Network))}")
    known: Network = network  # type: ignore[assignment]
    tree: dict[str, Any] = {
        "network": known,
        "backbone": backbone,
        "layers": backbone_kind(backbone).layers[known],
        **vars(_DEFAULTS[known]),
        **{key: value for key, value in given.items() if value is not None},
    }
    return validate(DistillConfig, tree, source="command line")


def distill(
    request: DistillRequest,
    progress: ProgressCallback,
    note: Callable[[str], None] = warnings.warn,
) -> TeacherCard:
    """Makes a teacher's weights and card; goes on from an interrupted distillation if there is one.

    Until it ends, a folder beside the output holds the backbone's features (about 200 kB of disk
    for each photograph and an EfficientNet-Lite) and checkpoints; then the folder is deleted.

    Args:
        request: the user's request.
        progress: called with the progress.
        note: called with a sentence on damaged files of an interrupted distillation, and the
            remedy taken.

    Raises:
        UserError: the photographs cannot be read, the backbone is not installed, the output exists,
            or the folder holds a distillation with other settings.
    """
    config = request.config
    if request.output.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, not '{request.output.name}'")
    if request.output.exists():
        raise UserError(f"{request.output} exists; delete it or choose another --output")
    photographs = _find_photographs(request.images)
    work = request.output.with_suffix(".distill")
    _claim(work, config, photographs)
    targets = _targets(work, config, photographs, request.device, progress, note)
    progress(0, len(photographs), "reading photographs")
    pixels = decode_images(photographs, config.image_size).pixels
    begin = partial(Distillation, config, pixels, targets, request.device)
    training, curve, seconds = _train(begin, work / "checkpoint.pt", progress, note)
    card = _write_teacher(request, training, len(photographs), curve, seconds)
    shutil.rmtree(work)
    return card


def _train(
    begin: Callable[[], Distillation],
    checkpoint: Path,
    progress: ProgressCallback,
    note: Callable[[str], None],
) -> tuple[Distillation, list[tuple[int, float]], float]:
    """Trains to the end; returns the training, its loss curve and its seconds."""

    def restore(
        training: Distillation, state: dict[str, Any]
    ) -> tuple[list[tuple[int, float]], float]:
        training.load_state_dict(state["training"])
        return state["curve"], state["seconds"]

    training, restored = load_newest(checkpoint, begin, restore, note)
    curve, seconds = restored or ([], 0.0)
    num_steps = training.config.num_steps
    while training.step < num_steps:
        start = time.perf_counter()
        loss = training.run(min(num_steps, training.step + _INTERVAL))
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {loss} before step {training.step}; delete {checkpoint.parent} "
                "and lower --learning-rate"
            )
        seconds += time.perf_counter() - start
        curve.append((training.step, round(loss, 4)))
        save_next(
            checkpoint, {"training": training.state_dict(), "curve": curve, "seconds": seconds}
        )
        progress(training.step, num_steps, f"distilling (loss {loss:.3f})")
    return training, curve, seconds


def _targets(
    work: Path,
    config: DistillConfig,
    photographs: list[Path],
    device: str,
    progress: ProgressCallback,
    note: Callable[[str], None],
) -> Targets:
    """Returns the backbone's features of all photographs, from the work folder if it has them."""
    folder = work / "features"
    if has_changed(folder):
        note(f"the features in {folder} are damaged, so they are computed again")
        shutil.rmtree(folder)
    if not folder.exists():
        # Renamed only when complete, so that half-written features are never trained on.
        unfinished = work / "features.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _write_features(unfinished, config, photographs, device, progress)
        write_sums(unfinished)
        unfinished.rename(folder)
    opened = [np.load(_layer_file(folder, layer), mmap_mode="r") for layer in config.layers]
    progress(0, len(photographs), "normalising features")
    return fit_targets(opened, config.image_size // 4, device)


def _write_features(
    folder: Path,
    config: DistillConfig,
    photographs: list[Path],
    device: str,
    progress: ProgressCallback,
) -> None:
    backbone = load_backbone(config.backbone, config.layers).to(device)
    shapes = feature_shapes(backbone, config.network)
    maps = [
        np.lib.format.open_memmap(
            _layer_file(folder, layer), "w+", np.float16, (2, len(photographs), *shape)
        )
        for layer, shape in zip(config.layers, shapes, strict=True)
    ]
    batches = _decoded(photographs, backbone)
    for done in compute_features(backbone, batches, maps, config, device):
        progress(done, len(photographs), f"running {config.backbone}")
    for layer_maps in maps:
        layer_maps.flush()


def _layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer_{layer}.npy"


def _decoded(photographs: list[Path], backbone: Backbone) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(photographs), _BATCH):
        batch = photographs[start : start + _BATCH]
        yield decode_images(batch, backbone.image_size).pixels


def _find_photographs(folder: Path) -> list[Path]:
    found = sorted(x for x in folder.rglob("*") if is_image_name(x) and x.is_file())
    if not found:
        raise UserError(f"no images in {folder}; --images needs a folder of photographs")
    return found


def _claim(work: Path, config: DistillConfig, photographs: list[Path]) -> None:
    """Marks the work folder as this distillation's; raises UserError if it is another's."""
    digests = "".join(map_in_threads(content_digest, photographs))
    header = f"photographs: {sha256(digests.encode()).hexdigest()}"
    settings = dump(config, header)
    marker = work / "settings.yaml"
    if not marker.exists():
        write_text(marker, settings)
    elif marker.read_bytes() != settings.encode():
        raise UserError(
            f"{work} holds an unfinished distillation with other settings or photographs; repeat "
            "its command, delete the folder, or choose another --output"
        )


def _write_teacher(
    request: DistillRequest,
    training: Distillation,
    num_images: int,
    curve: list[tuple[int, float]],
    seconds: float,
) -> TeacherCard:
    config = request.config
    licence = backbone_kind(config.backbone).licence
    weights = {
        name: tensor.detach().half().cpu().contiguous()
        for name, tensor in training.pdn.state_dict().items()
    }
    with atomic_path(request.output) as temporary:
        save_file(weights, temporary)
    card = TeacherCard(
        network=config.network,
        origin=f"distilled by dfsc-tune from {config.backbone} on {num_images} photographs",
        licence=f"that of the backbone's weights: {licence}",
        file_sha256=file_sha256(request.output),
        teacher_sha256=pdn_sha256(read_pdn(request.output, config.network)),
        dfsc_tune_version=__version__,
        command=request.command,
        images=request.about_images,
        num_images=num_images,
        seconds=round(seconds, 1),
        hardware=request.hardware,
        loss_curve=tuple(curve),
        distilled=config,
    )
    write_text(card_path(request.output), dump(card))
    return card
