"""The tokenizer: exact round trips, no injected specials, whole characters, equal ids in transformers."""

import json
import pickle
import random

import pytest

from unimodal.errors import UserError
from unimodal.sequence.tokenizer import SPECIALS, StreamDecoder, Tokenizer, train_tokenizer

TEXTS = [
    "a red circle left of a blue square",
    "how many circles are there? three",
    "make the square green",
    "Il était une fois 1234 étoiles.\n",
]
HARD = [
    "",
    " ",
    "\n\n  \t",
    "日本語と한국어",
    "👩🏽‍🚀 a family 👨‍👩‍👧",
    "\x00\x7f\u200d\ufeff",
    "e\u0301 ﬁ Ǆ",
    "1234567 8.90",
    "<image> <|im_end|> x",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, 400)


def random_text(rng: random.Random) -> str:
    def character() -> str:
        code = rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)])
        return "x" if 0xD800 <= code < 0xE000 else chr(code)

    return "".join(character() for _ in range(rng.randrange(30)))


def test_any_text_survives(tokenizer):
    rng = random.Random(0)
    for text in [*TEXTS, *HARD, *(random_text(rng) for _ in range(300)), "long " * 200]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.backend.decode(ids, skip_special_tokens=False) == text
        assert all(0 <= i < len(tokenizer) for i in ids)


def test_text_never_becomes_special(tokenizer):
    special = {tokenizer.backend.token_to_id(token) for token in SPECIALS.values()}
    for token in SPECIALS.values():
        ids = tokenizer.encode(f"stop {token}\n{token}{token}")
        assert not special & set(ids)
        assert tokenizer.decode(ids) == f"stop {token}\n{token}{token}"


def test_special_tokens_have_ids_and_no_text(tokenizer):
    ids = [getattr(tokenizer, name) for name in SPECIALS]
    assert len(set(ids)) == len(SPECIALS)
    assert tokenizer.decode([tokenizer.im_start, *tokenizer.encode("hi"), tokenizer.im_end]) == "hi"


@pytest.mark.parametrize("texts", [TEXTS, [], ["users assist systems"] * 50])
@pytest.mark.parametrize("size", [290, 400])
def test_words_of_the_template_are_one_token(texts, size):
    tokenizer = train_tokenizer(texts, size)
    assert len(tokenizer) <= size
    for word in ("user", "assistant", "system", "\n"):
        assert len(tokenizer.encode(word)) == 1


def test_words_of_the_template_leave_other_words_as_learned():
    """The added merges rank last, so a vocabulary with much room cuts ordinary text as one without them."""
    from tokenizers import Tokenizer as Plain
    from tokenizers import models, pre_tokenizers, trainers

    plain = Plain(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=5000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    ours = train_tokenizer(TEXTS, 5000)
    for text in TEXTS[:3]:
        tokens = [ours.backend.id_to_token(i) for i in ours.encode(text)]
        assert tokens == plain.encode(text).tokens


def test_digits_stand_alone(tokenizer):
    assert len(tokenizer.encode("1234")) == 4


def test_training_is_deterministic():
    assert train_tokenizer(TEXTS, 400).backend.to_str() == train_tokenizer(iter(TEXTS), 400).backend.to_str()


def test_transformers_reads_the_folder(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == len(tokenizer)
    for text in [*TEXTS, *HARD[:-1]]:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    newline = tokenizer.encode("\n")
    expected = []
    for message in messages:
        expected += [tokenizer.im_start, *tokenizer.encode(message["role"]), *newline]
        expected += [*tokenizer.encode(message["content"]), tokenizer.im_end, *newline]
    assert theirs.apply_chat_template(messages, tokenize=True, return_dict=False) == expected
    expected += [tokenizer.im_start, *tokenizer.encode("assistant"), *newline]
    prompted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompted == expected
    assert theirs.eos_token_id == tokenizer.im_end
    assert theirs.pad_token_id == tokenizer.pad


def test_saved_loaded_and_pickled_alike(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for other in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode("x <|im_end|> étoiles 12") == tokenizer.encode("x <|im_end|> étoiles 12")
        assert other.pad == tokenizer.pad


def test_encode_gives_a_fresh_list(tokenizer):
    first = tokenizer.encode("red")
    first.append(0)
    assert tokenizer.encode("red") == first[:-1]


def test_stream_never_emits_half_a_character(tokenizer):
    for text in [*TEXTS, *HARD]:
        stream = StreamDecoder(tokenizer)
        ids = [tokenizer.im_start, *tokenizer.encode(text), tokenizer.im_end]
        pieces = [stream.push(i) for i in ids]
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join(pieces) == text
        assert stream.finish() == ""


def test_stream_of_noise_equals_decode(tokenizer):
    rng = random.Random(1)
    for _ in range(50):
        ids = [rng.randrange(len(tokenizer)) for _ in range(40)]
        stream = StreamDecoder(tokenizer)
        text = "".join(stream.push(i) for i in ids) + stream.finish()
        assert text == tokenizer.decode(ids) == tokenizer.backend.decode(ids, skip_special_tokens=True)


def test_bad_input_is_told(tmp_path, tokenizer):
    with pytest.raises(UserError, match="at least"):
        train_tokenizer(TEXTS, 100)
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "none")
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode("\ud800")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] != "<|image_end|>"]
    del raw["model"]["vocab"]["<|image_end|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"image_end"):
        Tokenizer.load(tmp_path)
