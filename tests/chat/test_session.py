import json

import pytest
from PIL import Image

from tests.chat.fake import FakeUnimodal
from unimodal.chat.pictures import save_picture
from unimodal.chat.session import Session, content_of
from unimodal.data.check import check
from unimodal.errors import UserError
from unimodal.generation.verbs import Drawing, Picture, Piece


@pytest.fixture
def session() -> Session:
    return Session(FakeUnimodal())


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def test_a_conversation_is_a_row(session):
    list(session.say("draw a red circle"))
    list(session.say("now make it green"))
    reply = list(session.say("how many?"))
    assert "".join(e.text for e in reply if isinstance(e, Piece)) == "there are 2 pictures."
    assert session.messages == [
        {"role": "user", "content": "draw a red circle"},
        {"role": "assistant", "content": "<image>"},
        {"role": "user", "content": "now make it green"},
        {"role": "assistant", "content": "<image>"},
        {"role": "user", "content": "how many?"},
        {"role": "assistant", "content": "there are 2 pictures."},
    ]
    assert [i.getpixel((0, 0)) for i in session.images] == [(255, 0, 0), (0, 128, 0)]


def test_events_pass_through_in_order(session):
    kinds = [type(event) for event in session.say("draw a red circle")]
    assert kinds == [Drawing, Drawing, Drawing, Picture]


def test_attached_pictures_stand_before_the_text_or_at_its_marks(session):
    session.attach(picture("red"))
    session.attach(picture("blue"))
    list(session.say("compare"))
    assert session.messages[0]["content"] == "<image><image>compare"
    session.attach(picture("red"))
    list(session.say("what is in <image> here?"))
    assert session.messages[2]["content"] == "what is in <image> here?"
    assert len(session.images) == 3
    assert session.attached == []


def test_marks_and_pictures_must_agree(session):
    session.attach(picture("red"))
    with pytest.raises(UserError, match=r"2 <image> marks but 1 pictures"):
        session.say("<image> and <image>")
    assert len(session.attached) == 1
    with pytest.raises(UserError, match="empty"):
        session.say("  ")


def test_undo_takes_back_message_reply_and_pictures(session):
    session.attach(picture("blue"))
    list(session.say("draw it in red"))
    list(session.say("how many?"))
    session.undo()
    assert len(session.messages) == 2
    assert len(session.images) == 2
    assert "draw it in red" in session.undo()
    assert (session.messages, session.images) == ([], [])
    with pytest.raises(UserError, match="nothing to take back"):
        session.undo()


def test_undo_takes_an_attached_picture_off_first(session):
    list(session.say("draw"))
    session.attach(picture("red"))
    session.undo()
    assert session.attached == []
    assert len(session.messages) == 2


def test_retry_asks_the_same_again_with_another_seed(session):
    session.settings.seed = 7
    session.attach(picture("blue"))
    list(session.say("draw it in red"))
    before = session.model.calls[-1][1]
    list(session.retry())
    again = session.model.calls[-1][1]
    assert again["messages"] == before["messages"]
    assert again["images"] == before["images"]
    assert (before["seed"], again["seed"]) == (7, 8)
    assert len(session.messages) == 2
    assert len(session.images) == 2


def test_retry_after_a_reply_that_failed_keeps_the_turn_before(session):
    list(session.say("draw a red circle"))
    with pytest.raises(UserError, match="too long"):
        list(session.say("refuse this"))
    assert len(session.messages) == 2
    with pytest.raises(UserError, match="too long"):
        list(session.retry())
    assert [m["content"] for m in session.messages] == ["draw a red circle", "<image>"]
    assert len(session.images) == 1


def test_retry_after_undo_is_about_the_message_that_is_left(session):
    list(session.say("draw a red circle"))
    list(session.say("how many?"))
    session.undo()
    list(session.retry())
    assert [m["content"] for m in session.messages] == ["draw a red circle", "<image>"]


