"""Connectors: from what a frozen reader understood to a denoiser's condition.  A file and a line each."""

from pkgutil import resolve_name

CONNECTORS = {
    "hidden": "unimodal.connectors.hidden:Hidden",
    "prefilled": "unimodal.connectors.prefilled:Prefilled",
    "qformer": "unimodal.connectors.qformer:QFormer",
    "queries": "unimodal.connectors.queries:Queries",
}


def load_connector(name: str) -> type:
    """The class of a connector, imported when it is needed."""
    return resolve_name(CONNECTORS[name])
