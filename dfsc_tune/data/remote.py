"""Lists the categories in an object store, and copies them to this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dfsc_tune.data.layout import GOOD_FOLDER
from dfsc_tune.errors import UserError
from dfsc_tune.storage.copies import fetch_folder, local_copy
from dfsc_tune.storage.object_store import Store


def remote_categories(store: Store) -> tuple[str, ...]:
    """Lists the categories in a store's folder: its folders with a `train/good` inside, sorted.

    Raises:
        UserError: there is none. StorageError: the store does not answer.
    """
    parts = (name.split("/", 1) for name in store.files())
    names = sorted({x[0] for x in parts if len(x) == 2 and x[1].startswith(f"{GOOD_FOLDER}/")})
    if not names:
        raise UserError(
            f"no category found in {store}: a category is a folder with good training images in "
            f"{store}/<category>/{GOOD_FOLDER}"
        )
    return tuple(names)


def fetch_data(
    store: Store, categories: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> Path:
    """Copies categories from a store into a folder of this machine, and returns that folder.

    Files that are already here and unchanged are not fetched again.

    Args:
        store: the folder with the categories.
        categories: the categories to copy.
        progress: called with the files done and the files in all.

    Raises:
        UserError: as in `remote_categories` and `fetch_folder`, or if a category does not exist.
    """
    known = remote_categories(store)
    for category in categories:
        if category not in known:
            raise UserError(f"no category '{category}' in {store}; choose from {', '.join(known)}")
    folder = local_copy(store, "data")

    def is_wanted(name: str) -> bool:
        top, _, rest = name.partition("/")
        return not rest or top in categories

    fetch_folder(store, folder, is_wanted, progress)
    return folder
