"""The one exception that a user is meant to read.

A `UserError` says what was found, where, what was expected and how to mend it.  The command line prints
its sentence without a traceback; a notebook sees an ordinary `ValueError`.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: a row, a recipe, a path, a picture."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name nearest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
