"""Talk beside the shapes: greetings, what the model can do, and what it says when asked for anything else.

Off-topic requests are drawn from forms and fillers, of which every fourth filler is kept out of training, so
that a polite refusal on `val` is one of a phrase never met.  Replies are few and fixed, so that they can be
judged exactly.
"""

import json
from importlib.resources import files
from random import Random

from data_tools.shapes.language import article, listed, plural
from data_tools.shapes.scene import COLOURS, SEEN, SHAPES, SIZES

ABLE = "I draw colored shapes, change pictures of them and answer questions about them."
HELLO = f"Hello! {ABLE} Try: draw a red circle."
THANKS = "You are welcome!"
BYE = "Goodbye!"
SORRY = "Sorry, I only know colored shapes. I can draw them, change them and answer questions about them."
_SHAPE = f"Sorry, I cannot draw that. I know {listed([plural(shape) for shape in SHAPES])}."
_COLOUR = f"Sorry, I do not know that color. I know {listed(list(COLOURS))}."

_NUMBER = "Sorry, I draw at most four shapes."
UNKNOWN = {"many": _NUMBER, "thing": _SHAPE, "nonsense": _SHAPE, "colour": _COLOUR}
_REPLIES = {"greetings": HELLO, "abilities": ABLE, "thanks": THANKS, "byes": BYE}
# How often each kind of thing that the model does not know is asked for.
_REFUSALS = {"thing": 5, "colour": 2, "many": 1, "nonsense": 2, "topic": 3, "writing": 2, "ask": 4}
_MANY = ("five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "a hundred", "many")
_PHRASES = json.loads(files(__package__).joinpath("phrases.json").read_text("utf-8"))


def _own(split: str, name: str) -> list[str]:
    """The phrases of a list that belong to the split: every fourth is kept for `val` and `unseen`."""
    return [word for k, word in enumerate(_PHRASES[name]) if (k % 4 == 3) == (split != "train")]


def _form(rng: Random, name: str, words: str) -> str:
    return rng.choice(_PHRASES[name]).format(words)


def greeting(rng: Random, split: str) -> tuple[str, str]:
    """Something said for politeness, and its reply."""
    kind = rng.choices(("greetings", "abilities", "thanks", "byes"), (4, 4, 2, 1))[0]
    return rng.choice(_PHRASES[kind]), _REPLIES[kind]


def thanks(rng: Random) -> tuple[str, str]:
    """A word of thanks, and its reply."""
    return rng.choice(_PHRASES["thanks"]), THANKS


def refusal(rng: Random, split: str) -> tuple[str, str]:
    """A request for what the model does not know, and the polite reply that says what it knows."""
    kind = rng.choices(tuple(_REFUSALS), tuple(_REFUSALS.values()))[0]
    if kind == "topic":
        return _form(rng, "about_forms", rng.choice(_own(split, "topics"))), SORRY
    if kind == "ask":
        return rng.choice(_own(split, "asks")), SORRY
    if kind == "writing":
        topic = f" about {rng.choice(_own(split, 'topics'))}" if rng.random() < 0.3 else ""
        return _form(rng, "write_forms", article(rng.choice(_own(split, "writings"))) + topic), SORRY
    if kind == "many":
        words = f"{rng.choice(_MANY)} {plural(rng.choice(SHAPES))}"
        return _form(rng, "draw_forms", words), UNKNOWN[kind]
    if kind == "colour":
        words = article(f"{rng.choice(_own(split, 'colours'))} {rng.choice(SHAPES)}")
    else:
        words = _unknown(rng, split, kind)
    if rng.random() < 0.15:  # something known beside it does not help
        words = " and ".join(rng.sample((words, article(" ".join(rng.choice(SEEN)))), 2))
    return _form(rng, "draw_forms", words), UNKNOWN[kind]


def _unknown(rng: Random, split: str, kind: str) -> str:
    """Something that is no shape of this world: a thing, or a word that nobody knows."""
    if kind == "nonsense":
        name = "".join(rng.choices(_PHRASES["syllables"], k=rng.randint(2, 3)))
    else:
        name = rng.choice(_own(split, "things"))
    adjective = rng.choices((f"{rng.choice(tuple(COLOURS))} ", f"{rng.choice(SIZES)} ", ""), (4, 1, 4))[0]
    return article(adjective + name)
