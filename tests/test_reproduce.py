"""The paper's tables made again: what is trained, how it is judged, and the paper's own numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dfsc_tune.config import TrialConfig
from dfsc_tune.data.builtin import Counts, make_dataset
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.evaluate import evaluate_model
from dfsc_tune.reference import CATEGORIES
from dfsc_tune.reproduce.batches import Scale, batch_space
from dfsc_tune.reproduce.cells import AVERAGE, CHOSEN, FIXED, Cell, cells_of
from dfsc_tune.reproduce.judge import judge_batch, splits_of, with_anomalies
from dfsc_tune.reproduce.numbers import Models, Number, average, best_fixed, choose
from dfsc_tune.reproduce.page import shown_tables
from dfsc_tune.reproduce.paper import cited_cells, published
from dfsc_tune.reproduce.tables import (
    BY_ANOMALIB,
    MARGINS,
    PAPER_TABLES,
    PROTOCOLS,
    Scoring,
    find_table,
    papers_margin,
)
from dfsc_tune.results import Run
from dfsc_tune.search.controller import CHECKPOINTS
from dfsc_tune.spaces.space import SearchSpace, load_space
from dfsc_tune.training.prepare import prepare_category
from dfsc_tune.training.trial import finished_detector, run_trial
from tests.support.commands import invoke
from tests.support.synthetic_run import run_settings
from tests.support.trays import CATEGORY, make_tray

PAPER_SCALE = Scale(load_space("default"), num_seeds=2)


def spaces(name: str, scale: Scale = PAPER_SCALE) -> dict[str, SearchSpace]:
    return {x.name: batch_space(x, CATEGORIES, scale) for x in PAPER_TABLES[name].batches}


def trainings(space: SearchSpace, category: str) -> list[TrialConfig]:
    of_category = space.for_category(category)
    points = [point for _, point in of_category.first_points()]
    budget = space.budget
    base = of_category.base_config(
        category,
        objective=space.objective.model_dump(),
        train={"num_steps": budget.num_steps, "report_interval": budget.report_interval},
    )
    num_trials = of_category.num_expected(space.budget.num_trials)
    return [base.with_values(point) for point in points[:num_trials]]


def test_dfsc_is_trained_as_in_the_paper_with_its_margins() -> None:
    configs = {x: trainings(spaces("table1")["dfsc"], x) for x in CATEGORIES}
    assert {name: [x.loss.margin for x in found] for name, found in configs.items()} == {
        "breakfast_box": [1.0, 1.0],
        "juice_bottle": [0.4, 0.4],
        "pushpins": [0.4, 0.4],
        "screw_bag": [2.0, 2.0],
        "splicing_connectors": [0.4, 0.4],
    }
    paper = TrialConfig(category="screw_bag")
    first, second = configs["screw_bag"]
    assert (first.seed, second.seed) == (0, 1)
    assert (first.train.num_steps, first.objective.name) == (70_000, "oracle")
    assert first.model == paper.model
    assert first.loss == paper.loss.model_copy(update={"margin": 2.0})
    assert first.score == paper.score
    assert first.train == paper.train.model_copy(update={"report_interval": 7_000})


def test_efficientad_is_trained_as_its_authors_do() -> None:
    scale = replace(PAPER_SCALE, photographs="photographs")
    found = spaces("table1", scale)
    small, medium = (
        trainings(found[name], "pushpins")[0] for name in ("efficientad_s", "efficientad_m")
    )
    assert (small.model.network, medium.model.network) == ("small", "medium")
    for config in (small, medium):
        train = config.train
        assert config.loss.margin == 0
        assert not config.model.instance_norm_relu
        assert not config.score.sigmoid
        assert (train.optimizer, train.beta2, train.warmup) == ("adam", 0.999, False)
        assert (train.decay_share, train.ema_momentum) == (0.05, 0)
        assert train.autoencoder_augmentation
        assert train.penalty_images == "photographs"
    assert trainings(found["dfsc"], "pushpins")[0].train.penalty_images is None


def test_table_3_trains_each_margin_with_each_seed() -> None:
    found = trainings(spaces("table3")["margins"], "screw_bag")
    assert [(x.loss.margin, x.seed) for x in found] == [(m, s) for s in (0, 1) for m in MARGINS]


def test_figure_4_trains_each_quantile_at_the_papers_margin() -> None:
    found = trainings(spaces("figure4")["quantiles"], "screw_bag")
    assert {x.loss.margin for x in found} == {papers_margin("screw_bag")} == {2.0}
    assert {x.loss.quantile for x in found} == {0.9, 0.95, 0.99, 0.995, 0.999}


def test_table_4_needs_three_trainings_for_its_five_lines() -> None:
    configs = trainings(spaces("table4")["ablation"], "pushpins")[:3]
    assert [(x.model.instance_norm_relu, x.loss.margin) for x in configs] == [
        (False, 0.0),
        (True, 0.0),
        (True, 0.4),
    ]
    assert configs[0].train.ema_momenta == (0.99, 0.0)
    switches = [
        (line.setting["instance_norm_relu"], line.scoring.sigmoid, line.setting["margin"] != 0,
         line.scoring.ema_momentum > 0)
        for line in PAPER_TABLES["table4"].lines
    ]  # fmt: skip
    assert switches == [(False,) * 4] + [(True,) * n + (False,) * (4 - n) for n in (1, 2, 3, 4)]


def test_more_seeds_are_more_trials_of_the_same_search() -> None:
    two = spaces("table3")["margins"].model_dump()
    three = spaces("table3", replace(PAPER_SCALE, num_seeds=3))["margins"].model_dump()
    assert (two["budget"].pop("num_trials"), three["budget"].pop("num_trials")) == (10, 15)
    assert two == three


def test_a_scale_leaves_what_a_line_scores_as_in_the_paper() -> None:
    fixed = {"train": {"ema_momentum": 0.5}, "score": {"sigmoid": False}}
    scale = Scale(load_space("default").model_copy(update={"fixed": fixed}), 1)
    for line in (line for table in PAPER_TABLES.values() for line in table.lines):
        space = batch_space(line.batch, ["pushpins"], scale)
        config = trainings(space, "pushpins")[0]
        # Else no average of that momentum would be there to score.
        assert line.scoring.ema_momentum in config.train.ema_momenta


def test_a_scale_may_not_fix_what_is_studied() -> None:
    space = load_space("smoke").model_copy(update={"fixed": {"loss": {"margin": 1.0}}})
    with pytest.raises(UserError, match=r"batch 'margins'.*is searched already"):
        spaces("table3", Scale(space, 1))


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    def of(name: str, category: str, line: str, measure: str = "mean") -> float:
        return round(100 * published(PAPER_TABLES[name], category, line, measure), 2)

    assert of("table1", "screw_bag", "DFSC", "logical") == 67.9
    assert of("table1", "screw_bag", "DFSC") == 80.15
    assert of("table1", AVERAGE, "EfficientAD-M") == 90.7
    assert of("table1", AVERAGE, "GCAD", "logical") == 86.0
    assert of("table2", "screw_bag", "DFSC", "au_spro") == 60.0
    assert of("table2", AVERAGE, "EfficientAD-S", "au_spro") == 77.9
    assert of("table3", "pushpins", "margin 0.4") == 97.7
    assert of("table3", "pushpins", CHOSEN) == 97.7
    # The best margin per category, the best fixed one, and none.
    averages = [of("table3", AVERAGE, line) for line in (CHOSEN, FIXED, "margin 0")]
    assert averages == [91.87, 90.37, 88.75]
    lines = [line.label for line in PAPER_TABLES["table4"].lines]
    assert [of("table4", AVERAGE, x) for x in lines] == [87.92, 89.11, 88.94, 91.22, 92.0]
    assert published(PAPER_TABLES["table4"], "pushpins", "vanilla", "mean") is None
    assert published(PAPER_TABLES["table2"], CATEGORY, "DFSC", "au_spro") is None
    # Of fewer categories, another margin may be the best fixed one, as in our own number.
    of_two = partial(published, PAPER_TABLES["table3"], measure="mean", categories=CATEGORIES[:2])
    assert of_two(CATEGORIES[0], FIXED) is of_two(AVERAGE, CHOSEN) is None
    assert of_two(CATEGORIES[0], CHOSEN) == pytest.approx(0.8495)


def test_systems_that_are_not_run_are_cited() -> None:
    lines = [line.label for line in PAPER_TABLES["table1"].lines]
    cells = cited_cells(PAPER_TABLES["table1"], CATEGORIES, lines)
    assert {x.line for x in cells} == {"f-AnoGAN", "SPADE", "S-T", "PatchCore", "AST", "GCAD"}
    assert all(math.isnan(x.ours) and x.num_seeds == 0 for x in cells)
    own = f"PatchCore{BY_ANOMALIB}"
    assert published(PAPER_TABLES["table1"], "pushpins", own, "logical") == 0.636
    table2 = PAPER_TABLES["table2"]
    assert {x.line for x in cited_cells(table2, CATEGORIES, [*lines, own])} == {"GCAD"}
    # An average over fewer categories is another number.
    assert AVERAGE in {x.category for x in cells}
    assert AVERAGE not in {x.category for x in cited_cells(table2, CATEGORIES[:2], lines)}
    assert cited_cells(PAPER_TABLES["table3"], CATEGORIES, []) == []


def test_an_unknown_table_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="choose from table1, table2, table3, table4, figure4"):
        find_table("table5")


@pytest.fixture(scope="module")
def trays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trays")
    for category in ("screw_bag", "pushpins"):
        make_tray(folder, category, num_test=8)
    return folder


def scores_of(split, separation: float, seed: int) -> dict[str, float]:
    """Scores of which a larger separation tells the kinds apart better."""
    generator = np.random.default_rng(seed)
    return {
        x.name: separation * (x.kind != "good") + generator.normal()
        for x in sorted(split.report, key=lambda x: x.name)
    }


def test_a_margin_is_chosen_on_the_selection_part_and_told_on_the_other(trays: Path) -> None:
    categories = ("screw_bag", "pushpins")
    splits = {name: splits_of(read_category(trays, name), PROTOCOLS) for name in categories}
    lines = [line.label for line in PAPER_TABLES["table3"].lines]
    # The first category needs a large margin, the second none.
    quality = {"screw_bag": [0, 1, 2, 4, 8], "pushpins": [8, 4, 2, 1, 0]}
    models = {
        line: {
            name: Models(
                {s: scores_of(splits[name]["oracle"], quality[name][i], s) for s in (0, 1)}
            )
            for name in categories
        }
        for i, line in enumerate(lines)
    }
    table = PAPER_TABLES["table3"]
    cells = cells_of(table, models, splits, partial(published, table), comparable=True)
    found = {(x.protocol, x.category, x.line): x for x in cells}
    for protocol in PROTOCOLS:
        for category, best in (("screw_bag", "margin 2"), ("pushpins", "margin 0")):
            chosen, expected = (found[protocol, category, x] for x in (CHOSEN, best))
            assert chosen.ours == expected.ours > 0.99
            assert (chosen.num_seeds, chosen.low <= chosen.ours <= chosen.high) == (2, True)
        tuned, fixed = (found[protocol, AVERAGE, x] for x in (CHOSEN, FIXED))
        assert tuned.ours > fixed.ours == max(found[protocol, AVERAGE, x].ours for x in lines)
        assert tuned.over == "margin 0"
        assert tuned.gain == pytest.approx(tuned.ours - found[protocol, AVERAGE, "margin 0"].ours)
        assert tuned.gain_low < tuned.gain < tuned.gain_high
    assert found["oracle", "pushpins", CHOSEN].gain == 0
    cell = found["oracle", "screw_bag", "margin 1"]
    assert cell.difference == pytest.approx(cell.ours - 0.753)
    # Half of the images are no test set to compare on.
    assert math.isnan(found["holdout", "screw_bag", "margin 1"].difference)


def test_made_anomalies_choose_as_in_a_search_each_recipe_alike(trays: Path) -> None:
    names = [f"synthetic/scratch/{index:03d}" for index in range(8)] + ["synthetic/stain/008"]
    kinds = ["good", "good", *["structural"] * 9]
    # One finds all scratches and no stain, the other the stain and scratches by chance.
    scratches, stain = [0, 0, *[1] * 8, -1], [0, 0, *[0] * 8, 1]
    images = ["validation/good/000.png", "validation/good/001.png", *names]
    table = pd.DataFrame({"category": "pushpins", "image": images, "kind": kinds})
    splits = splits_of(read_category(trays, "pushpins"), PAPER_TABLES["table3"].protocols)
    split = with_anomalies(splits, table, "pushpins")["synthetic"]
    models = {
        "margin 0": Models({0: dict(zip(images, scratches, strict=True))}),
        "margin 1": Models({0: dict(zip(images, stain, strict=True))}),
    }
    assert choose(models, split, "synthetic") == models["margin 1"]
    fixed = {line: {"pushpins": model} for line, model in models.items()}
    assert best_fixed(fixed, {"pushpins": split}, "synthetic") == fixed["margin 1"]


def test_only_figures_of_auroc_show_what_guessing_reaches() -> None:
    cells = [
        Cell("table1", "oracle", "pushpins", "DFSC", measure, 0.6, 1, low=0.5, high=0.7)
        for measure in ("mean", "au_spro")
    ]
    auroc, area = (section.figures[0]["layout"] for section in shown_tables(cells))
    assert [shape["x0"] for shape in auroc["shapes"]] == [0.5]
    assert not area["shapes"]


def test_doubt_is_that_of_a_mean_and_a_single_run(trays: Path) -> None:
    splits = splits_of(read_category(trays, "pushpins"), PROTOCOLS)
    model = Models({s: scores_of(splits["oracle"], 1.0, s) for s in range(3)})
    table = replace(PAPER_TABLES["table3"], chooses_margin=False)
    table = replace(table, lines=table.lines[:1])
    models = {"margin 0": {"pushpins": model}}
    cells = cells_of(table, models, {"pushpins": splits}, partial(published, table), True)
    (cell,) = [x for x in cells if x.protocol == "oracle"]
    # Student's t of two degrees of freedom at 97.5 %.
    assert cell.doubt == pytest.approx(4.3027 * cell.deviation * math.sqrt(4 / 3), rel=1e-4)


def test_an_average_takes_the_seeds_that_all_have() -> None:
    numbers = [
        Number({0: 0.5, 1: 0.7}, 0.5, 0.7),
        Number({1: 0.9, 2: 0.1}, 0.3, 0.6),
    ]
    found = average(numbers)
    assert found.by_seed == {1: pytest.approx(0.8)}
    # Around that average, not that of all seeds.
    half = math.hypot(0.1, 0.2) / 2
    assert found.low == pytest.approx(0.8 - half)
    assert found.high == pytest.approx(0.8 + math.hypot(0.1, 0.1) / 2)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    make_dataset(folder, ["juice_bottle"], Counts(4, 2, 4, 10, 10), height=128, seed=3, workers=1)
    return folder


def trained(folder: Path, data: Path, category: str) -> tuple[Run, TrialConfig]:
    """A run of one training, as far as judging it needs."""
    space = load_space("smoke")
    fixed = {**space.fixed, "model": {"network": "tiny", "image_size": 128, "teacher": "random"}}
    budget = space.budget.model_copy(update={"num_steps": 6, "report_interval": 6})
    scale = Scale(space.model_copy(update={"fixed": fixed, "budget": budget}), 1)
    (batch,) = PAPER_TABLES["table4"].batches
    of_category = batch_space(batch, [category], scale).for_category(category)
    base = of_category.base_config(
        category, objective={"name": "oracle"}, train={"num_steps": 6, "report_interval": 6}
    )
    _, point = of_category.first_points()[2]
    prepared = prepare_category(base, data)
    config = base.with_values(point)
    run_trial(config, prepared.trial, lambda progress: None, folder / CHECKPOINTS / "0001")
    settings = run_settings(
        (category,),
        data=str(data),
        base_configs={category: base.model_dump()},
        datasets={category: prepared.summary()},
        searched={category: list(point)},
    )
    row = {"category": category, "trial": "0001", "state": "complete", **point}
    return Run(folder, settings, pd.DataFrame([row]), pd.DataFrame(), pd.DataFrame()), config


def test_models_are_scored_once_for_all_lines_and_measured_as_evaluate_does(
    rendered: Path, tmp_path: Path
) -> None:
    run, config = trained(tmp_path, rendered, "juice_bottle")
    scorings = [Scoring(False, 0.0), Scoring(True, 0.99)]
    said: list[str] = []
    judge = partial(
        judge_batch,
        run,
        rendered,
        scorings,
        PROTOCOLS,
        areas=["juice_bottle"],
        device="cpu",
        say=said.append,
    )
    judged = judge()
    assert len(judged.scores.table) == 2 * 24
    assert len(judged.areas.table) == 2 * len(PROTOCOLS)

    chosen = config.with_values({"sigmoid": False, "ema_momentum": 0.0})
    data = prepare_category(chosen, rendered)
    detector = finished_detector(chosen, data.trial, tmp_path / CHECKPOINTS / "0001")
    expected = evaluate_model(detector, rendered, "juice_bottle")
    area = judged.areas.table.query("not sigmoid and protocol == 'oracle'").iloc[0]
    assert expected.pixel is not None
    assert area["au_spro"] == pytest.approx(expected.pixel.au_spro["mean"][0.05], abs=1e-3)

    again = judge()
    assert len(said) == 1
    pd.testing.assert_frame_equal(again.scores.table, judged.scores.table)


def test_other_data_are_refused(rendered: Path, tmp_path: Path) -> None:
    run, _ = trained(tmp_path / "run", rendered, "juice_bottle")
    other = run.settings.datasets["juice_bottle"].model_copy(update={"fingerprint": "0" * 32})
    run.settings.datasets["juice_bottle"] = other
    with pytest.raises(UserError, match="the data of juice_bottle changed"):
        judge_batch(
            run, rendered, [Scoring()], PROTOCOLS, areas=[], device="cpu", say=lambda text: None
        )


SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
  train: {learning_rate: 1e-3}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
objective: {per_kind: 7}
budget: {num_trials: 1, num_steps: 4, report_interval: 4, grace_period: 4}
"""


