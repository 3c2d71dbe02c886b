"""Layout: what is trained, what is seen, where positions stand."""

import numpy as np
import pytest

from tests.documents import TARGETS, picture, random_document, tokenizer
from unimodal.data.document import Document, Image, Text, Turn, drop
from unimodal.errors import UserError
from unimodal.sequence.layout import NO_LABEL, layout

RNG = np.random.default_rng(0)


def lay(document, **options):
    return layout(document, tokenizer(), TARGETS["hidden"], 4, **options)


def t2i(*after) -> Document:
    drawn = Image(picture(RNG), trained=True)
    return Document((Turn("user", (Text("a red circle"),)), Turn("assistant", (drawn, *after))))


def trained_text(sequence) -> str:
    """What the labels spell, special tokens included."""
    ids = sequence.labels[sequence.labels != NO_LABEL].tolist()
    return tokenizer().backend.decode(ids, skip_special_tokens=False)


def test_text_to_image_trains_the_start_mark_and_ends_at_the_noised_copy():
    sequence = lay(t2i())
    assert trained_text(sequence) == "<|image_start|>"
    assert [span.kind for span in sequence.images] == ["target"]
    assert sequence.images[0].start + sequence.images[0].length == len(sequence)


def test_what_follows_a_drawn_image_sees_its_clean_copy():
    sequence = lay(t2i(Text("yes", trained=True)))
    target, clean = sequence.images
    assert (target.kind, clean.kind) == ("target", "clean")
    assert sequence.hidden[target.start] and not sequence.hidden[clean.start]
    assert np.array_equal(
        sequence.position[target.start : target.start + target.length],
        sequence.position[clean.start : clean.start + clean.length],
    )
    assert trained_text(sequence) == "<|image_start|>yes<|im_end|>"


def test_image_end_is_never_a_label():
    for seed in range(30):
        sequence = lay(random_document(np.random.default_rng(seed)))
        assert tokenizer().image_end not in sequence.labels


def test_image_targets_carry_a_loss_only_where_they_are_drawn():
    """A read image is not a target; a drawn image always is (mistake: targets masked out of the loss)."""
    read = Document((Turn("user", (Image(picture(RNG)),)), Turn("assistant", (Text("two", True),))))
    assert [span.kind for span in lay(read).images] == ["clean"]
    assert [span.kind for span in lay(t2i()).images] == ["target"]


def test_positions_inside_and_after_an_image():
    document = Document(
        (Turn("user", (Image(picture(RNG, 8, 16)), Text("x"))), Turn("assistant", (Text("y", True),)))
    )
    sequence = lay(document)
    span = sequence.images[0]
    inside = sequence.position[span.start : span.start + span.length]
    order = inside[0, 0]
    assert (inside[:, 0] == order).all()
    assert inside[:, 1].tolist() == [order + r for r in (0, 0, 0, 0, 1, 1, 1, 1)]
    assert inside[:, 2].tolist() == [order + c for c in (0, 1, 2, 3, 0, 1, 2, 3)]
    after = sequence.position[span.start + span.length]
    assert after.tolist() == [order + 4] * 3
    assert (np.diff(sequence.position[span.start + span.length :], axis=0) == 1).all()


def test_text_positions_are_one_dimensional():
    sequence = lay(Document((Turn("user", (Text("how many"),)), Turn("assistant", (Text("two", True),)))))
    assert np.array_equal(sequence.position, np.arange(len(sequence))[:, None].repeat(3, 1))


def test_open_turn_is_a_prefix_of_training():
    """A prompt is rendered for inference exactly as it was in training."""
    document = t2i()
    prompt = Document(document.turns[:1])
    asked, trained = lay(prompt, open_turn=True), lay(document)
    assert asked.ids.tolist() == trained.ids[: len(asked)].tolist()
    assert trained.ids[len(asked)] == tokenizer().image_start
    assert np.array_equal(asked.position, trained.position[: len(asked)])


@pytest.mark.parametrize("seed", range(10))
def test_history_read_at_inference_equals_what_training_showed(seed):
    """Without its hidden copies, a training sequence is the sequence that inference reads."""
    document = random_document(np.random.default_rng(seed))
    trained = lay(document)
    full = lay(document, open_turn=True)
    keep = ~trained.hidden
    count = min(keep.sum(), len(full))
    assert trained.ids[keep][:count].tolist() == full.ids[:count].tolist()
    assert np.array_equal(trained.position[keep][:count], full.position[:count])


def test_picture_off_the_grid_is_refused():
    document = Document((Turn("user", (Image(picture(RNG, 8, 10)),)),), "rows.jsonl:7")
    with pytest.raises(UserError, match=r"rows\.jsonl:7.*10x8.*multiples of 4"):
        lay(document)


def test_drop_takes_conditions_and_keeps_targets():
    document = Document(
        (
            Turn("user", (Image(picture(RNG)), Text("make it green"))),
            Turn("assistant", (Image(picture(RNG), trained=True), Text("yes", True))),
        )
    )
    kinds = {
        kind: [type(p).__name__ for p in drop(document, kind).parts()] for kind in ("text", "image", "both")
    }
    assert kinds == {"text": ["Image", "Image"], "image": ["Text", "Image", "Text"], "both": ["Image"]}
    assert not any(isinstance(p, Text) and p.trained for p in drop(document, "image").parts())
