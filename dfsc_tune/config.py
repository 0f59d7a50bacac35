"""The settings of one trial, their allowed values, and which of them a search may vary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from dfsc_tune.errors import UserError
from dfsc_tune.settings import Settings, validate
from dfsc_tune.storage.names import FileName

Network = Literal["tiny", "small", "medium"]
Metric = Literal["mean", "logical", "structural"]
FeatureDtype = Literal["float16", "float32"]
ObjectiveName = Literal["auto", "holdout", "synthetic", "oracle"]
PartRecipe = Literal[
    "removed", "doubled", "moved", "swapped", "replaced", "recoloured", "mirrored", "resized"
]
StructuralRecipe = Literal[
    "cut_paste", "scar", "blended_patch", "scratch", "stain", "texture", "blurred"
]
Recipe = Literal["exchanged", PartRecipe, StructuralRecipe]

Quantile = Annotated[float, Field(ge=0.0, lt=1.0)]
EmaMomentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class ModelConfig(Settings):
    """The three networks: EfficientAD's, with the paper's change to the autoencoder."""

    network: Network = "small"
    """The PDN of teacher and student. `tiny` is `small` at a quarter of its widths, for CPUs."""
    image_size: Annotated[int, Field(ge=128, le=4096, multiple_of=32)] = 256
    """Images are resized to a square of this many pixels a side."""
    teacher: str | None = None
    """A weights file (.safetensors or .pth), the name of a teacher that was fetched or registered,
    or `random` for fixed random features; by default, the teacher shipped for the network."""
    instance_norm_relu: bool = True
    """Instance norm before the autoencoder's ReLUs and a ReLU at its decoder's start (Table 4)."""


class LossConfig(Settings):
    """The total loss (Eq. 7), and the choices in it that the paper leaves open."""

    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """The constraint's margin m (Eq. 6); 0 switches the constraint off."""
    quantile: Quantile = 0.999
    """q' of the constraint's threshold (Eq. 3)."""
    hard_quantile: Quantile = 0.999
    """q of the hard-feature loss between teacher and student (Eq. 2)."""
    alpha: Annotated[float, Field(ge=0.0)] = 2.0
    """The constraint's weight in the total loss (Eq. 7)."""
    constraint_order: Literal["mask_first", "normalize_first"] = "mask_first"
    """The order of masking and of the L2 normalisation over channels (Eq. 4)."""
    detach_autoencoder: bool = False
    """Lets d_SA train the student alone, not the autoencoder too (Eq. 1)."""


class TrainConfig(Settings):
    """The training loop. Defaults are the paper's."""

    num_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = 70_000
    report_interval: Annotated[int, Field(ge=1)] = 5_000
    """Steps between two reports; each scores the selection part and saves a checkpoint."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.997
    warmup: bool = True
    """Untuned exponential warm-up: learning_rate · (1 − exp(−(1 − beta2)·t)) (Ma & Yarats)."""
    decay_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the steps, at the end, that are taken at a tenth of the learning rate."""
    ema_momentum: EmaMomentum = 0.99
    """μ of the student's moving average, which the scores use; 0 switches the average off."""
    extra_ema_momenta: Annotated[tuple[EmaMomentum, ...], Field(strict=False)] = ()
    """Further momenta to score from the same training, as gradients never see the average."""
    choose_ema_momentum: bool = False
    """Lets the best of all momenta scored count at a report, rather than `ema_momentum`."""
    autoencoder_augmentation: bool = False
    """EfficientAD's colour jitter of the autoencoder's input; the teacher runs in every step."""
    penalty_images: str | None = None
    """A folder of photographs for EfficientAD's penalty on the student, which uses ImageNet."""

    @property
    def ema_momenta(self) -> tuple[float, ...]:
        """All momenta scored, without repeats, the trial's own first."""
        return tuple(dict.fromkeys((self.ema_momentum, *self.extra_ema_momenta)))


class ScoreConfig(Settings):
    """The way from feature differences to an anomaly map."""

    sigmoid: bool = True
    """Passes each normalised map through a sigmoid before the two are averaged (Table 4)."""
    low_quantile: Quantile = 0.9
    """q_a: this quantile of the good validation images' maps is mapped to 0."""
    high_quantile: Quantile = 0.995
    """q_b: this quantile of the good validation images' maps is mapped to 0.1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_quantile >= self.high_quantile:
            raise ValueError("low_quantile must lie below high_quantile")
        return self


class SpeedConfig(Settings):
    """The options that make a trial fast. Each can be turned off and changes results by rounding
    at most."""

    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format of the networks' convolutions; weights, losses, quantiles and averages are
    always float32. `auto` means bfloat16 on devices that compute in it natively. On a GPU, PyTorch
    rounds float32 convolutions to TF32 unless it is told otherwise."""
    channels_last: bool = True
    """Keeps the channels of networks and images together in memory."""
    half_features: bool = True
    """Keeps the teacher's features in float16, which halves their memory."""
    cuda_graph: bool = True
    """On a GPU, records a step once and then replays it with a single launch."""
    steps_per_launch: Literal[1] = 1
    """Steps in one such launch; a constant that files of earlier versions contain."""

    @property
    def feature_dtype(self) -> FeatureDtype:
        """NumPy's name of the number format in which the teacher's features are kept."""
        return "float16" if self.half_features else "float32"


