"""Data as a user names them: a folder, an address in a store, or none for the built-in data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dfsc_tune.data.builtin import CATEGORIES, GENERATOR_VERSION, make_dataset, unrendered
from dfsc_tune.data.layout import find_categories, read_category
from dfsc_tune.data.records import Category
from dfsc_tune.data.remote import fetch_data, remote_categories
from dfsc_tune.errors import UserError
from dfsc_tune.storage.digest import has_changed
from dfsc_tune.storage.object_store import Store, is_remote
from dfsc_tune.storage.places import cache_folder
from dfsc_tune.storage.removal import remove_below

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows work of that name while the block goes on, and is told (done, total)."""


@contextmanager
def no_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None


def data_name(data: str | None) -> str | None:
    """The data as settings name them, so that they are found from any folder; None: built-in."""
    return data if data is None or is_remote(data) else os.path.realpath(data)


def category_names(data: str | None) -> list[str]:
    """The names of all categories of the data.

    Raises:
        UserError: there is none, or the data cannot be reached.
    """
    if data is None:
        return list(CATEGORIES)
    return list(remote_categories(Store(data)) if is_remote(data) else find_categories(Path(data)))


def find_data(
    data: str | None,
    categories: Sequence[str],
    bar: Bar = no_bar,
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """The folder of the data, fetched if need be; the built-in data are rendered if need be.

    Args:
        data: a folder or an address; None for the built-in data.
        categories: those that are needed.
        bar: shows the fetching or rendering.
        note: told of a rendered category that is damaged, and so made again.

    Raises:
        UserError: a category is not one of the built-in ones, the cache cannot be written, or the
            store does not answer or lacks a category.
    """
    if data is None:
        return _rendered(categories, bar, note)
    if not is_remote(data):
        return Path(data)
    store = Store(data)
    with bar(f"fetching {store}") as progress:
        return fetch_data(store, categories, progress)


def list_data(data: str | None, categories: Sequence[str], bar: Bar = no_bar) -> list[Category]:
    """The categories with their images' records; built-in ones are not rendered for it.

    Args:
        data: a folder or an address; None for the built-in data.
        categories: their names.
        bar: shows the fetching.

    Raises:
        UserError: as `find_data` and `read_category` do.
    """
    if data is None:
        _check_builtin(categories)
        return [unrendered(name) for name in categories]
    folder = find_data(data, categories, bar)
    return [read_category(folder, name) for name in categories]


def _rendered(categories: Sequence[str], bar: Bar, note: Callable[[str], None]) -> Path:
    """The folder of the built-in data in the user's cache, with the categories rendered."""
    _check_builtin(categories)
    folder = cache_folder() / f"builtin-{GENERATOR_VERSION}"
    for category in categories:
        if has_changed(folder / category):
            note(f"{folder / category} is damaged, so it is made again")
            remove_below(folder, category)
    missing = [category for category in categories if not (folder / category).exists()]
    if missing:
        with bar(f"making built-in data ({', '.join(missing)}), once") as progress:
            make_dataset(folder, missing, progress=progress)
    return folder


def _check_builtin(categories: Sequence[str]) -> None:
    for category in categories:
        if category not in CATEGORIES:
            raise UserError(
                f"no built-in category '{category}'; choose from {', '.join(CATEGORIES)}, or give "
                "your own with --data FOLDER"
            )
