"""What makes a step fast changes its result by rounding at most; each switch alone and all at once.

Tolerances are of the losses, relative. The same tests run on a GPU where there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfsc_tune.config import PLAIN, SpeedConfig, TrialConfig
from dfsc_tune.models.speed import GraphedStep, compute_dtype, has_bfloat16
from dfsc_tune.training import train
from dfsc_tune.training.prepare import CategoryData, prepare_category, resident
from dfsc_tune.training.train import Training, update_average
from dfsc_tune.training.trial import judge_training

NUM_STEPS = 8
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]
SWITCHES = {
    "channels_last": (SpeedConfig(**{**PLAIN.model_dump(), "channels_last": True}), 1e-4),
    "half_features": (SpeedConfig(**{**PLAIN.model_dump(), "half_features": True}), 1e-3),
    "bfloat16": (SpeedConfig(**{**PLAIN.model_dump(), "precision": "bfloat16"}), 2e-2),
    "cuda_graph": (SpeedConfig(**{**PLAIN.model_dump(), "cuda_graph": True}), 1e-4),
    "all": (SpeedConfig(precision="bfloat16"), 2e-2),
}


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trained(config: TrialConfig, speed: SpeedConfig, device: str) -> tuple[Training, list[float]]:
    """A training after some steps, and the total loss of each step."""
    given = config.model_copy(
        update={
            "speed": speed,
            "train": config.train.model_copy(update={"num_steps": NUM_STEPS}),
        }
    )
    data = prepare_category(given, _folder(config)).trial
    training = Training(given, resident(data, device))
    return training, [training.run(step + 1)["total"] for step in range(NUM_STEPS)]


def _folder(config: TrialConfig) -> Path:
    assert config.data is not None
    return Path(config.data)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_keeps_the_losses(trial_config: TrialConfig, switch: str, device: str) -> None:
    speed, tolerance = SWITCHES[switch]
    _, plain = trained(trial_config, PLAIN, device)
    _, fast = trained(trial_config, speed, device)
    assert fast == pytest.approx(plain, rel=tolerance)
    # The switch is at work, which a graph does not show: it may compute the very same.
    assert switch == "cuda_graph" or fast != plain


def test_weights_losses_and_averages_stay_float32(trial_config: TrialConfig, device: str) -> None:
    training, _ = trained(trial_config, SpeedConfig(precision="bfloat16"), device)
    tensors = [
        *training.student.parameters(),
        *training.autoencoder.parameters(),
        *(x for average in training.averages.values() for x in average.parameters()),
        *(state["exp_avg"] for state in training.optimizer.state.values()),
    ]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert training.dtype == torch.bfloat16


def test_scores_in_bfloat16_rank_as_in_float32(trial_config: TrialConfig, device: str) -> None:
    training, _ = trained(trial_config, SpeedConfig(precision="bfloat16"), device)
    fast = judge_training(training)
    training.dtype = torch.float32
    plain = judge_training(training)
    for momentum, aurocs in plain.items():
        # Of 2 × 2 images a kind, one exchanged pair would move an AUROC by a quarter.
        assert fast[momentum] == aurocs


def test_resuming_forgets_a_recorded_step(trial_config: TrialConfig, device: str) -> None:
    whole, losses = trained(trial_config, SpeedConfig(), device)
    half, _ = trained(trial_config, SpeedConfig(), device)
    again = Training(half.config, half.data)
    again.run(4)
    again.load_state_dict(again.state_dict())
    rest = [again.run(step + 1)["total"] for step in range(4, NUM_STEPS)]
    # On a GPU, gradients of resized maps are summed in any order.
    assert rest == pytest.approx(losses[4:], rel=1e-6 if device == "cpu" else 2e-2)
    assert whole.step == again.step


def test_auto_means_bfloat16_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    for instructions, expected in (
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=instructions: found)
        assert compute_dtype(SpeedConfig(), "cpu") == expected
        assert has_bfloat16("cpu") == (expected == torch.bfloat16)
    assert compute_dtype(SpeedConfig(precision="float32"), "cpu") == torch.float32
    assert compute_dtype(SpeedConfig(precision="bfloat16"), "cpu") == torch.bfloat16


def test_half_features_take_half_the_memory(
    trial_config: TrialConfig, category_data: CategoryData
) -> None:
    assert category_data.trial.train.features.dtype == "float16"
    plain = trial_config.model_copy(update={"speed": PLAIN})
    full = prepare_category(plain, _folder(trial_config)).trial.train.features
    assert full.dtype == "float32"
    assert full.nbytes == 2 * category_data.trial.train.features.nbytes


class Operations(TorchDispatchMode):
    """Counts the operations within it by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("momenta", [(), (0.99, 0.999)])
