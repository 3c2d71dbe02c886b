"""Readers: frozen models that understand what a picture is to be drawn from.  A file and a line here each."""

from pkgutil import resolve_name

READERS = {
    "tokens": "unimodal.readers.tokens:load_tokens",
    "transformers": "unimodal.readers.vlm:load_vlm",
    "unimodal": "unimodal.readers.own:load_own",
}


def open_reader(kind: str):
    """What opens a folder of this kind as a Reader, imported when it is needed."""
    return resolve_name(READERS[kind])
