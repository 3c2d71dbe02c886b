"""The page about data shows what there is: its commands parse, each importer has its section and fields."""

import re
from pathlib import Path

import pytest

from tests.test_readme import not_understood
from unimodal.data.importers import IMPORTERS

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (unimodal .*)$", PAGE, re.MULTILINE)
SECTIONS = dict(re.findall(r"^### `([\w-]+)`.*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    assert not_understood(line) == []


def test_every_importer_is_shown():
    assert set(SECTIONS) == set(IMPORTERS)
    for name, section in SECTIONS.items():
        assert f"--from {name} " in section
        if name not in ("imagefolder", "webdataset"):  # these take the fields of the columns
            assert all(f"`{field}`" in section for field in IMPORTERS[name].fields), name
