"""A trained model for use: it scores images and is kept in a folder of two files."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dfsc_tune import __version__
from dfsc_tune.config import TrialConfig
from dfsc_tune.data.prepared import shared_tensor
from dfsc_tune.errors import UserError
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.scoring import (
    DifferenceMaps,
    MapNormalization,
    anomaly_maps,
    difference_maps,
    image_scores,
)
from dfsc_tune.models.teacher import Teacher, teacher_features, teacher_identity
from dfsc_tune.settings import Settings, dump, loads
from dfsc_tune.storage.atomic import atomic_path, write_text
from dfsc_tune.storage.digest import file_sha256
from dfsc_tune.storage.documents import read_text

_WEIGHTS = "model.safetensors"
_CARD = "model.yaml"
_OWN_DIGEST = "card_sha256: "


class ModelCard(Settings):
    """`model.yaml`: the origin of the weights, and the way from their maps to scores."""

    origin: str
    """The run and trial, or the config, that the model comes from."""
    dfsc_tune_version: str
    teacher_sha256: str
    weights_sha256: str
    """Of `model.safetensors`, so that a card is not used with other weights."""
    local_quantiles: tuple[float, float] = Field(strict=False)
    global_quantiles: tuple[float, float] = Field(strict=False)
    threshold: float
    """The highest score of a good validation image: above it, an image is called anomalous."""
    num_validation: Annotated[int, Field(ge=1)] | None = None
    """Number of good validation images; missing in cards of earlier versions."""
    config: TrialConfig
    selection_digests: tuple[str, ...] = Field(strict=False)
    """Content digests of the labelled images that the model was chosen on."""
    training_digests: tuple[str, ...] = Field((), strict=False)
    """Digests of its good training and validation images; missing in earlier versions' cards."""
    card_sha256: str | None = None
    """Of the card's lines above this one; missing in cards of earlier versions."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (
            ("local_quantiles", self.local_quantiles),
            ("global_quantiles", self.global_quantiles),
        ):
            # They are equal where all of a map is.
            if low > high:
                raise ValueError(f"{name}: the first must not exceed the second")
        return self


@dataclass(frozen=True)
class Detector:
    """Frozen networks, the normalisation of their maps and the decision threshold."""

    config: TrialConfig
    teacher: Teacher
    student: nn.Module
    autoencoder: nn.Module
    normalization: MapNormalization
    threshold: float
    num_validation: int | None = None
    origin: str = ""
    selection_digests: tuple[str, ...] = ()
    training_digests: tuple[str, ...] = ()

    def difference_maps(
        self,
        pixels: npt.NDArray[np.uint8],
        features: npt.NDArray[np.float32] | None = None,
        device: str = "cpu",
    ) -> DifferenceMaps:
        """Returns the raw maps of uint8 images (N, 3, S, S).

        Args:
            pixels: the images.
            features: their teacher features, if known; else they are computed.
            device: where the networks run.
        """
        if features is None:
            features = teacher_features(self.teacher, pixels, device=device)
        (maps,) = difference_maps(
            [self.student.to(device)],
            self.autoencoder.to(device),
            shared_tensor(pixels, device),
            shared_tensor(features, device),
        )
        return maps

    def scores(self, maps: DifferenceMaps, sizes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Returns image scores (N,); the higher, the more anomalous."""
        return image_scores(maps, self.normalization, sizes, self.config.score)

    def anomaly_maps(
        self, maps: DifferenceMaps, sizes: npt.NDArray[np.int32]
    ) -> list[npt.NDArray[np.float32]]:
        """Returns anomaly maps (H, W) at the images' original sizes; the maxima are the scores."""
        return anomaly_maps(maps, self.normalization, sizes, self.config.score)


def save_detector(folder: Path, detector: Detector) -> None:
    """Writes `model.safetensors` and `model.yaml` into a folder, each atomically."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, module in _parts(detector).items()
        for name, tensor in module.state_dict().items()
    }
    weights = folder / _WEIGHTS
    with atomic_path(weights) as temporary:
        save_file(tensors, temporary)
    card = ModelCard(
        origin=detector.origin,
        dfsc_tune_version=__version__,
        teacher_sha256=teacher_identity(detector.teacher),
        weights_sha256=file_sha256(weights),
        local_quantiles=detector.normalization.local,
        global_quantiles=detector.normalization.global_,
        threshold=detector.threshold,
        num_validation=detector.num_validation,
        selection_digests=detector.selection_digests,
        training_digests=detector.training_digests,
        config=detector.config,
    )
    above = dump(card).removesuffix(f"{_OWN_DIGEST}null\n")
    write_text(folder / _CARD, f"{above}{_OWN_DIGEST}{_text_sha256(above)}\n")


def load_detector(folder: Path) -> Detector:
    """Reads a model folder.

    Raises:
        UserError: the folder holds no model, or its files are damaged or do not belong together.
    """
    if not (folder / _CARD).is_file():
        raise UserError(
            f"{folder} holds no {_CARD}; give a model folder, such as results/RUN/models/CATEGORY"
        )
    card = _read_card(folder / _CARD)
    model = card.config.model
    channels = teacher_channels(model.network)
    detector = Detector(
        config=card.config,
        teacher=Teacher(build_pdn(model.network, channels)),
        student=build_pdn(model.network, 2 * channels).eval().requires_grad_(False),
        autoencoder=build_autoencoder(model).eval().requires_grad_(False),
        normalization=MapNormalization(card.local_quantiles, card.global_quantiles),
        threshold=card.threshold,
        num_validation=card.num_validation,
        origin=card.origin,
        selection_digests=card.selection_digests,
        training_digests=card.training_digests,
    )
    try:
        if file_sha256(folder / _WEIGHTS) != card.weights_sha256:
            raise ValueError("the card was written for other weights")
        tensors = load_file(folder / _WEIGHTS)
        for part, module in _parts(detector).items():
            prefix = f"{part}."
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder / _WEIGHTS} is missing, damaged or not the weights of its {_CARD}; "
            "copy the model folder again, or train the model again"
        ) from error
    return detector


def _read_card(path: Path) -> ModelCard:
    text = read_text(path)
    card = loads(text, ModelCard, source=str(path))
    above, _, _ = text.rpartition(_OWN_DIGEST)
    if card.card_sha256 not in (None, _text_sha256(above)):
        raise UserError(
            f"{path} is not as it was written; copy the model folder again or train anew, and give "
            "a threshold of your own by --threshold"
        )
    return card


def _text_sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _parts(detector: Detector) -> dict[str, nn.Module]:
    return {
        "teacher": detector.teacher,
        "student": detector.student,
        "autoencoder": detector.autoencoder,
    }