@pytest.mark.slow
def test_a_table_is_made_by_one_command_and_shown_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Keeps Ray's ports on the loopback.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    make_tray(tmp_path / "data", "screw_bag")
    (tmp_path / "space.yaml").write_text(SPACE)
    asked = ["reproduce", "table3", "--data", "data", "--space", "space.yaml", "--name", "small"]
    result = invoke(*asked)
    assert result.exit_code == 0, result.output
    for text in ("Table 3", CHOSEN, "oracle: optimistic", "holdout", "79.20"):
        assert text in result.stdout
    assert "note: not at the paper's scale: PDN tiny at 128 pixels, 4 steps" in result.stdout
    table = pd.read_parquet("results/small/table3.parquet")
    assert set(table["protocol"]) == {*PROTOCOLS, "synthetic"}
    assert len(table) == 3 * (len(MARGINS) + 2)
    # Both report on all test images; of margins that are not chosen they tell the same.
    fixed = table[table["line"].str.startswith("margin ")].set_index(["protocol", "line"])["ours"]
    pd.testing.assert_series_equal(fixed["oracle"], fixed["synthetic"])
    scored = pd.read_parquet("results/small/margins/test_scores.parquet")
    assert scored["image"].str.startswith("synthetic/").any()
    assert "Table 3" in Path("results/small/table3.html").read_text()
    trials = pd.read_parquet("results/small/margins/trials.parquet")
    assert trials["state"].tolist() == ["complete"] * 5
    before = Path("results/small/margins/ledger.jsonl").read_bytes()
    again = invoke(*asked, "--json")
    assert again.exit_code == 0, again.output
    cells = json.loads(again.stdout)["cells"]
    assert [x["ours"] for x in cells] == pytest.approx(table["ours"].tolist())
    assert Path("results/small/margins/ledger.jsonl").read_bytes() == before
    other = invoke(*asked, "--teacher", "tiny")
    assert other.exit_code == 2
    assert "the teacher of screw_bag changed" in other.stderr


def test_a_table_of_areas_without_masks_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    make_tray(tmp_path / "data", "screw_bag")
    asked = ["reproduce", "table2", "--data", str(tmp_path / "data"), "--space", "smoke"]
    result = invoke(*asked, "--results", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert "needs a mask for every anomalous test image" in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_plan_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked = ["reproduce", "table4", "--plan", "--seeds", "3", "--space", "default", "--gpus", "8"]
    result = invoke(*asked)
    assert result.exit_code == 0, result.output
    assert "Table 4: ablation, image AUROC: 45 trainings" in result.stdout
    assert list(tmp_path.iterdir()) == []
