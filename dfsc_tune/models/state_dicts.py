"""Reads a PDN's state dict from a file without running code, and identifies its network."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import cast, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dfsc_tune.config import Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.storage.digest import check_archive


def pdn_sha256(pdn: nn.Sequential) -> str:
    """Returns the sha256 of a PDN's float32 tensors, whatever file and names they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(pdn.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a .safetensors file, or of a .pth file without running code from it.

    Raises:
        UserError: the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise UserError(f"no teacher weights at {path}; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            # torch writes checksums and does not look at them; it once wrote no archives.
            check_archive(path)
        with warnings.catch_warnings():
            # torch warns of a pickle of another protocol before it refuses it anyway.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is damaged; give a state dict saved by torch.save "
            "or .safetensors"
        ) from error
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # torch's reader raises almost any type on files of other programs.
        raise UserError(
            f"{path} is damaged or not a weights file; fetch or save it again"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(x, Tensor) for x in weights.values()):
        raise UserError(
            f"{path} is not a state dict (tensors by name); save teacher.state_dict() instead"
        )
    return weights


def read_pdn(path: Path, network: Network) -> nn.Sequential:
    """Builds the teacher's PDN, unpadded, float32, with the weights of a file.

    The names may differ as long as the layers come in the same order. Known names are the indices
    of nelson1425/EfficientAD, anomalib's `conv1`… and this package's `pdn.0`….

    Raises:
        UserError: the weights cannot be read or belong to another network.
    """
    weights = read_weights(path)
    pdn = build_pdn(network, teacher_channels(network))
    given = _in_layer_order(weights)
    if [x.shape for x in given.values()] != _shapes(pdn):
        made_for = _network_of(weights)
        hint = f"'{made_for}', the one it was made for" if made_for else "the one it was made for"
        raise UserError(
            f"{path} holds the weights of a network other than '{network}'; set model.network to "
            f"{hint}, or model.teacher to another file"
        )
    tensors = [x.float() for x in given.values()]
    pdn.load_state_dict(dict(zip(_in_layer_order(pdn.state_dict()), tensors, strict=True)))
    return pdn


def network_of(path: Path) -> Network:
    """Identifies the network whose teacher a weights file holds.

    Raises:
        UserError: the weights cannot be read or fit no network.
    """
    found = _network_of(read_weights(path))
    if found is None:
        raise UserError(
            f"{path} fits no teacher of {', '.join(get_args(Network))}; give the state dict of "
            "EfficientAD's PDN, or distil a teacher with `dfsc-tune teacher distill`"
        )
    return found


def _network_of(weights: dict[str, Tensor]) -> Network | None:
    shapes = [x.shape for x in _in_layer_order(weights).values()]
    for network in get_args(Network):
        # Only the shapes matter: on "meta" nothing is filled and no random number is drawn.
        with torch.device("meta"):
            pdn = build_pdn(network, teacher_channels(network))
        if _shapes(pdn) == shapes:
            return cast("Network", network)
    return None


def _shapes(pdn: nn.Sequential) -> list[torch.Size]:
    return [x.shape for x in _in_layer_order(pdn.state_dict()).values()]


def _in_layer_order(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in sorted(weights, key=_layer_key)}


def _layer_key(name: str) -> tuple[int, str]:
    number = re.search(r"\d+", name)
    return (int(number.group()) if number else -1, name.rsplit(".", 1)[-1])
