"""Names that come from files become paths only below their folder, and nothing else is removed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.settings import loads
from dfsc_tune.storage.copies import fetch_folder
from dfsc_tune.storage.names import checked_name, path_below
from dfsc_tune.storage.object_store import StoredFile
from dfsc_tune.storage.removal import remove_below

LEADING_OUT = ("../victim", "/etc", "a/../../victim", "..", ".", "", "a//b", "a/", "x\0y", "./a")


@pytest.mark.parametrize("name", LEADING_OUT)
def test_nothing_outside_a_folder_is_named_or_removed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "run" / "a" / "b").mkdir(parents=True)
    victim.mkdir()
    for act in (path_below, remove_below):
        with pytest.raises(UserError, match="leads out of the folder"):
            act(tmp_path / "run", name)
    assert victim.is_dir()
    assert (tmp_path / "run" / "a" / "b").is_dir()


def test_a_link_is_no_way_out(tmp_path: Path) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    (victim / "below").mkdir(parents=True)
    run.mkdir()
    (run / "link").symlink_to(victim)
    with pytest.raises(UserError, match="by a symbolic link"):
        remove_below(run, "link/below")
    remove_below(run, "link")
    assert (victim / "below").is_dir()
    assert not (run / "link").is_symlink()


def test_what_lies_below_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    remove_below(tmp_path, "a/file")
    remove_below(tmp_path, "a/none")
    assert [x.name for x in (tmp_path / "a").iterdir()] == ["b"]
    remove_below(tmp_path, "a")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tray", "a b", "Größe", ".x", "..x", "a\\b", "x" * 255])
def test_usual_names_are_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("category", ["../x", "", "a/b", "..", "x" * 256])
def test_a_category_in_settings_is_a_folder_of_its_own(category: str) -> None:
    with pytest.raises(UserError, match=r"x\.yaml:1: category: must be"):
        loads(f"category: {json.dumps(category)}", TrialConfig, "x.yaml")


def fake_store(*names: str) -> Any:
    files = {name: StoredFile(1, "2026-01-01T00:00:00+00:00") for name in names}

    def fetch(name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    return SimpleNamespace(files=lambda: files, read=lambda name: None, fetch=fetch)


def test_a_store_cannot_write_outside_of_its_copy(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for name in ("../victim", "a/../../victim", "/victim"):
        with pytest.raises(UserError, match="leads out"):
            fetch_folder(fake_store("a", name), folder, lambda name: True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="by a symbolic link"):
        fetch_folder(fake_store("link/x"), folder, lambda name: True)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_what_a_copy_remembers_cannot_delete_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / "copy"
    entry = {"size": 1, "changed": "", "sha256": ""}
    for remembered in ({"../victim": entry}, {"a": {}}, [], "x"):
        folder.mkdir(exist_ok=True)
        (folder / ".fetched.json").write_text(json.dumps(remembered))
        assert fetch_folder(fake_store("a"), folder, lambda name: True) == 1
        assert (tmp_path / "victim").read_text() == "mine"
