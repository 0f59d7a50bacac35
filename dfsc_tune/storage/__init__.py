"""Files written whole or not at all, digests, downloads, object stores."""
