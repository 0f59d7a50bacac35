"""Settings: loaded strictly, errors with file, line and dotted path, paper rows as configs."""

from pathlib import Path

import pytest

from dfsc_tune.config import SEARCHABLE, LossConfig, TrainConfig, TrialConfig, searchable_values
from dfsc_tune.errors import UserError
from dfsc_tune.settings import dump, load, loads

MINIMAL = "category: screw_bag\n"


def test_defaults_are_the_papers() -> None:
    config = loads(MINIMAL, TrialConfig, "x")
    assert config.loss == LossConfig(margin=1.0, quantile=0.999, hard_quantile=0.999, alpha=2.0)
    assert config.train == TrainConfig(
        num_steps=70_000, learning_rate=1e-4, weight_decay=1e-5, beta2=0.997, ema_momentum=0.99
    )
    assert (config.model.network, config.model.image_size) == ("small", 256)


def test_a_dumped_config_loads_as_itself(tmp_path: Path) -> None:
    config = TrialConfig(category="x").with_values({"margin": 0.4, "ema_momentum": 0.9999})
    path = tmp_path / "best.yaml"
    path.write_text(dump(config, header="where it\n\ncame from"))
    assert load(path, TrialConfig) == config
    assert path.read_text().startswith("# where it\n#\n# came from\ncategory: x\n")


def test_exponents_without_a_dot_are_numbers() -> None:
    config = loads(f"{MINIMAL}train: {{learning_rate: 1e-4, weight_decay: 5E-6}}", TrialConfig, "x")
    assert (config.train.learning_rate, config.train.weight_decay) == (1e-4, 5e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss:\n  margin: 2.5\n", "x.yaml:3: loss.margin: must be less than or equal to 2 (got 2"),
        ("model: {image_size: 1048576}", "x.yaml:2: model.image_size: must be less than or equal"),
        (
            f"train: {{num_steps: {10**30}}}",
            "x.yaml:2: train.num_steps: must be less than or equal",
        ),
        ("loss:\n  margin: -0.1\n", "x.yaml:3: loss.margin: must be greater than or equal to 0"),
        ("loss:\n  margin: yes\n", "x.yaml:3: loss.margin: must be a valid number (got True)"),
        ("loss:\n  margin: '1'\n", "x.yaml:3: loss.margin: must be a valid number (got '1')"),
        ("loss:\n  margn: 1\n", "x.yaml:3: loss.margn: unknown key"),
        ("model: {network: big}\n", "x.yaml:2: model.network: must be 'tiny', 'small' or 'medium'"),
        ("model: {image_size: 200}\n", "x.yaml:2: model.image_size: must be a multiple of 32"),
        ("train: {ema_momentum: 1.0}\n", "x.yaml:2: train.ema_momentum: must be less than 1"),
        ("score: {low_quantile: 0.999}\n", "x.yaml:2: score: low_quantile must lie below high"),
        ("score: {low_quantile: .nan}\n", "x.yaml:2: score.low_quantile: must be a finite number"),
        ("seed: -1", "x.yaml:2: seed: must be greater than or equal to 0"),
        ("seed: 0\nseed: 1\n", "x.yaml:3: not valid YAML: key 'seed' is given twice"),
        ("loss: [1, 2\n", "not valid YAML"),
        (
            "loss: {margin: {{ margin }}}\n",
            "x.yaml:2: not valid YAML: a key must be a single value",
        ),
        ("loss: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_broken_rules_name_file_line_path_and_value(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        loads(MINIMAL + text, TrialConfig, "x.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "expected settings"), ("- 1", "expected settings"), ("seed: 1", "category: Field req")],
)
def test_texts_that_are_no_settings(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loads(text, TrialConfig, "x.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "missing.yaml", TrialConfig)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "binary.yaml", TrialConfig)


def test_values_are_set_by_name_and_checked() -> None:
    config = TrialConfig(category="x")
    changed = config.with_values({"margin": 0.2, "learning_rate": 1e-3})
    assert (changed.loss.margin, changed.train.learning_rate) == (0.2, 1e-3)
    assert config.loss.margin == 1.0
    with pytest.raises(UserError, match="cannot be searched"):
        config.with_values({"num_steps": 3})
    with pytest.raises(UserError, match=r"loss\.margin"):
        config.with_values({"margin": 3.0})


def test_searchable_names_are_unique_and_readable() -> None:
    values = searchable_values(TrialConfig(category="x"))
    assert list(values) == list(SEARCHABLE)
    assert {"margin", "quantile", "alpha", "ema_momentum"} <= set(SEARCHABLE)


@pytest.mark.parametrize("name", ["10E5", "1e-4", "yes", "null", "007", "a: b", "Ünï"])
def test_any_category_name_survives_yaml(name: str) -> None:
    config = TrialConfig(category=name)
    assert loads(dump(config), TrialConfig, "x") == config


def test_files_are_named_absolutely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.pth").touch()
    config = loads(f"{MINIMAL}model: {{teacher: t.pth}}", TrialConfig, "x").with_absolute_paths()
    assert config.model.teacher == str(tmp_path / "t.pth")
    named = loads(f"{MINIMAL}model: {{teacher: random}}", TrialConfig, "x").with_absolute_paths()
    assert named.model.teacher == "random"


def test_momenta_are_listed_once_the_own_first() -> None:
    train = TrainConfig(ema_momentum=0.99, extra_ema_momenta=(0.9, 0.99, 0.0))
    assert train.ema_momenta == (0.99, 0.9, 0.0)
