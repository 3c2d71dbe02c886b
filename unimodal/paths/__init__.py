"""Paths: the ways an image is made.  One file a path, one line in `PATHS`."""

from pkgutil import resolve_name

PATHS = {
    "flow": "unimodal.paths.flow:FlowPath",
    "masked": "unimodal.paths.masked:MaskedPath",
    "next_scale": "unimodal.paths.next_scale:NextScalePath",
    "next_token": "unimodal.paths.next_token:NextTokenPath",
    "per_token": "unimodal.paths.per_token:PerTokenPath",
}


def load_path(name: str) -> type:
    """The class of a path.  Imported when it is needed, so that a configuration can name it without torch."""
    return resolve_name(PATHS[name])
