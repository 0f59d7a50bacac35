"""Exports the complete scorer as one file for other runtimes: ONNX, or TorchScript.

Inputs: `images`, uint8 (N, S, S, 3) RGB, and `size`, int64 (2,), the original height H and width W
of these images. `read_pixels` returns both, and the metadata describe its steps in words.
Outputs: `scores`, float64 (N,), and `maps`, float64 (N, H, W), whose maxima are the scores.

N, H and W are free. Scores and maps are float64, as in `predict`: in float32, the sigmoid of large
differences would saturate.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfsc_tune import __version__
from dfsc_tune.data.images import PREPROCESSING
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import Detector
from dfsc_tune.models.pdn import normalize_images
from dfsc_tune.models.scoring import DifferenceMaps, combined_maps, logit_of_complement
from dfsc_tune.models.teacher import teacher_identity
from dfsc_tune.settings import dump
from dfsc_tune.storage.atomic import atomic_path

Format = Literal["onnx", "torchscript"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
TOLERANCE = 1e-4
"""Largest allowed difference of a score from that of `predict`; relative for scores above 1."""

_OPSET = 18
_INPUTS = (
    "images: uint8 (N, image_size, image_size, 3) RGB, not scaled; "
    "size: int64 (2,), the upright height and width that the N images had before"
)
_CHECKED_SIZES = ((90, 130), (256, 256), (48, 32))
_CHECKED_IMAGES = 3


class Scorer(nn.Module):
    """A detector as one module of tensors only, with the inputs and outputs of the file."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.teacher = detector.teacher
        self.student = detector.student
        self.autoencoder = detector.autoencoder
        self.normalization = detector.normalization
        self.config = detector.config.score
        self.eval()

    def forward(self, images: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores (N,) and maps (N, H, W) of images (N, S, S, 3) of one original size."""
        normalized = normalize_images(images.permute(0, 3, 1, 2))
        features = self.teacher(normalized)
        answer = self.student(normalized)
        channels = features.shape[1]
        local = (features - answer[:, :channels]).square().mean(dim=1)
        global_ = (self.autoencoder(normalized) - answer[:, channels:]).square().mean(dim=1)
        combined = combined_maps(DifferenceMaps(local, global_), self.normalization, self.config)
        # Two matrix products resize bilinearly, as runtimes lack a resize in float64.
        rows = _bilinear_weights(size[0], combined.shape[1])
        columns = _bilinear_weights(size[1], combined.shape[2])
        resized = rows @ combined @ columns.T
        if self.config.sigmoid:
            return logit_of_complement(resized.amin(dim=(1, 2))), logit_of_complement(resized)
        return resized.amax(dim=(1, 2)), resized


def export_detector(detector: Detector, target: Path, file_format: Format) -> float:
    """Writes the scorer and checks it against `predict`.

    Args:
        detector: from `load_detector`.
        target: the file; it is put in place only after it has passed the check.
        file_format: ONNX or TorchScript.

    Returns:
        The largest difference of a score in the check.

    Raises:
        UserError: packages are missing, the target cannot be written, or the file's scores differ.
    """
    images = _noise(detector.config.model.image_size)
    example = (torch.from_numpy(images), torch.tensor(_CHECKED_SIZES[0]))
    write, run = {
        "onnx": (_write_onnx, _onnx_runner),
        "torchscript": (_write_torchscript, _torchscript_runner),
    }[file_format]
    scorer = Scorer(detector)
    with atomic_path(target) as temporary:
        with _quiet(), torch.no_grad():
            # Called once before: cached tensors must not be made while an exporter traces.
            scorer(*example)
            write(scorer, example, temporary, metadata(detector))
        difference = _largest_difference(detector, run(temporary), images)
        if difference > TOLERANCE:
            raise UserError(
                f"the exported scorer differs from predict by {difference:.2g}, more than "
                f"{TOLERANCE:g}, so it was not written; please report this with your versions of "
                "torch, onnx and onnxruntime"
            )
    return difference


def metadata(detector: Detector) -> dict[str, str]:
    """Returns the file's description of itself; all values are text."""
    return {
        "category": detector.config.category,
        "threshold": repr(detector.threshold),
        "image_size": str(detector.config.model.image_size),
        "inputs": _INPUTS,
        "preprocessing": PREPROCESSING,
        "origin": detector.origin,
        "dfsc_tune_version": __version__,
        "teacher_sha256": teacher_identity(detector.teacher),
        "config": dump(detector.config),
    }


_Run = Callable[[npt.NDArray[np.uint8], tuple[int, int]], npt.NDArray[np.float64]]


def _write_onnx(
    scorer: Scorer, example: tuple[Tensor, Tensor], path: Path, texts: dict[str, str]
) -> None:
    missing = [x for x in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(x)]
    if missing:
        raise UserError(
            f"ONNX needs {', '.join(missing)}: install the extra, pip install 'dfsc-tune[export]'"
        )
    program = torch.onnx.export(
        scorer,
        example,
        dynamo=True,
        opset_version=_OPSET,
        input_names=["images", "size"],
        output_names=["scores", "maps"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}, "size": None},
        verbose=False,
    )
    assert program is not None, "the exporter returns one when given no file"
    program.model.metadata_props.update(texts)
    program.save(str(path))