def test_stopping_keeps_what_was_finished(session):
    session.model.stop_at = "pictures."
    with pytest.raises(KeyboardInterrupt):
        list(session.say("how many?"))
    assert session.messages[-1] == {"role": "assistant", "content": "there are 0"}
    session.model.stop_at = "picture"
    with pytest.raises(KeyboardInterrupt):
        list(session.say("draw a red circle"))
    assert len(session.messages) == 2
    reply = session.say("how many?")
    session.model.stop_at = ""
    next(reply)
    reply.close()
    assert session.messages[-1]["content"] == "there "


def test_seeds_are_fresh_unless_fixed(session):
    for _ in range(2):
        list(session.say("draw"))
    first, second = (options["seed"] for _, options in session.model.calls)
    assert first != second
    session.settings.seed = 3
    list(session.say("draw"))
    assert session.model.calls[-1][1]["seed"] == session.last_seed == 3


def test_edit_changes_the_last_picture_or_the_attached_one(session):
    with pytest.raises(UserError, match="no picture to edit"):
        session.edit("make it blue")
    list(session.generate("a red circle"))
    drawn = session.images[-1]
    list(session.edit("make it blue"))
    assert session.model.calls[-1][1]["image"] is drawn
    assert [m["content"] for m in session.messages] == ["a red circle", "<image>", "make it blue", "<image>"]
    mine = picture("green")
    session.attach(mine)
    list(session.edit("make it red"))
    assert session.model.calls[-1][1]["image"] is mine
    assert session.messages[-2]["content"] == "<image>make it red"
    assert len(session.images) == 4


def test_saved_rows_are_training_rows(session, tmp_path):
    list(session.say("draw a red circle"))
    first = session.save(tmp_path / "rows" / "talk.jsonl")
    list(session.say("how many?"))
    second = session.save(tmp_path / "rows" / "talk.jsonl")
    assert first != second
    rows = [json.loads(line) for line in (tmp_path / "rows" / "talk.jsonl").read_text().splitlines()]
    assert [len(row["messages"]) for row in rows] == [2, 4]
    rooms = pytest.importorskip("unimodal.data.rows")
    for row in rows:
        document = rooms.parse_row(row, "talk.jsonl", tmp_path / "rows")
        assert [tuple(image.pixels[0, 0]) for image in document.images] == [(255, 0, 0)]


def test_saving_nothing_is_a_mistake(session, tmp_path):
    with pytest.raises(UserError, match="nothing to save"):
        session.save(tmp_path / "talk.jsonl")
    list(session.say("draw"))
    with pytest.raises(UserError, match="cannot save"):
        session.save(tmp_path)


def test_pictures_never_overwrite(tmp_path):
    paths = [save_picture(picture(c), tmp_path, "picture") for c in ("red", "green")]
    paths[0].unlink()
    (tmp_path / "picture-0003.png").write_text("someone's own")
    paths = [save_picture(picture("blue"), tmp_path, "picture") for _ in range(2)]
    assert [p.name for p in paths] == ["picture-0001.png", "picture-0004.png"]
    assert (tmp_path / "picture-0003.png").read_text() == "someone's own"


def test_words_that_look_like_a_mark_are_no_picture(session, tmp_path, monkeypatch):
    def reply(*_, **__):
        yield from (Piece("write <ima"), Piece("ge> to"), Picture(picture("red")), Piece("show one"))

    monkeypatch.setattr(session.model, "stream", reply)
    list(session.say("how do I send a picture?"))
    parts = [
        {"type": "text", "text": "write <image> to"},
        {"type": "image"},
        {"type": "text", "text": "show one"},
    ]
    assert session.messages[1]["content"] == parts
    session.save(tmp_path / "rows.jsonl")
    report = check(tmp_path / "rows.jsonl")
    assert (report.errors, report.rows) == ([], 1)
    assert content_of(["a", None, "b", "c"]) == "a<image>bc"
