"""Finds the data folder that a command works on: given, fetched from a store, or built in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dfsc_tune.cli.printing import progress_bar
from dfsc_tune.errors import UserError


def data_name(data: str | None) -> str | None:
    """The data as settings name them, so that they are found from any folder; None: built-in."""
    from dfsc_tune.storage.object_store import is_remote

    return data if data is None or is_remote(data) else os.path.realpath(data)


def data_folder(data: str | None, categories: Sequence[str], console: Console) -> Path:
    """The given data folder, fetched if need be; or the built-in data, rendered if need be.

    Args:
        data: what the user gave.
        categories: those that are needed.
        console: for the progress bar.
    """
    from dfsc_tune.storage.object_store import Store, is_remote

    if data is not None and is_remote(data):
        from dfsc_tune.data.remote import fetch_data

        store = Store(data)
        with progress_bar(f"fetching {store}", console) as progress:
            return fetch_data(store, categories, progress)
    if data is not None:
        return Path(data)
    return ensure_builtin_data(categories, console)


def ensure_builtin_data(categories: Sequence[str], console: Console) -> Path:
    """The folder of the built-in data in the user's cache, with the categories rendered.

    Raises:
        UserError: a category is not one of the built-in ones, or the cache cannot be written.
    """
    from dfsc_tune.data.builtin import GENERATOR_VERSION, make_dataset
    from dfsc_tune.storage.digest import has_changed
    from dfsc_tune.storage.places import cache_folder
    from dfsc_tune.storage.removal import remove_below

    check_builtin(categories)
    folder = cache_folder() / f"builtin-{GENERATOR_VERSION}"
    for category in categories:
        if has_changed(folder / category):
            console.print(f"{folder / category} is damaged, so it is made again")
            remove_below(folder, category)
    missing = [category for category in categories if not (folder / category).exists()]
    if missing:
        with progress_bar(
            f"making built-in data ({', '.join(missing)}), once", console
        ) as progress:
            make_dataset(folder, missing, progress=progress)
    return folder


def check_builtin(categories: Sequence[str]) -> None:
    """Refuses what is not one of the built-in categories."""
    from dfsc_tune.data.builtin import CATEGORIES

    for category in categories:
        if category not in CATEGORIES:
            raise UserError(
                f"no built-in category '{category}'; choose from {', '.join(CATEGORIES)}, or give "
                "your own with --data FOLDER"
            )
