"""The token that lets a process into a cluster: made here, shipped to the nodes, offered by Ray."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def ensure_token() -> Path:
    """The file of this user's token, made if there is none; only its owner can read it."""
    path = _path()
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    path.chmod(0o600)
    return path


def offer_token() -> None:
    """Has Ray offer this user's token, if there is one, to the cluster that it talks to next.

    The mode that the environment names already is kept.
    """
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if has_token or _path().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _path() -> Path:
    return Path.home() / ".ray" / "auth_token"
