"""Where this user's files lie outside a run, for users with and without a home."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import known_teachers, shipped_teacher
from dfsc_tune.search.local_ray import _not_started
from dfsc_tune.storage.places import (
    CACHE,
    _marker,
    cache_folder,
    data_folder,
    found_data_folder,
    scratch_folder,
)
from dfsc_tune.storage.token import ensure_token, offer_token

SHIPPED = shipped_teacher("tiny").parent


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that is the test's alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def home(monkeypatch: pytest.MonkeyPatch, folder: Path | str) -> None:
    for name in (CACHE, "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))


def test_the_cache_is_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(monkeypatch, tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "dfsc_tune"
    monkeypatch.setenv(CACHE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def forget_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a random user: neither HOME nor the system knows a home folder."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.parametrize("has_home", [True, False])
def test_without_a_home_the_cache_is_a_private_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, has_home: bool
) -> None:
    monkeypatch.chdir(temporary)
    home(monkeypatch, "/dev/null")
    if not has_home:
        forget_users(monkeypatch)
    for find, kind in ((cache_folder, "cache"), (data_folder, "data")):
        folder = find()
        assert folder == temporary / f"dfsc_tune_{kind}_{os.geteuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert find() == folder
    assert not Path("~").exists()


def test_a_cache_that_was_named_is_not_replaced(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "file").write_text("in the way")
    monkeypatch.setenv(CACHE, str(temporary / "file"))
    with pytest.raises(UserError, match=CACHE):
        cache_folder()


@pytest.mark.parametrize(
    ("variable", "find"),
    [(CACHE, cache_folder), ("XDG_CACHE_HOME", cache_folder), ("XDG_DATA_HOME", data_folder)],
)
def test_a_folder_that_was_named_and_cannot_be_made_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, variable: str, find: Callable[[], Path]
) -> None:
    home(monkeypatch, temporary)
    monkeypatch.setenv(variable, "/dev/null")
    with pytest.raises(UserError, match=f"the environment variable {variable} names it"):
        find()


@pytest.mark.parametrize("has_home", [True, False])
def test_kept_files_are_looked_for_without_making_a_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, has_home: bool
) -> None:
    home(monkeypatch, temporary / "home" if has_home else "/dev/null")
    if not has_home:
        forget_users(monkeypatch)
    assert found_data_folder() is None
    assert set(known_teachers()) == {path.stem for path in SHIPPED.glob("*.safetensors")}
    assert not list(temporary.iterdir())
    assert data_folder() == found_data_folder()


def test_kept_files_of_somebody_else_are_not_used(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(monkeypatch, temporary / "home")
    (temporary / "theirs").mkdir()
    (temporary / f"dfsc_tune_data_{os.geteuid()}").symlink_to(temporary / "theirs")
    assert found_data_folder() is None


def test_a_cache_of_somebody_else_is_not_used(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(monkeypatch, "/dev/null")
    (temporary / "theirs").mkdir()
    (temporary / f"dfsc_tune_cache_{os.geteuid()}").symlink_to(temporary / "theirs")
    with pytest.raises(UserError, match=CACHE):
        cache_folder()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(temporary: Path) -> None:
    code = (
        "import os, sys, tempfile\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "from dfsc_tune.storage.places import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'file').touch()\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        used = Path(process.stdout.readline().strip())
        with scratch_folder() as folder:
            assert folder.parent == used.parent == temporary
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (used / "file").exists()
        process.kill()
    assert used.exists()
    (temporary / ".dfsc_tune_file").touch()
    (temporary / ".dfsc_tune_link").symlink_to(temporary / ".dfsc_tune_file")
    with scratch_folder() as folder:
        assert not used.exists()
    assert not folder.exists()
    assert (temporary / ".dfsc_tune_link").is_symlink()


def test_no_other_folder_is_taken_for_a_leftover(temporary: Path) -> None:
    others = [temporary / name for name in ("dfsc_tune-0.2.0", ".dfsc_tune_a", ".dfsc_tune_b")]
    for folder in others:
        (folder / "results").mkdir(parents=True)
        (folder / "results" / "run.yaml").touch()
    # Somebody else's lock file, and one of another machine, whose locks do not reach here.
    (others[1] / ".lock").touch()
    (others[2] / ".lock").write_text("a temporary folder of dfsc_tune on another_machine\n")
    with scratch_folder():
        pass
    assert all((folder / "results" / "run.yaml").exists() for folder in others)
    assert not (others[0] / ".lock").exists()


def test_a_temporary_folder_needs_no_locks(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", without)
        first = scratch_folder()
        used = first.__enter__()
    # Where locks work again, it is in use all the same.
    with scratch_folder():
        assert used.is_dir()
    first.__exit__(None, None, None)
    assert not list(temporary.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_what_another_user_left_is_theirs(temporary: Path) -> None:
    theirs = temporary / ".dfsc_tune_theirs"
    theirs.mkdir()
    (theirs / ".lock").write_bytes(_marker())
    os.chown(theirs, 65534, 65534)
    with scratch_folder():
        assert theirs.exists()


def test_sockets_get_a_short_path(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    deep = temporary / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with scratch_folder() as folder:
        assert folder.parent == deep
    with scratch_folder(for_sockets=True) as folder:
        assert folder.parent == Path("/tmp")
        assert len(os.fsencode(folder / "ray")) <= len("/tmp") + 24


def test_the_folder_that_ray_is_told_is_used(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r") as named:
        monkeypatch.setenv("RAY_TMPDIR", named)
        with scratch_folder(for_sockets=True) as folder:
            assert folder.parent == Path(named)
        with scratch_folder() as folder:
            assert folder.parent == temporary
    monkeypatch.setenv("RAY_TMPDIR", str(temporary / ("x" * 30)))
    with pytest.raises(UserError, match=r"RAY_TMPDIR.* too long"), scratch_folder(for_sockets=True):
        pass


def test_no_temporary_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not_there"))
    with pytest.raises(UserError, match="TMPDIR"), scratch_folder():
        pass


def test_a_token_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(monkeypatch, tmp_path)
    path = ensure_token()
    token = path.read_text()
    assert len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    # As Ray makes them.
    path.chmod(0o644)
    path.parent.chmod(0o755)
    assert ensure_token().read_text() == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_token_that_is_offered_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(monkeypatch, tmp_path)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    path = ensure_token()
    path.chmod(0o644)
    offer_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("name", [".ray", ".ray/auth_token"])
def test_a_token_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home(monkeypatch, tmp_path)
    ensure_token()
    os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(UserError, match="another user"):
        ensure_token()


def test_without_a_home_there_is_no_token_to_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_users(monkeypatch)
    offer_token()
    with pytest.raises(UserError, match="HOME"):
        ensure_token()


@pytest.mark.parametrize(
    ("error", "said", "shown", "waits"),
    [
        (
            "The node timed out during startup.",
            "a\nno memory\n",
            "its raylet said: no memory",
            False,
        ),
        ("The node timed out during startup.", "", "very busy", True),
        ("No space left", "", "No space left", False),
    ],
)
def test_waiting_is_advised_only_where_ray_was_late(
    tmp_path: Path, error: str, said: str, shown: str, waits: bool
) -> None:
    logs = tmp_path / "session_2026" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text(said)
    text = str(_not_started(OSError(error), tmp_path))
    assert shown in text
    assert ("wait" in text) == waits
