"""Studies how well anomalies made from good images tell which settings find real defects.

Each training is judged twice: on synthetic anomalies, which a search without labels may see, and on
the labelled test images, which it may not. A proxy is good if it ranks settings as the truth does
and if the settings it picks are nearly as good as those that labels would pick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, qmc, spearmanr

from dfsc_tune.config import LossConfig, ModelConfig, ObjectiveConfig, TrainConfig, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.metrics import KINDS
from dfsc_tune.metrics.image import GOOD, judge
from dfsc_tune.storage.atomic import atomic_path
from dfsc_tune.synthetic.anomalies import RECIPES
from dfsc_tune.training.objectives.synthetic import Synthetic
from dfsc_tune.training.prepare import prepare_category, prepare_images, resident
from dfsc_tune.training.train import Training
from dfsc_tune.training.trial import momentum_scores

DEFAULT = 0
"""The number of the paper's settings among those of `settings_to_try`."""

_GRID = [(m, 0.999, 2.0) for m in (1.0, 0.0, 0.2, 0.4, 2.0)] + [
    (m, 0.97, 2.0) for m in (0.4, 1.0, 2.0)
]
_NUM_SCATTERED = 8
# Of tables that do not say.
_NUM_STEPS = 750
_KEY = ["category", "config", "seed"]
_SETTINGS = ["config", "ema_momentum"]
_TRUTHS = ("mean", *KINDS)


def settings_to_try() -> list[LossConfig]:
    """The paper's settings first, its other margins, a lower quantile, and scattered ones."""
    scattered = [
        (2 * x, 1 - 10 ** (-1 - 3 * y), 0.25 * 32**z)
        for x, y, z in qmc.Sobol(3, seed=0).random(_NUM_SCATTERED).tolist()
    ]
    return [LossConfig(margin=m, quantile=q, alpha=a) for m, q, a in _GRID + scattered]


def record(
    data: Path,
    categories: Sequence[str],
    seeds: Sequence[int],
    table: Path,
    update: Callable[[int, int], None],
    num_steps: int,
) -> pd.DataFrame:
    """Trains all settings on all categories and judges each twice; goes on with a table begun.

    Args:
        data: the folder that holds the categories, which have labelled test images.
        categories: their names.
        seeds: of the trainings.
        table: the Parquet file, written after every training.
        update: told how many trainings are done, of how many.
        num_steps: of each training; PDN tiny at 128×128, as in search space `cpu`.

    Returns:
        A row for each training and EMA momentum: settings, `true_` and `proxy_` image AUROCs.

    Raises:
        UserError: the table begun is no study's, or its trainings have another number of steps.
    """
    rows: list[dict[Any, Any]] = []
    if table.exists():
        rows = read_record(table).to_dict("records")
        if others := {int(row.get("num_steps", _NUM_STEPS)) for row in rows} - {num_steps}:
            raise UserError(
                f"{table} holds trainings of {min(others):,} steps, which {num_steps:,} cannot be "
                "compared with; give the same --num-steps, or another file"
            )
    done = {tuple(row[name] for name in _KEY) for row in rows}
    losses = settings_to_try()
    total, count = len(categories) * len(seeds) * len(losses), 0
    for category in categories:
        train = None
        for seed in seeds:
            for number, loss in enumerate(losses):
                if (category, number, seed) not in done:
                    config = _config(category, loss, seed, num_steps)
                    train = train or _judged_training(config, data)
                    rows += [{"config": number, **row} for row in train(config)]
                    with atomic_path(table) as temporary:
                        pd.DataFrame(rows).to_parquet(temporary, index=False)
                count += 1
                update(count, total)
    return pd.DataFrame(rows)


