"""The page of a run: its numbers, what it says where there is nothing, escaping, size."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from dfsc_tune.config import TrialConfig
from dfsc_tune.pages.figures import scores_by_kind
from dfsc_tune.pages.importance import importances
from dfsc_tune.pages.page import write_page
from dfsc_tune.pages.searched import Setting, searched_settings
from dfsc_tune.pages.thresholds import exact_interval, operating_points
from dfsc_tune.results import RunTables, load, write_settings
from dfsc_tune.search.finalize import finalize
from dfsc_tune.training.prepare import CategoryData
from dfsc_tune.training.trial import run_trial
from tests.support.commands import invoke
from tests.support.synthetic_run import BUDGET, CATEGORY, PARAMETERS, make_run, run_settings
from tests.support.trays import CATEGORY as TRAY

HOSTILE = "</script><img src=x onerror=\"alert('x')\">&amp;'{{ 7 * 7 }}"


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data


def page_of(folder: Path, data: Path | None = None, **options: bool) -> str:
    write_page(load(folder), data, folder / "report.html", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


def figures_of(page: str) -> dict[str, dict]:
    pattern = r'<script type="application/json" data-figure="([^"]+)">(.*?)</script>'
    found = re.findall(pattern, page)
    return {name: json.loads(text) for name, text in found}


def rows_of(page: str, section: str) -> list[list[str]]:
    """The cells of a section's table."""
    body = page.partition(f'<section class="{section}">')[2].partition("</section>")[0]
    return [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr.*?</tr>", body)[1:]]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a made-up run of two categories."""
    return page_of(make_run(tmp_path_factory.mktemp("made_up"), categories=(CATEGORY, "box")))


def test_the_page_holds_every_section_and_needs_no_network(made_up: str) -> None:
    tags = Tags(made_up)
    for title in (
        "Scores and thresholds", "AUROC by defect type", "AUROC against the margin",
        "AUROC against the other settings", "Which settings mattered", "All settings at once",
        "How the search went", "Learning curves", "All metrics by kind of defect",
        "Where ASHA stopped trials", "Trials", "Failures", "Settings and versions",
    ):  # fmt: skip
        assert title in tags.text
    links = [
        value
        for _, attributes in tags.tags
        for name, value in attributes.items()
        if name in ("src", "href") and not (value or "").startswith("data:")
    ]
    assert links == []


def test_every_figure_is_valid_plotly(made_up: str) -> None:
    figures = figures_of(made_up)
    kinds = {name.split("-")[2] for name in figures if name != "overview"}
    assert kinds >= {"thresholds", "types", "margin", "settings", "importance", "parallel"}
    for figure in figures.values():
        assert go.Figure(figure).data


def test_the_summary_numbers_are_the_summaries(tmp_path: Path) -> None:
    from dfsc_tune.results import summary_of

    folder = make_run(tmp_path)
    summary = summary_of(load(folder), CATEGORY)
    assert summary is not None
    text = Tags(page_of(folder)).text
    interval = summary.intervals["mean"]
    assert f"{summary.aurocs['auroc_mean']:.3f}" in text
    assert f"95 % interval {interval.low:.3f} to {interval.high:.3f}" in text
    for name in ("the paper's setting", "margin 0"):
        assert f"gain in mean AUROC over {name}: +" in text
    # 39 trials of 36 s on a quarter of a GPU each; the failed one spent none.
    assert "23 min 24 s, 0.10 GPU-hours" in text


def test_an_oracle_run_is_marked_optimistic(made_up: str, tmp_path: Path) -> None:
    honest = Tags(made_up).text
    oracle = make_run(tmp_path / "oracle", objective={"name": "oracle", "metric": "mean"})
    text = Tags(page_of(oracle)).text
    assert "OPTIMISTIC" in text
    assert "numbers to believe" not in text
    assert "OPTIMISTIC" not in honest


def test_a_run_without_anything_says_so_everywhere(tmp_path: Path) -> None:
    write_settings(tmp_path, run_settings())
    page = page_of(tmp_path)
    text = " ".join(Tags(page).text.split())
    assert figures_of(page) == {}
    assert text.count("No image of the report part has been scored yet") == 4
    for sentence in (
        "no trial has reached the full budget yet", "No trial has reported a value yet",
        "No trial has started yet", "ASHA stopped no trial", "No trial has failed",
    ):  # fmt: skip
        assert sentence in text


def test_without_defective_test_images_is_said_what_to_do(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    scores = pd.read_parquet(folder / "scores.parquet")
    scores[scores["kind"] == "good"].to_parquet(folder / "scores.parquet")
    trials = pd.read_parquet(folder / "trials.parquet")
    aurocs = ["value", "auroc_logical", "auroc_structural", "auroc_mean"]
    trials[aurocs] *= 0.55 / trials["value"].max()
    trials.to_parquet(folder / "trials.parquet")
    text = " ".join(Tags(page_of(folder)).text.split())
    assert text.count("There are no good or no defective test images to score") == 3
    assert "has been scored yet" not in text
    assert "the value that the search saw cannot be told apart from chance" in text


def test_hostile_names_and_errors_are_text(tmp_path: Path) -> None:
    image = "test/{kind}/{index:03d}" + HOSTILE.replace("{{ 7 * 7 }}", "")
    folder = make_run(tmp_path, error=HOSTILE, image=image)
    scores = pd.read_parquet(folder / "scores.parquet")
    assert HOSTILE[:9] in scores["image"][0]
    page = page_of(folder)
    tags = Tags(page)
    assert HOSTILE in tags.text
    assert not [name for name, _ in tags.tags if name == "img"]
    assert page.count("</script>") == page.count("<script")
    figures_of(page)


def test_ten_thousand_trials_fit(tmp_path: Path) -> None:
    folder = make_run(tmp_path, num_trials=10_000)
    page = page_of(folder)
    assert len(page.encode()) < 15e6
    text = Tags(page).text
    assert "Drawn: 2,000 of 10,000 trials, a random sample." in text
    assert "The first 200 of 10,000 trials" in text
    figures = figures_of(page)
    points = figures["figure-0-history-0"]["data"]
    assert sum(len(trace["text"]) for trace in points if "text" in trace) <= 2000
    # Whatever the sample, these are in it.
    names = {trace.get("name") for trace in figures["figure-0-margin-0"]["data"]}
    assert {"the best", "paper's setting", "margin 0"} <= names


@pytest.fixture(scope="module")
def trained(
    category_data: CategoryData, trial_config: TrialConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of one trained config, with its model."""
    folder = tmp_path_factory.mktemp("trained")
    settings = run_settings((TRAY,), searched={TRAY: ["margin"]}, space=None)
    write_settings(folder, settings)
    tables = RunTables(folder)
    tables.start("config", trial_config, "config")
    run_trial(
        trial_config, category_data.trial, lambda x: tables.report("config", x), folder / "trial"
    )
    tables.end("config", "complete")
    tables.write()
    finalize(folder, {TRAY: category_data}, {"config": trial_config}, lambda _: folder / "trial")
    return folder


def test_the_gallery_shows_images_and_heat_maps(trained: Path, data_folder: Path) -> None:
    page = page_of(trained, data_folder)
    images = [attributes["src"] for name, attributes in Tags(page).tags if name == "img"]
    scores = load(trained).scores
    # Two pictures each: the made-up images have no masks.
    assert len(images) == 2 * len(scores)
    assert all(image.startswith("data:image/jpeg;base64,") for image in images)
    assert "has changed since" not in page


def test_pixel_metrics_need_no_pictures(trained: Path, data_folder: Path) -> None:
    page = page_of(trained, data_folder, pictures=False, pixel=True)
    assert "<img" not in page
    assert "Pictures were not requested" in page
    # They were measured, as far as these images allow.
    assert "pixel metrics cannot be measured: 4 anomalous images" in page


def test_what_is_odd_of_the_masks_stands_below_the_pixel_metrics(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_folder, tmp_path / "data")
    for path in sorted((data / TRAY / "test").glob("*_anomalies/*.png")):
        mask = data / TRAY / "ground_truth" / path.parent.name / f"{path.stem}_mask.jpg"
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("L").save(mask)
    text = Tags(page_of(trained, data, pictures=False, pixel=True)).text
    assert "No pixel metrics" not in text
    assert "masks, such as 'ground_truth/logical_anomalies/" in text
    assert "hold several values above zero" in text


def test_it_says_why_there_are_no_pixel_metrics(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(trained, tmp_path / "run")
    assert "not requested" in Tags(page_of(bare, data_folder)).text
    assert "have no mask" in Tags(page_of(bare, data_folder, pixel=True)).text
    shutil.rmtree(bare / "models")
    page = Tags(page_of(bare, data_folder, pixel=True)).text
    assert "No pixel metrics: " in page
    assert "holds no model.yaml" in page.partition("No pixel metrics: ")[2][:200]


def test_a_changed_image_is_noticed(trained: Path, data_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder, tmp_path / "data")
    worst = load(trained).scores.query("kind == 'good'").sort_values("score")["image"].iloc[-1]
    other = next((tmp_path / "data" / TRAY / "test" / "structural_anomalies").iterdir())
    shutil.copy(other, tmp_path / "data" / TRAY / worst)
    page = page_of(trained, tmp_path / "data")
    assert Tags(page).text.count("the image or the model has changed since the run") == 1


def test_the_gallery_says_when_data_or_images_are_gone(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    assert "The images or the model cannot be read" in page_of(trained, tmp_path / "gone")
    shutil.copytree(data_folder, tmp_path / "data")
    missing = load(trained).scores["image"].iloc[0]
    (tmp_path / "data" / TRAY / missing).unlink()
    page = page_of(trained, tmp_path / "data")
    assert "is no longer in the data folder" in page
    assert "<img" in page


def test_the_command_writes_beside_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "results" / "first")
    command = ["report", "first", "--results", str(tmp_path / "results"), "--no-pictures"]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert (folder / "report.html").is_file()
    assert "Pictures were not requested" in (folder / "report.html").read_text(encoding="utf-8")
    settings = (folder / "run.yaml").read_bytes()
    replaced = invoke(*command, "--output", str(folder / "run.yaml"))
    assert replaced.exit_code == 2
    assert "--output would replace" in replaced.stderr
    assert (folder / "run.yaml").read_bytes() == settings
    wrong = invoke("report", "other", "--results", str(tmp_path / "results"))
    assert wrong.exit_code == 2
    assert "no run 'other'" in wrong.stderr


def test_thresholds_keep_to_their_false_alarms() -> None:
    scores = pd.DataFrame(
        {
            "kind": ["good"] * 20 + ["logical"] * 10,
            "score": [*range(20), *range(10, 20)],
            "threshold": 15.5,
        }
    )
    own, *points = operating_points(scores)
    assert (own.shares["good"].count, own.shares["logical"].count) == (4, 4)
    # Of 20 good images 1 % and 2 % are none, as no false alarm is: named once.
    counts = [point.shares["good"].count for point in points]
    assert counts == [0, 1, 2, 4]
    assert [point.threshold for point in points] == [19, 18, 17, 15]
    assert points[0].shares["logical"].count == 0
    assert points[3].shares["logical"].count == 4


@pytest.mark.parametrize(("threshold", "scale"), [(10.0, "log"), (0.0, None), (-5.0, None)])
def test_the_threshold_has_a_place_among_the_scores(threshold: float, scale: str | None) -> None:
    scores = pd.DataFrame(
        {"kind": ["good", "logical"], "defect_type": "x", "image": "y", "score": [1.0, 100.0]}
    )
    layout = scores_by_kind(scores, threshold).layout
    assert layout.xaxis.type == scale
    assert layout.shapes[0].x0 == threshold


def test_exact_intervals_are_clopper_and_pearsons() -> None:
    # Clopper and Pearson for 0 of 30: 1 - 0.025 ** (1 / 30).
    assert exact_interval(0, 30).high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert exact_interval(30, 30).low == pytest.approx(0.025 ** (1 / 30))
    assert (exact_interval(0, 30).low, exact_interval(30, 30).high) == (0.0, 1.0)
    # R: binom.test(3, 30)
    assert exact_interval(3, 30).low == pytest.approx(0.0211, abs=5e-5)
    assert exact_interval(3, 30).high == pytest.approx(0.2653, abs=5e-5)


def test_the_stops_of_asha_are_counted_by_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    trials = load(folder).trials
    stopped = trials[(trials["state"] == "pruned") & (trials["step"] == 10)]
    rows = rows_of(page_of(folder), "stops")
    # All but the failed one have reported at step 10.
    assert rows[0][:3] == ["10", "39", str(len(stopped))]
    assert rows[0][5] == f"{stopped['value'].max():.3f}"


def test_settings_lie_on_axes_as_the_space_scales_them() -> None:
    complement = Setting("quantile", "log_complement")
    trials = pd.DataFrame({"quantile": [0.9, 0.999, 1.0]})
    assert complement.positions(trials)[:2].tolist() == pytest.approx([-1, -3])
    assert complement.positions(trials).isna().tolist() == [False, False, True]
    dimension = complement.dimension(trials)
    assert dimension["tickvals"] == pytest.approx([-3, -2.5, -2, -1.5, -1])
    assert dimension["ticktext"] == ["0.999", "0.996838", "0.99", "0.9684", "0.9"]
    choices = Setting("optimizer", "categorical", ("adam", "sgd"))
    assert choices.positions(pd.DataFrame({"optimizer": ["sgd", "adam"]})).tolist() == [1, 0]


def test_the_paper_margin_has_a_place_even_outside_the_choices(tmp_path: Path) -> None:
    space = {
        "parameters": {"margin": {"type": "categorical", "choices": [0.2, 0.4]}},
        "budget": BUDGET, "sampler": "grid",
    }  # fmt: skip
    folder = make_run(tmp_path, num_trials=2, space=space, searched={CATEGORY: ["margin"]})
    rows = rows_of(page_of(folder), "margin")
    assert [row[0] for row in rows] == ["0", "1"]
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", rows[0][2])


def test_importances_find_what_matters_and_say_how_sure(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, num_trials=120))
    settings = searched_settings(run, CATEGORY, run.trials)
    assert [setting.name for setting in settings] == list(PARAMETERS)
    found = importances(run.trials, settings)
    assert found[0].name == "margin"
    assert found[0].low > max(row.high for row in found[1:])
    assert sum(row.share for row in found) == pytest.approx(1)
    assert importances(run.trials.head(9), settings) == []
