"""Search spaces: what varies and how, what is fixed, and what may be spent."""
