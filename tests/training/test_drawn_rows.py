"""Rows of a mixture of all tasks as an external model takes them: what draws, and what is counted instead."""

import json

import pytest

from tests.external.make import config
from unimodal.data.document import Image, Text
from unimodal.external.prompts import plan_of
from unimodal.model.config import DropTable
from unimodal.training.config import DataSection
from unimodal.training.drawn_rows import LOOKED_AT, DrawnBatch, DrawnRows
from unimodal.training.unified import mixture_of

NO_DROPS = DropTable(text=0, image=0, both=0)


def rows_of(plans=False, **source):
    mixture = mixture_of(DataSection(sources=[{"source": "shapes"} | source], workers=0))
    return DrawnRows(mixture, 64, 64, NO_DROPS, 0, plans, "the reader at hand")


def pictures_of(document):
    """What is drawn, and whether words stand before it in its turn: counted part by part."""
    found = []
    for turn in document.turns:
        words = ""
        for part in turn.parts:
            if isinstance(part, Text):
                words += part.text
            elif isinstance(part, Image):
                found += [bool(words)] if part.trained else []
                words = ""
    return found


def documents(rows, count):
    return [rows.mixture.document(number) for number in range(count)]


def test_rows_are_passed_over_in_order_and_none_that_draws_is():
    rows = rows_of()
    drawing = [n for n, document in enumerate(documents(rows, 120)) if pictures_of(document)]
    stream = rows.from_number(0)
    assert [next(stream)[0] for _ in drawing] == drawing
    assert 0 < len(drawing) < 120
    stream, odd = rows.from_number(1, 2), [n for n in drawing if n % 2]
    assert [next(stream)[0] for _ in odd] == odd


@pytest.mark.parametrize("plans", [True, False])
@pytest.mark.parametrize("reasons", [True, False])
def test_what_is_said_of_the_rows_is_so(plans, reasons):
    rows = rows_of(plans, reasons=reasons)
    every = [pictures_of(document) for document in documents(rows, LOOKED_AT)]
    nothing = sum(not found for found in every)
    pictures = [words for found in every for words in found]
    told = " ".join(rows.about())
    assert f"{nothing} of the first {LOOKED_AT} rows draw no picture" in told
    left_out = f"Of their {len(pictures)} pictures {sum(pictures)} come after words"
    assert (left_out in told) == (not plans and any(pictures))
    missing = f"Of their {len(pictures)} pictures {len(pictures) - sum(pictures)} come without words"
    assert (missing in told) == (plans and not all(pictures))
    assert sum(pictures) == (len(pictures) if reasons else sum(pictures))


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert rows_of(tasks={"t2i": 1}, reasons=False).about() == []
    assert rows_of(True, tasks={"edit": 1}, reasons=True).about() == []


def test_plans_are_in_the_prompts_or_not():
    asked = {plans: rows_of(plans, tasks={"t2i": 1}) for plans in (True, False)}
    for number in range(20):
        (planned, picture), (plain, same) = (asked[plans](number) for plans in (True, False))
        assert (picture == same).all()
        assert plan_of(planned).endswith(":") and not plan_of(plain)
        assert [t for t in plain.turns if t.role == "user"] == [t for t in planned.turns if t.role == "user"]


def test_a_batch_counts_its_rows():
    batch = DrawnBatch([None] * 3, [None] * 3, 8, {"next": 9}, 7)
    assert batch.rows == {"read": 7, "without_picture": 4}
    assert json.dumps(batch.rows)


def test_the_configuration_keeps_whether_there_are_plans(tmp_path):
    config(plans=True).save(tmp_path)
    assert type(config()).load(tmp_path).plans is True
    assert config().plans is False
