"""The settings of one trial: what each may be, and which of them a search may vary."""

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
    image_size: Annotated[int, Field(ge=128, multiple_of=32)] = 256
    """Images are resized to a square of this many pixels a side."""
    teacher: str | None = None
    """A weights file (.safetensors or .pth), the name of a teacher that was fetched or registered,
    or `random` for fixed random features; left out, the one shipped for the network."""
    instance_norm_relu: bool = True
    """Instance norm before the autoencoder's ReLUs and a ReLU at its decoder's start (Table 4)."""


class LossConfig(Settings):
    """The total loss (Eq. 7) and the readings of it that stay open."""

    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """The constraint's margin m (Eq. 6); 0 switches the constraint off."""
    quantile: Quantile = 0.999
    """q' of the constraint's threshold (Eq. 3)."""
    hard_quantile: Quantile = 0.999
    """q of the hard-feature loss between teacher and student (Eq. 2)."""
    alpha: Annotated[float, Field(ge=0.0)] = 2.0
    """The constraint's weight in the total loss (Eq. 7)."""
    constraint_order: Literal["mask_first", "normalize_first"] = "mask_first"
    """Whether the features are masked before or after the L2 norm over channels (Eq. 4)."""
    detach_autoencoder: bool = False
    """Whether d_SA moves only the student, not the autoencoder too (Eq. 1)."""


class TrainConfig(Settings):
    """The training loop. Defaults are the paper's."""

    num_steps: Annotated[int, Field(ge=1)] = 70_000
    report_interval: Annotated[int, Field(ge=1)] = 5_000
    """Steps between two reports; each scores the selection part and saves a checkpoint."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.997
    warmup: bool = True
    """Untuned exponential warm-up: learning_rate · (1 − exp(−(1 − beta2)·t)) (Ma & Yarats)."""
    decay_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """The last share of the steps, in which the learning rate is a tenth."""
    ema_momentum: EmaMomentum = 0.99
    """μ of the student's moving average, which the scores use; 0 switches the average off."""
    extra_ema_momenta: Annotated[tuple[EmaMomentum, ...], Field(strict=False)] = ()
    """Further momenta scored from the same training: gradients never see the average."""
    choose_ema_momentum: bool = False
    """Whether the best of all momenta scored counts at a report, rather than `ema_momentum`."""
    autoencoder_augmentation: bool = False
    """EfficientAD's colour jitter of the autoencoder's input; puts the teacher into every step."""
    penalty_images: str | None = None
    """A folder of photographs for EfficientAD's penalty on the student (there: ImageNet)."""

    @property
    def ema_momenta(self) -> tuple[float, ...]:
        """All momenta scored, the trial's own first, none twice."""
        return tuple(dict.fromkeys((self.ema_momentum, *self.extra_ema_momenta)))


class ScoreConfig(Settings):
    """From feature differences to an anomaly map."""

    sigmoid: bool = True
    """Whether each normalised map passes a sigmoid before the two are averaged (Table 4)."""
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
    """What makes a trial fast; it changes results by rounding at most, and each can be left off."""

    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the networks' convolutions; weights, losses, quantiles and averages are always float32.
    `auto` means bfloat16 where the device computes in it natively; float32 on a GPU is PyTorch's,
    whose convolutions there round to TF32 unless it is told otherwise."""
    channels_last: bool = True
    """Whether networks and images are laid out with their channels together in memory."""
    half_features: bool = True
    """Whether the teacher's features are kept in float16: half the memory, the same steps."""
    cuda_graph: bool = True
    """On a GPU, whether a step is recorded once and then replayed with a single launch."""
    steps_per_launch: Annotated[int, Field(ge=1)] = 1
    """How many steps such a launch takes; those left over at a report are taken one by one."""

    @property
    def feature_dtype(self) -> FeatureDtype:
        """NumPy's name of the format that the teacher's features are kept in."""
        return "float16" if self.half_features else "float32"


PLAIN = SpeedConfig(precision="float32", channels_last=False, half_features=False, cuda_graph=False)
"""Everything off: plain PyTorch in float32, which the fast path is measured against."""


class ObjectiveConfig(Settings):
    """What a trial is judged by."""

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
    """`holdout`: of the split; `synthetic`: of the anomalies that are made."""
    recipes: Annotated[tuple[Recipe, ...], Field(strict=False, min_length=1)] = (
        "exchanged",
        *get_args(StructuralRecipe),
    )
    """`synthetic`: what anomalies are made; each recipe counts alike within its kind."""
    per_kind: Annotated[int, Field(ge=1)] = 240
    """`synthetic`: how many anomalies of each kind to make, shared alike by its recipes; a
    training's last report is judged by all, those before by a quarter."""


class TrialConfig(Settings):
    """Everything that decides a trial's result; `dfsc-tune train --config` reads one."""

    category: FileName
    data: str | None = None
    """The folder that holds the categories; none means the built-in data."""
    objective: ObjectiveConfig = ObjectiveConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    speed: SpeedConfig = SpeedConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def with_absolute_paths(self) -> TrialConfig:
        """The same settings, its files named so that they are found from any folder."""
        tree = self.model_dump()
        # A teacher may also be a name, and a folder of that name may lie about: only files count.
        if (teacher := self.model.teacher) and Path(teacher).is_file():
            tree["model"]["teacher"] = str(Path(teacher).resolve())
        if photographs := self.train.penalty_images:
            tree["train"]["penalty_images"] = os.path.realpath(photographs)
        return TrialConfig.model_validate(tree)

    def with_values(self, values: Mapping[str, float | int | str | bool]) -> TrialConfig:
        """The same settings with some searchable ones replaced, checked again.

        Args:
            values: by the names in `SEARCHABLE`; an `ema_momentum` among them is the one that
                counts.

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
        """The same training kept by one of the momenta that it scored."""
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

The budget is the search's own and the teacher, with its size and that of the images, is shared by
all trials of a category, so these are left out, and so are the map's two quantiles, for only one
order of them makes sense.
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
    """Where a searchable setting stands in a tree of settings; made if it is not there.

    Raises:
        UserError: there is none of that name.
    """
    if name not in SEARCHABLE:
        raise UserError(f"'{name}' cannot be searched; choose from {', '.join(SEARCHABLE)}")
    group = SEARCHABLE[name]
    found: dict[str, Any] = tree if group is None else tree.setdefault(group, {})
    return found
