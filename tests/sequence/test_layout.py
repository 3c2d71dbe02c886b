"""Layout: what is trained, what is seen, where positions stand."""

import numpy as np
import pytest

from tests.documents import TARGETS, picture, random_document, tokenizer
from unimodal.data.document import Document, Image, Text, Turn, drop
from unimodal.errors import UserError
from unimodal.sequence.layout import layout
from unimodal.sequence.spans import TargetLayout, TextBlock
from unimodal.sequence.writer import NO_LABEL

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
    words = Document((Turn("user", (Text("draw"),)), document.turns[1]))
    assert drop(words, "image") is words  # no picture is gone, so nothing is told from less


def conversation(*answer) -> Document:
    return Document((Turn("user", (Text("how many"),)), Turn("assistant", tuple(answer))))


def copies(sequence) -> list[list[int]]:
    """The tokens of every hidden copy of text."""
    return [sequence.ids[b.start : b.start + b.length].tolist() for b in sequence.blocks]


def test_masked_text_is_told_block_by_block():
    """A copy to be masked, then the tokens that the next block reads; the end mark fills up the last."""
    said, end = tokenizer().encode("two red circle left"), tokenizer().im_end
    block = len(said) - 1
    sequence = lay(conversation(Text("two red circle left", True)), block=block)
    assert copies(sequence) == [said[:block], said[block:] + [end] * (block - 1)]
    plain = lay(conversation(Text("two red circle left", True)))
    start = sequence.blocks[0].start
    second = sequence.blocks[1]
    assert second == TextBlock(start + 2 * block, block)
    assert len(sequence) == second.start + block  # nothing that follows is trained
    assert sequence.hidden.sum() == 2 * block
    for one in sequence.blocks:  # of one step, and each position says its own token
        at = slice(one.start, one.start + one.length)
        assert len(set(sequence.step[at])) == 1
        assert sequence.labels[at].tolist() == sequence.ids[at].tolist()
    assert (sequence.labels[~sequence.hidden] == NO_LABEL).all()
    # A copy stands where its tokens do: the places where token by token training would have them.
    for one, begin in zip(sequence.blocks, (start, start + block)):
        wanted = plain.position[begin, 0] + np.arange(block)
        assert sequence.position[one.start : one.start + block, 0].tolist() == wanted.tolist()


@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_plain_text_may_begin_with_a_short_block(first):
    """So that a block begins after any number of tokens; conversations begin with whole ones."""
    told = "two red circle left two red"
    plain = Document((Turn(None, (Text(told, True),)),))
    said, end = tokenizer().encode(told), tokenizer().endoftext
    sequence = lay(plain, block=4, first=first)
    run = [*said, end]
    wanted = [run[:first], *(run[i : i + 4] for i in range(first, len(run), 4))]
    wanted[-1] += [end] * (4 - len(wanted[-1]))
    assert copies(sequence) == wanted
    chat = conversation(Text(told, True))
    assert copies(lay(chat, block=4, first=first)) == copies(lay(chat, block=4))


def test_a_picture_begins_with_a_block_of_its_mark():
    mark = tokenizer().image_start
    said, end = tokenizer().encode("two"), tokenizer().im_end
    drawn = Image(picture(RNG), trained=True)
    sequence = lay(conversation(drawn, Text("two", True)), block=3)
    assert copies(sequence)[0] == [mark] * 3
    after = [token for tokens in copies(sequence)[1:] for token in tokens]
    assert after[: len(said) + 1] == [*said, end]
    assert [span.kind for span in sequence.images] == ["target", "clean"]
    assert sequence.ids[sequence.images[0].start - 1] == mark  # which is read before the picture is drawn
    only = lay(conversation(drawn), block=3)
    assert copies(only) == [[mark] * 3]
    assert only.images[0].start + only.images[0].length == len(only)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("block", [1, 3, 8])
def test_masked_history_is_what_inference_reads(seed, block):
    """Without its hidden copies it is the sequence that is read, up to the block that nothing reads."""
    document = random_document(np.random.default_rng(seed))
    trained, full = lay(document, block=block), lay(document, open_turn=True, block=block)
    assert not full.blocks and not full.hidden.any()
    keep = ~trained.hidden
    count = min(keep.sum(), len(full))
    assert trained.ids[keep][:count].tolist() == full.ids[:count].tolist()
    assert np.array_equal(trained.position[keep][:count], full.position[:count])
    # All that token by token training predicts is said by some copy, in the same order.
    wanted = [t for t in lay(document).labels.tolist() if t != NO_LABEL]
    marks = (tokenizer().image_start, tokenizer().im_end, tokenizer().endoftext)
    said = []
    for tokens in copies(trained):
        while len(tokens) > 1 and tokens[-1] == tokens[-2] and tokens[-1] in marks:
            tokens = tokens[:-1]
        said += tokens
    assert said == wanted


class Sized:
    """A path that has the size said before every picture."""

    def target_layout(self, grid):
        steps = np.zeros(grid[0] * grid[1], dtype=np.int64)
        return TargetLayout(steps, hidden=True, said=f"{grid[0]}x{grid[1]}")


def test_what_a_path_has_said_stands_before_read_and_drawn_pictures():
    shown, drawn = Image(picture(RNG, 8, 16)), Image(picture(RNG, 16, 8), trained=True)
    turns = (Turn("user", (shown, Text("two"))), Turn("assistant", (drawn, Text("yes", True))))
    sequence = layout(Document(turns), tokenizer(), Sized(), 4)
    for span, size in zip(sequence.images, ("2x4", "4x2")):
        said = tokenizer().encode(size)
        before = sequence.ids[span.start - len(said) - 1 : span.start].tolist()
        assert before == [tokenizer().image_start, *said]
        inside = slice(span.start - len(said) - 1, span.start)
        assert (sequence.labels[inside] == NO_LABEL).all()  # nobody has to predict the size
    full = layout(Document(turns), tokenizer(), Sized(), 4, open_turn=True)
    keep = ~sequence.hidden
    count = min(keep.sum(), len(full))
    assert sequence.ids[keep][:count].tolist() == full.ids[:count].tolist()