def _onnx_runner(path: Path) -> _Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        inputs = {"images": images, "size": np.array(size, dtype=np.int64)}
        scores: npt.NDArray[np.float64] = session.run(["scores"], inputs)[0]
        return scores

    return run


def _write_torchscript(
    scorer: Scorer, example: tuple[Tensor, Tensor], path: Path, texts: dict[str, str]
) -> None:
    traced = torch.jit.trace(scorer, example, check_trace=False)
    # By memory: torch's own writing of a file aborts the process where the disk is full.
    content = io.BytesIO()
    torch.jit.save(traced, content, _extra_files={k: v.encode() for k, v in texts.items()})
    path.write_bytes(content.getbuffer())


def _torchscript_runner(path: Path) -> _Run:
    with _quiet():
        loaded = torch.jit.load(str(path))

    def run(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            scores: npt.NDArray[np.float64] = loaded(torch.from_numpy(images), torch.tensor(size))[
                0
            ].numpy()
        return scores

    return run


def _largest_difference(detector: Detector, run: _Run, images: npt.NDArray[np.uint8]) -> float:
    """Returns the largest difference from `predict`, over several sizes and batches."""
    largest = 0.0
    for count, size in enumerate(_CHECKED_SIZES, start=1):
        batch = images[:count]
        maps = detector.difference_maps(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        expected = detector.scores(maps, np.array([size] * count, dtype=np.int32))
        scale = np.maximum(1.0, np.abs(expected))
        found = np.abs(run(batch, size) - expected) / scale
        largest = max(largest, float(found.max()))
    return largest


def _noise(image_size: int) -> npt.NDArray[np.uint8]:
    """Returns images of coarse and of fine noise, so that scores of several magnitudes occur."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (_CHECKED_IMAGES, 8, 8, 3), dtype=np.uint8)
    scale = -(-image_size // 8)
    images = coarse.repeat(scale, axis=1).repeat(scale, axis=2)[:, :image_size, :image_size]
    images = images.copy()
    images[-1] = generator.integers(0, 256, images[-1].shape, dtype=np.uint8)
    return images


def _bilinear_weights(length: Tensor, cells: int) -> Tensor:
    """Returns the matrix (length, cells) that resizes a row of cells as `interpolate` does."""
    # A tensor, not a number, so that the length stays free in the trace.
    numbers = torch.arange(length, dtype=torch.float64)  # type: ignore[call-overload]
    places = (numbers + 0.5) * (cells / length.double()) - 0.5
    places = places.clamp(0, cells - 1)
    return torch.relu(1 - (places[:, None] - torch.arange(cells, dtype=torch.float64)).abs())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporters' own messages from the user: the check decides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