def read_record(table: Path) -> pd.DataFrame:
    """The rows that `record` has written; UserError if the file holds something else."""
    try:
        found = pd.read_parquet(table)
    except ValueError as error:
        raise UserError(f"{table} is no Parquet file; give one that `study proxy` wrote") from error
    if not {*_KEY, *_SETTINGS} <= set(found.columns):
        raise UserError(f"{table} holds no trainings; give a table that `study proxy` wrote")
    return found


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How proxies rank settings beside the truth, each setting's mean over seeds.

    Returns:
        A row for each category, proxy and truth: `spearman`, `kendall`.
    """
    rows = []
    proxies = [name for name in table if str(name).startswith("proxy_")]
    for category, of_one in table.groupby("category"):
        means = of_one.drop(columns="category").groupby(_SETTINGS).mean()
        for proxy in proxies:
            for truth in _TRUTHS:
                pair = means[[proxy, f"true_{truth}"]].dropna()
                if len(pair) > 2 and pair.nunique().min() > 1:
                    rows.append(
                        {
                            "category": category,
                            "proxy": str(proxy).removeprefix("proxy_"),
                            "truth": truth,
                            "spearman": spearmanr(*pair.T.to_numpy()).statistic,
                            "kendall": kendalltau(*pair.T.to_numpy()).statistic,
                        }
                    )
    return pd.DataFrame(rows)


def picks(table: pd.DataFrame) -> pd.DataFrame:
    """What each way to choose is worth, in true mean AUROC on trainings it was not chosen on.

    Each seed's trainings choose in turn; what they choose is judged by the other seeds' trainings.
    `guarded` keeps the paper's settings unless the proxy's gain over them exceeds twice its
    standard error, the gain's spread over the seeds taken from all settings of the category.

    Returns:
        A row for each category: the means over seeds of `default`, `random`, `synthetic`,
        `guarded` and `labels`, which picks by the test images themselves.
    """
    rows = []
    for category, of_one in table.groupby("category"):
        seeds = sorted(of_one["seed"].unique())
        by_setting = of_one.set_index(["seed", *_SETTINGS]).sort_index()
        default = (DEFAULT, of_one["ema_momentum"].max())
        proxies = by_setting["proxy_mean"].unstack("seed")
        gains = proxies - proxies.loc[default]
        noise = float(gains.drop(index=[default]).std(axis=1).mean())
        found: dict[str, list[float]] = {}
        for seed in seeds:
            others = by_setting.loc[[x for x in seeds if x != seed]]
            truth = others["true_mean"].groupby(_SETTINGS).mean()
            mine = by_setting.loc[seed]
            pick = mine["proxy_mean"].idxmax()
            sure = gains[seed][pick] > 2 * noise
            for name, value in (
                ("default", truth[default]),
                ("random", truth.mean()),
                ("synthetic", truth[pick]),
                ("guarded", truth[pick if sure else default]),
                ("labels", truth[mine["true_mean"].idxmax()]),
            ):
                found.setdefault(name, []).append(float(value))
        rows.append({"category": category, **{k: float(np.mean(v)) for k, v in found.items()}})
    return pd.DataFrame(rows)


def _config(category: str, loss: LossConfig, seed: int, num_steps: int) -> TrialConfig:
    return TrialConfig(
        category=category,
        objective=ObjectiveConfig(name="synthetic"),
        model=ModelConfig(network="tiny", image_size=128),
        loss=loss,
        train=TrainConfig(
            num_steps=num_steps,
            report_interval=num_steps,
            learning_rate=1e-3,
            extra_ema_momenta=(0.9, 0.97),
        ),
        seed=seed,
    )


def _judged_training(
    config: TrialConfig, data: Path
) -> Callable[[TrialConfig], Iterator[dict[str, Any]]]:
    """A function that trains a config of one category and gives a row for each EMA momentum."""
    read = prepare_category(config, data)
    shared = resident(read.trial, "cpu")
    test = prepare_images(
        read.category.test, read.trial.teacher, config.model, dtype=config.speed.feature_dtype
    ).on("cpu")
    good, made = shared.validation, shared.selection
    kinds, recipes = good.kinds + made.kinds, good.defect_types + made.defect_types

    def train(config: TrialConfig) -> Iterator[dict[str, Any]]:
        training = Training(config, shared)
        training.run(config.train.num_steps)
        selection, truth = momentum_scores(training, good, made), momentum_scores(training, test)
        for momentum in training.averages:
            yield {
                "category": config.category,
                "seed": config.seed,
                "margin": config.loss.margin,
                "quantile": config.loss.quantile,
                "alpha": config.loss.alpha,
                "ema_momentum": momentum,
                "num_steps": config.train.num_steps,
                **_true(truth[momentum], test.kinds),
                **_proxies(selection[momentum], kinds, recipes),
            }

    return train


def _true(scores: np.ndarray, kinds: Sequence[str]) -> dict[str, float | None]:
    return {_named("true", name): value for name, value in judge(scores, kinds).items()}


def _proxies(
    scores: np.ndarray, kinds: Sequence[str], recipes: Sequence[str]
) -> dict[str, float | None]:
    """What a search would see, and each recipe alone."""
    found = {
        _named("proxy", name): value
        for name, value in Synthetic().judge(scores, kinds, recipes).items()
    }
    for recipe, (kind, _) in RECIPES.items():
        chosen = np.isin(recipes, (GOOD, recipe))
        chosen_kinds = np.asarray(kinds)[chosen].tolist()
        if kind in chosen_kinds:
            found[f"proxy_{recipe}"] = judge(scores[chosen], chosen_kinds)[f"auroc_{kind}"]
    return found


def _named(name: str, auroc: str) -> str:
    return f"{name}_{auroc.removeprefix('auroc_')}"
