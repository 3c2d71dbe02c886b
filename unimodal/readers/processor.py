"""The processor of an image-text-to-text model of transformers: its tokenizer, template and pictures.

Many families have a part for videos as well, for which alone transformers asks for torchvision.  A reader is
shown pictures, so where torchvision is not installed that part is left out, and Pillow prepares the pictures.
"""

from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

VIDEOS = "video_processor"
LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load_processor(folder: Path) -> Any:
    """The processor in a checkpoint's folder.  Raises what transformers raises if it cannot be made here."""
    from transformers import PROCESSOR_MAPPING, AutoConfig, AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, **LOCAL)
    except ImportError:
        kind = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, **LOCAL))]
        videos = signature(kind).parameters.get(VIDEOS)
        if find_spec("torchvision") or videos is None or videos.default is not None:
            raise
    parts = [name for name in kind.get_attributes() if name != VIDEOS]
    pictures = type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: parts)})
    return pictures.from_pretrained(folder, **LOCAL)