PLAIN = SpeedConfig(precision="float32", channels_last=False, half_features=False, cuda_graph=False)
"""All options off: plain PyTorch in float32, with which the fast path is compared."""


class ObjectiveConfig(Settings):
    """The objective: the images and the metric that trials are judged by."""

    name: ObjectiveName = "auto"
    """`holdout` splits the labelled images into a selection and a report part; `synthetic` selects
    on anomalies made from held-out good images and reports on all labelled ones; `oracle` selects
    and reports on the same test images, as the paper did. `auto` is `holdout` where the test
    folder has good images and at least five anomalies, else `synthetic`."""
    metric: Metric = "mean"
    """The image AUROC to maximise: of logical defects, of structural ones, or their mean."""
    selection_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """`holdout`: the share of each defect type that the search may see."""
    split_seed: int = 0
    """The seed of the split (`holdout`) or of the synthetic anomalies (`synthetic`)."""
    recipes: Annotated[tuple[Recipe, ...], Field(strict=False, min_length=1)] = (
        "exchanged",
        *get_args(StructuralRecipe),
    )
    """`synthetic`: the recipes of the anomalies; those of a kind have equal weight."""
    per_kind: Annotated[int, Field(ge=1)] = 240
    """`synthetic`: anomalies to make of each kind, divided equally among its recipes. The last
    report of a training scores all of them, earlier reports score a quarter."""


class TrialConfig(Settings):
    """Everything that decides a trial's result; `dfsc-tune train --config` reads one."""

    category: FileName
    data: str | None = None
    """The folder that holds the categories; by default, the built-in data."""
    objective: ObjectiveConfig = ObjectiveConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    speed: SpeedConfig = SpeedConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def with_absolute_paths(self) -> TrialConfig:
        """Returns the settings with absolute paths, so that files are found from any folder."""
        tree = self.model_dump()
        # A teacher may also be a name, and a folder may happen to have it: only files count.
        if (teacher := self.model.teacher) and Path(teacher).is_file():
            tree["model"]["teacher"] = str(Path(teacher).resolve())
        if photographs := self.train.penalty_images:
            tree["train"]["penalty_images"] = os.path.realpath(photographs)
        return TrialConfig.model_validate(tree)

    def with_values(self, values: Mapping[str, float | int | str | bool]) -> TrialConfig:
        """Returns the settings with some searchable ones replaced, validated again.

        Args:
            values: new values, by the names in `SEARCHABLE`; an `ema_momentum` among them turns
                `choose_ema_momentum` off.

        Raises:
            UserError: a name is not searchable or a value is not allowed.
        """
        tree = self.model_dump()
        for name, value in values.items():
            group_of(tree, name)[name] = value
        if "ema_momentum" in values:
            tree["train"]["choose_ema_momentum"] = False
        return validate(TrialConfig, tree, source="settings")

    def with_momentum(self, ema_momentum: float) -> TrialConfig:
        """Returns the settings of the same training with one of its scored momenta alone."""
        if not self.train.choose_ema_momentum:
            return self
        train = {
            "ema_momentum": ema_momentum,
            "extra_ema_momenta": (),
            "choose_ema_momentum": False,
        }
        return self.model_copy(update={"train": self.train.model_copy(update=train)})


_NOT_SEARCHED = (
    "network",
    "image_size",
    "teacher",
    "num_steps",
    "report_interval",
    "extra_ema_momenta",
    "choose_ema_momentum",
    "penalty_images",
    "low_quantile",
    "high_quantile",
)
SEARCHABLE: dict[str, str | None] = {
    name: group
    for group, settings in (
        ("loss", LossConfig),
        ("train", TrainConfig),
        ("score", ScoreConfig),
        ("model", ModelConfig),
    )
    for name in settings.model_fields
    if name not in _NOT_SEARCHED
} | {"seed": None}
"""The settings that a search may vary, each with the group it belongs to; the seed has none.

Left out are the budget, which belongs to the search; the teacher, the network and the image size,
which all trials of a category share; and the map's two quantiles, as only one order of them makes
sense.
"""


def searchable_values(trial: TrialConfig) -> dict[str, float | int | str | bool]:
    """All searchable settings of a trial by name, without their groups."""
    return {
        name: getattr(getattr(trial, group) if group else trial, name)
        for name, group in SEARCHABLE.items()
    }


def paper_values() -> dict[str, float | int | str | bool]:
    """Every searchable setting as in the paper: the defaults of a config."""
    return searchable_values(TrialConfig(category="any"))


def group_of(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the group of a searchable setting in a tree of settings, adding it if missing.

    Raises:
        UserError: no searchable setting has that name.
    """
    if name not in SEARCHABLE:
        raise UserError(f"'{name}' cannot be searched; choose from {', '.join(SEARCHABLE)}")
    group = SEARCHABLE[name]
    found: dict[str, Any] = tree if group is None else tree.setdefault(group, {})
    return found
