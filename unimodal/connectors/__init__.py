"""Connectors: from what a frozen reader understood to a denoiser's condition.  A file and a line each."""

from importlib import import_module

CONNECTORS = {
    "hidden": "unimodal.connectors.hidden:Hidden",
    "prefilled": "unimodal.connectors.prefilled:Prefilled",
    "qformer": "unimodal.connectors.qformer:QFormer",
    "queries": "unimodal.connectors.queries:Queries",
}


def load_connector(name: str) -> type:
    """The class of a connector, imported when it is needed."""
    module, cls = CONNECTORS[name].split(":")
    return getattr(import_module(module), cls)