def test_a_step_could_be_recorded(trial_config: TrialConfig, momenta: tuple[float, ...]) -> None:
    """It reads nothing back, takes nothing from the host, and no shape depends on values."""
    train = trial_config.train.model_copy(update={"extra_ema_momenta": momenta})
    training, _ = trained(
        trial_config.model_copy(update={"train": train}), SpeedConfig(precision="bfloat16"), "cpu"
    )
    training._position.zero_()
    with Operations() as operations:
        training._one_step()
    forbidden = {
        "aten._local_scalar_dense",  # .item() and int()
        "aten.lift_fresh",  # torch.tensor(…)
        "aten.nonzero",
        "aten.masked_select",
        "aten.index",
        "aten._unique2",
    }
    assert not forbidden & operations.names.keys()
    assert operations.names["aten.topk"] == 2
    assert operations.names["aten._foreach_lerp_"] == len(training.averages)


class OneDevice(TorchDispatchMode):
    """Fails where an operation, but for a copy, meets tensors of two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors if x.ndim}
        assert len(devices) < 2 or func.overloadpacket is torch.ops.aten.copy_, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("augmented", [False, True])
def test_a_step_stays_on_its_device(
    trial_config: TrialConfig, monkeypatch: pytest.MonkeyPatch, augmented: bool
) -> None:
    """Any machine has the device `meta`; it knows shapes only, so reading from it fails."""
    monkeypatch.setattr(train, "autocast", lambda *_: nullcontext())
    monkeypatch.setattr(Training, "_build_optimizer", lambda self: None)
    config = trial_config.model_copy(
        update={
            "speed": PLAIN,
            "train": trial_config.train.model_copy(update={"autoencoder_augmentation": augmented}),
        }
    )
    data = prepare_category(config, _folder(config)).trial
    training = Training(config, resident(data, "meta"))
    index = training._order.index_select(0, training._position)
    with OneDevice():
        training._losses(index).total.backward()
        for momentum, average in training.averages.items():
            update_average(average, training.student, momentum)
    assert {x.grad.device.type for x in training.student.parameters() if x.grad is not None} == {
        "meta"
    }


COUNTS = (2, 1, 7, 12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_takes_as_many_steps_as_asked_for() -> None:
    counter = torch.zeros((), device="cuda")
    step = GraphedStep(lambda: counter.add_(1), "cuda")
    for count in COUNTS:
        step(count)
    assert counter.item() == sum(COUNTS)


class PretendedCuda:
    """In the place of `torch.cuda`: recording counts steps and takes none, replaying takes them."""

    def __init__(self, taken: list[int]) -> None:
        self._taken = taken

    class Stream:
        def __init__(self, device: torch.device) -> None: ...

        def wait_stream(self, stream: object) -> None: ...

    class CUDAGraph:
        def __init__(self) -> None:
            self.replay: Callable[[], None]

    def current_stream(self, device: torch.device) -> Stream:
        return self.Stream(device)

    def stream(self, stream: Stream) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def graph(self, graph: CUDAGraph, stream: Stream) -> Iterator[None]:
        before = len(self._taken)
        yield
        recorded = self._taken[before:]
        del self._taken[before:]
        graph.replay = lambda: self._taken.append(sum(recorded))


def test_steps_are_recorded_once_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    calls: list[int] = []

    def take() -> None:
        calls.append(1)
        taken.append(1)

    monkeypatch.setattr(torch, "cuda", PretendedCuda(taken))
    step = GraphedStep(take, "cuda")
    for count in COUNTS:
        step(count)
    assert len(taken) == sum(COUNTS)
    # Three eager steps, and the one that is recorded.
    assert len(calls) == 4
