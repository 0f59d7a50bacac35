"""The networks: sizes, parameters and teacher files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfsc_tune.config import ModelConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, feature_size, normalize_images, teacher_channels
from dfsc_tune.models.state_dicts import read_weights
from dfsc_tune.models.teacher import (
    fit_channel_statistics,
    load_teacher,
    teacher_features,
    teacher_identity,
)


def num_multiplications(network: nn.Module, size: int) -> int:
    """Multiply-accumulates of all convolutions for one image."""
    total = 0

    def count(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.in_channels * layer.kernel_size[0] ** 2

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 3, size, size))
    return total


def test_costs_are_those_of_the_method() -> None:
    channels = teacher_channels("small")
    with torch.inference_mode():
        assert num_multiplications(build_pdn("small", channels), 256) / 1e9 == pytest.approx(
            15.3, abs=0.05
        )
        assert num_multiplications(build_pdn("small", 2 * channels), 256) / 1e9 == pytest.approx(
            20.2, abs=0.05
        )
        autoencoder = build_autoencoder(ModelConfig())
        assert num_multiplications(autoencoder, 256) / 1e9 == pytest.approx(2.4, abs=0.05)


@pytest.mark.parametrize(("network", "size"), [("tiny", 128), ("tiny", 160), ("medium", 128)])
def test_all_networks_share_one_feature_grid(network: str, size: int) -> None:
    model = ModelConfig(network=network, image_size=size)
    channels = teacher_channels(network)
    image = torch.zeros(2, 3, size, size)
    grid = (feature_size(size),) * 2
    with torch.inference_mode():
        assert build_pdn(network, 2 * channels)(image).shape == (2, 2 * channels, *grid)
        padded = build_pdn(network, channels, padded=True)(image)
        assert padded.shape == (2, channels, size // 4, size // 4)
        assert build_autoencoder(model).eval()(image).shape == (2, channels, *grid)


def test_feature_grid_of_the_paper() -> None:
    assert feature_size(256) == 56


def test_instance_norms_stand_before_each_relu_but_the_codes() -> None:
    layers = list(build_autoencoder(ModelConfig()))
    relus = [index for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    without = [i for i in relus if not isinstance(layers[i - 1], nn.InstanceNorm2d)]
    assert len(relus) == 5 + 1 + 6 + 1
    # The one without is the decoder's first layer, right after the 1×1 code.
    assert [layers[i - 1].kernel_size for i in without] == [(8, 8)]
    norms = [layer for layer in layers if isinstance(layer, nn.InstanceNorm2d)]
    assert not any(norm.affine or norm.track_running_stats for norm in norms)


def test_the_plain_autoencoder_is_efficientads() -> None:
    layers = list(build_autoencoder(ModelConfig(instance_norm_relu=False)))
    assert not any(isinstance(layer, nn.InstanceNorm2d) for layer in layers)
    assert sum(isinstance(layer, nn.ReLU) for layer in layers) == 5 + 6 + 1


def test_images_are_normalised_as_imagenet() -> None:
    pixels = torch.tensor([0, 255, 128], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(normalize_images(pixels).flatten(), expected, rtol=1e-6)


def test_the_random_teacher_is_always_the_same() -> None:
    model = ModelConfig(network="tiny", image_size=128, teacher="random")
    torch.manual_seed(1)
    first = load_teacher(model)
    torch.manual_seed(2)
    assert teacher_identity(first) == teacher_identity(load_teacher(model))


def test_channel_statistics_make_training_features_standard() -> None:
    teacher = load_teacher(ModelConfig(network="tiny", image_size=128, teacher="random"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 128, 128), dtype=np.uint8)
    raw = teacher_features(teacher, pixels, batch_size=2)
    fit_channel_statistics(teacher, raw)
    normal = teacher_features(teacher, pixels, batch_size=3).astype(np.float64)
    np.testing.assert_allclose(normal.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=(0, 2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(
        teacher.mean.flatten(), raw.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-4
    )


@pytest.mark.parametrize("names", ["efficientad", "anomalib"])
@pytest.mark.parametrize("network", ["tiny", "medium"])
def test_known_weight_files_load_whatever_their_names(
    tmp_path: Path, names: str, network: str
) -> None:
    pdn = build_pdn(network, teacher_channels(network))
    layers = sorted({int(name.split(".")[0]) for name in pdn.state_dict()})
    weights = {
        name
        if names == "efficientad"
        else f"conv{layers.index(int(name.split('.')[0])) + 1}.{name.split('.')[1]}": tensor
        for name, tensor in pdn.state_dict().items()
    }
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    teacher = load_teacher(ModelConfig(network=network, image_size=128, teacher=str(path)))
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(teacher(image), pdn(image))
    save_file(weights, tmp_path / "teacher.safetensors")
    again = ModelConfig(
        network=network, image_size=128, teacher=str(tmp_path / "teacher.safetensors")
    )
    assert teacher_identity(load_teacher(again)) == teacher_identity(teacher)


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no teacher weights"),
        ("pickle", "more than tensors"),
        ("truncated", "damaged"),
        ("text", "damaged"),
        ("list", "not a state dict"),
        ("other network", "a network other than 'tiny'"),
        ("damaged safetensors", "damaged"),
    ],
)
def test_bad_teacher_files_are_refused(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "teacher.pth"
    if content == "pickle":
        path.write_bytes(pickle.dumps(_Code()))
    elif content == "list":
        torch.save([torch.zeros(1)], path)
    elif content == "other network":
        torch.save(build_pdn("small", 384).state_dict(), path)
    elif content == "truncated":
        torch.save(build_pdn("tiny", 96).state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "text":
        path.write_text("hi\n")
    elif content == "damaged safetensors":
        path = tmp_path / "teacher.safetensors"
        path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!")
    with pytest.raises(UserError, match=message):
        load_teacher(ModelConfig(network="tiny", image_size=128, teacher=str(path)))
    assert "code ran" not in capsys.readouterr().out


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    weights = {k: v.half() for k, v in build_pdn("tiny", 96).state_dict().items()}
    save_file(weights, tmp_path / "half.safetensors")
    model = ModelConfig(network="tiny", image_size=128, teacher=str(tmp_path / "half.safetensors"))
    assert all(p.dtype == torch.float32 for p in load_teacher(model).parameters())
    assert read_weights(tmp_path / "half.safetensors").keys() == weights.keys()
