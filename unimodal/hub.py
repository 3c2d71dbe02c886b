"""Fetching from the Hugging Face hub: named files of a repository, and nothing that is unpickled or run."""

from collections.abc import Sequence
from pathlib import Path

from unimodal.errors import UserError


def fetch(name: str, what: str, patterns: Sequence[str], folders: bool = False) -> Path | None:
    """The folder of a repository's files, downloaded where they are not here yet; None for what is no hub id.

    what      what `name` is to be, for messages
    patterns  files that are fetched;  folders  those in folders of the repository too
    Raises UserError if the hub does not give it.
    """
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    ignored = [] if folders else ["*/*"]
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=ignored))
    except HFValidationError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{what} {name!r} is no folder here, and could not be fetched from the hub: {error}"
        ) from error
