"""Finalizing a run again: what one category lacks costs the others nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.results import load
from dfsc_tune.search import finalize as module
from tests.support.synthetic_run import make_run


def test_a_category_that_cannot_be_finalized_again_keeps_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(make_run(tmp_path / "run", categories=("box", "tray")))
    box = run.scores[run.scores["category"] == "box"]
    again = box.assign(score=7.0).astype(object).where(box.notna(), None).to_dict("records")

    def detector(config: TrialConfig, *_: Any, **__: Any) -> object:
        if config.category == "tray":
            raise UserError("cannot read the checkpoint")
        return object()

    monkeypatch.setattr(module, "finished_detector", detector)
    monkeypatch.setattr(module, "score_rows", lambda *_: again)
    data: Any = dict.fromkeys(
        ("box", "tray"),
        SimpleNamespace(trial=None, selection_digests=(), training_digests=()),
    )
    trials = run.trials[["trial", "category"]].to_dict("records")
    configs = {str(x["trial"]): TrialConfig(category=str(x["category"])) for x in trials}
    with pytest.raises(UserError, match="tray: cannot read the checkpoint"):
        module.finalize(run.folder, data, configs, lambda x: tmp_path / x, only_scores=True)
    scores = load(run.folder).scores
    assert set(scores[scores["category"] == "box"]["score"]) == {7.0}
    kept, before = (x[x["category"] == "tray"].reset_index(drop=True) for x in (scores, run.scores))
    assert len(before) > 0
    assert_frame_equal(kept, before)
