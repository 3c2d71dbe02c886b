"""Replies as they reach the caller: put together in order, event by event, and with what went wrong."""

import threading
from itertools import count

import numpy as np
import pytest

from unimodal.errors import UserError
from unimodal.generation.converse import Drawn, Piece
from unimodal.generation.replies import Drawing, Picture, collected, streamed

BLACK, WHITE = np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)


def told(parts):
    """Texts as they are, pictures by their first value."""
    return [part if isinstance(part, str) else int(np.asarray(part)[0, 0, 0]) for part in parts]


def test_rows_that_speak_in_turns_are_kept_apart_and_text_is_joined_up_to_a_picture():
    said = [
        (0, Piece("a ")),
        (2, Drawn(WHITE)),
        (0, Piece("plan:")),
        (2, Drawn(BLACK)),
        (0, Drawn(BLACK)),
        (2, Piece("done")),
        (0, Piece("th")),
        (0, Piece("ere")),
    ]
    replies = collected(said, 3)
    assert [told(reply.parts) for reply in replies] == [["a plan:", 0, "there"], [], [255, 0, "done"]]
    assert replies[0].text == "a plan:there"
    assert told(replies[2].images) == [255, 0]


def talk(events):
    """A conversation whose `run` asks for events, given what tells of solver steps."""

    class Talk:
        def __init__(self, on_step):
            self.on_step = on_step

        def run(self, seeds):
            assert seeds == [7]
            for event in events(self.on_step):
                yield 0, event

    return Talk


def test_events_arrive_in_order_with_the_steps_between():
    def events(on_step):
        yield Piece("a")
        on_step(1, 2)
        on_step(2, 2)
        yield Drawn(WHITE)

    first, *steps, picture = streamed(talk(events), 7)
    assert (first, steps) == (Piece("a"), [Drawing(1, 2), Drawing(2, 2)])
    assert isinstance(picture, Picture) and picture.image.size == (3, 2)


def test_what_goes_wrong_is_raised_where_it_is_read():
    def events(on_step):
        yield Piece("a")
        raise UserError("no")

    stream = streamed(talk(events), 7)
    assert next(stream) == Piece("a")
    with pytest.raises(UserError, match="no"):
        next(stream)


@pytest.mark.parametrize("drawing", [False, True])
def test_closing_stops_the_model(drawing):
    """Between words, or in the middle of a picture."""

    def events(on_step):
        for step in count(1):
            if drawing:
                on_step(step, 1_000_000)
            else:
                yield Piece("a")

    before = threading.active_count()
    stream = streamed(talk(events), 7)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
