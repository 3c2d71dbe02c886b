"""What a pretrained checkpoint said of turns and ends before its tokenizer was extended.

It travels with the tokenizer from folder to folder, so that the text part can be given back as it came.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from unimodal.errors import UserError

FILE = "origin.json"  # beside tokenizer.json


class Origin(BaseModel):
    """The checkpoint's own words.

    added          tokens that its tokenizer did not have
    tokens         its special tokens by their keys in tokenizer_config.json, as eos_token
    chat_template  Jinja text, or a list of named ones; None: it has none
    ids            bos_token_id, eos_token_id and pad_token_id of its config.json, where it says them
    generation     its generation_config.json
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    added: list[str]
    tokens: dict[str, str]
    chat_template: str | list[dict[str, Any]] | None
    ids: dict[str, int | list[int]]
    generation: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        (folder / FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Origin | None":
        """Read what `save` wrote, if anything.  Raises UserError if it is broken."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{file} cannot be understood ({error}). Copy it again, or remove it.") from error
