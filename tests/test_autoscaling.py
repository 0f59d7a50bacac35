"""What is asked of a cluster's autoscaler, and when it is taken back; without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from dfsc_tune.search import autoscaling as waiting
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace
from tests.support.made_up_study import SPACE

ONE = {"GPU": 1}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, int]]]:
    """What was asked for, one request after another; two GPUs are there from the second look on."""
    found: list[list[dict[str, int]]] = []
    looks = iter([1.0])
    monkeypatch.setattr(waiting, "request_resources", lambda bundles: found.append(bundles))
    monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(waiting.ray, "cluster_resources", lambda: {"GPU": next(looks, 2.0)})
    return found


def request_for(gpus: int) -> SearchRequest:
    space = loads(SPACE, SearchSpace, "space")
    folder = Path("results")
    return SearchRequest(
        ("tray",), folder, None, space, folder, "x", gpus=gpus, address="auto", wait_minutes=1.0
    )


@pytest.mark.parametrize("num_asked", [1, 2])
def test_gpus_are_kept_until_trials_run_whoever_asked_for_them(
    asked: list[list[dict[str, int]]], num_asked: int
) -> None:
    # With one, that is there already: `cluster up --gpus` may have asked for it.
    request = request_for(num_asked)
    before = [[ONE] * 2] if num_asked == 2 else []
    takes_back = waiting.WithdrawsRequest(request)
    with waiting.requested_gpus(request, Console(quiet=True)):
        assert asked == before
        takes_back.on_trial_start()
        takes_back.on_trial_start()
        assert asked == [*before, []]
    assert asked == [*before, []]


def test_a_search_that_dies_before_its_first_trial_takes_back_what_it_asked_for(
    asked: list[list[dict[str, int]]],
) -> None:
    with pytest.raises(KeyboardInterrupt), waiting.requested_gpus(request_for(1), Console()):
        raise KeyboardInterrupt
    assert asked == [[]]
