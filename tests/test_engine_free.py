"""The layers below the search run where Ray, Optuna and Typer are not installed."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
for name in ("ray", "optuna", "typer"):
    sys.modules[name] = None  # Any import of it fails.
from pathlib import Path
from dfsc_tune.config import TrialConfig
from dfsc_tune.settings import load
from dfsc_tune.search.single import train_config
from dfsc_tune import results
from dfsc_tune.evaluation import evaluate, predict
from dfsc_tune.bench import packing, record
config = load(Path("config.yaml"), TrialConfig)
train_config(config, Path(config.data), Path("run"), note=print, progress=print)
print(results.summaries(results.load("run"))[0].aurocs)
"""


def test_a_config_trains_without_the_engine(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"category: tray\ndata: {data_folder}\nmodel: {{network: tiny, image_size: 128}}\n"
        "train: {num_steps: 2, report_interval: 1}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "auroc_mean" in done.stdout
    assert (tmp_path / "run" / "models" / "tray" / "model.safetensors").is_file()
