"""Pages for people: a run as a page, runs side by side, and what follows a run from outside."""
