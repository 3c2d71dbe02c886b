"""Conversations: drawing, changing and asking in turns, talk in words only, greetings and polite refusals.

What is said in a later turn holds for any picture that follows the earlier ones: things are referred to by
colour and shape, which the opening always names, so a conversation can be judged on the pictures that a
model makes for itself.
"""

from dataclasses import replace
from random import Random

from data_tools.shapes import captions, edits, question_words, questions, talk
from data_tools.shapes.further_questions import ask_further, question_about
from data_tools.shapes.language import IT
from data_tools.shapes.question import Question
from data_tools.shapes.reasons import placed
from data_tools.shapes.scene import CELLS, SIZES, Scene, World, random_scene
from data_tools.shapes.steps import Step

_UNSAID = ("size", "cell")  # what an opening may leave open
# How often a conversation asks what.
_ASKED = dict.fromkeys(("colour", "shape", "count", "existence", "relation", "position", "background"), 1.0)


def _opening(rng: Random, world: World) -> captions.Spec:
    """A caption that names colour and shape of everything; a lone thing often with its size or place too."""
    while True:
        kind = rng.choices(("colors", "counting", "position", "attribute"), (4, 1.5, 1.5, 3))[0]
        spec = captions.make_spec(rng, world, kind)
        if all(group.shape and group.colour for group in spec.groups):
            break
    if kind == "colors":
        named = rng.choice(({}, {"size": rng.choice(SIZES)}, {"cell": rng.choice(CELLS)}))
        spec = replace(spec, groups=(replace(spec.groups[0], **named),))
    return spec


def _draw(rng: Random, world: World, again: bool = False) -> Step:
    spec = _opening(rng, world)
    words = captions.caption(rng, spec)
    text = f"now draw {words}" if again else captions.request(rng, words)
    return Step(text, captions.draw(rng, spec, world), draw=spec)


def _possible(spec: captions.Spec | None) -> list[str]:
    """Kinds of edits that can be done in every picture that follows the spec (None: in the one shown)."""
    kinds = ["recolour", "recolour", "reshape", "add", "remove", "swap", "background"]
    if spec is None:
        return [*kinds, "resize", "move"]
    if all(group.size for group in spec.groups):
        kinds.append("resize")
    if len(spec.groups) == 1 and spec.groups[0].cell is not None:
        kinds.append("move")
    return kinds


def _change(rng: Random, world: World, scene: Scene, spec: captions.Spec | None) -> Step | None:
    """A change, or None where a picture of things all alike leaves nothing to point at."""
    without = _UNSAID if spec else ()
    possible = _possible(spec)
    for kind in rng.sample(possible, len(possible)):
        made = edits.edit_of(rng, world, kind, scene, without)
        if made is not None:
            text = edits.instruction(rng, made[2])
            return Step(f"now {text}" if rng.random() < 0.4 else text, made[1], edit=made[2])
    return None


def _ask(rng: Random, world: World, scene: Scene, without: tuple[str, ...] = _UNSAID) -> Step:
    question = None
    while question is None:
        question = question_about(rng, world, scene, without, _ASKED)
    return Step(question_words.ask(rng, question), scene, question=question)


def _drawn(rng: Random, world: World, plan: str) -> list[Step]:
    """Steps by a plan of letters: d draw, D draw anew, c change, a ask."""
    steps: list[Step] = []
    spec = None
    for letter in plan:
        if letter in "dD":
            steps.append(_draw(rng, world, again=letter == "D"))
            spec = steps[-1].draw
        elif letter == "c":
            step = _change(rng, world, steps[-1].scene, spec)
            if step is None:
                return _drawn(rng, world, plan)
            steps.append(step)
            spec = replace(spec, groups=(IT,))  # an added thing may have any size and place
        else:
            steps.append(_ask(rng, world, steps[-1].scene))
    return steps


def _shown(rng: Random, world: World) -> list[Step]:
    """The user shows a picture, asks, has it changed and asks again."""
    scene = random_scene(rng, world)
    first = replace(_ask(rng, world, scene, ()), given=scene)
    second = _change(rng, world, scene, None)
    steps = [first, second, _ask(rng, world, second.scene)]
    return steps if rng.random() < 0.7 else steps[:2]


def _words(rng: Random, world: World) -> list[Step]:
    """A scene told in words, and two questions about it."""
    kind = rng.choice(("colour", "shape", "count", "existence", "relation", "position"))
    scene, question = questions.make_question(rng, world, kind)
    first = f"{question_words.tell(rng, scene, question)} {question_words.ask(rng, question)}"
    known = placed(scene, first)
    steps = [Step(first, scene, question=question, told=True, placed=known)]
    return [*steps, ask_further(rng, world, scene, steps[-1].text, closed=True)]


def _tell(rng: Random, world: World) -> list[Step]:
    """Draw something and say how it came out, in one turn: picture first, then words about it."""
    kind = rng.choice(("single", "two", "counting", "colors", "attribute"))
    spec = captions.make_spec(rng, world, kind)
    scene = captions.draw(rng, spec, world)
    asked = None
    while asked is None:
        # Where the caption leaves colours open, only questions about the whole are sure to be clear.
        sure = len(spec.groups) == 1 and spec.groups[0].count == 1
        asked = question_about(rng, world, scene, _UNSAID, _ASKED) if sure or kind == "attribute" else None
        asked = asked or rng.choice((Question("count"), Question("background")))
    text = f"draw {captions.caption(rng, spec)}. {question_words.ask(rng, asked)}"
    return [Step(text, scene, draw=spec, after=asked)]


def _said(pair: tuple[str, str]) -> Step:
    return Step(pair[0], reply=pair[1])


def _greeting(rng: Random, world: World, split: str) -> list[Step]:
    first = talk.greeting(rng, split)
    what = rng.random()
    if what < 0.5:
        return [_said(first)]
    if what < 0.8:
        return [_said(first), *_drawn(rng, world, rng.choice(("d", "dc", "da")))]
    step = _draw(rng, world)
    words = captions.caption(rng, step.draw)
    hello = rng.choice(("hello, please draw {}", "hi, can you draw {}?", "hello, i want {}"))
    return [replace(step, text=hello.format(words), lead="Here it is."), _said(talk.thanks(rng))]


def _refusal(rng: Random, world: World, split: str) -> list[Step]:
    first = _said(talk.refusal(rng, split))
    what = rng.random()
    if what < 0.6:
        return [first]
    if what < 0.8:
        return [first, *_drawn(rng, world, rng.choice(("d", "dc", "da")))]
    return [*_drawn(rng, world, rng.choice(("d", "da"))), first]


# How often each kind of conversation occurs, and the plans of the drawn ones.
KINDS = {
    "draw_change_ask": 4.0,
    "draw_change": 2.0,
    "draw_ask": 2.0,
    "draw_again": 1.0,
    "shown": 2.0,
    "tell": 1.0,
    "words": 1.5,
    "greeting": 1.5,
    "refusal": 4.0,
}
_PLANS = {
    "draw_change_ask": ("dca", "dca", "dcca", "daca"),
    "draw_change": ("dc", "dcc"),
    "draw_ask": ("da", "daa"),
    "draw_again": ("dD", "daD", "dDc"),
}


def converse(rng: Random, world: World, kind: str, split: str) -> tuple[Step, ...]:
    """The steps of one conversation of this kind."""
    if kind in _PLANS:
        return tuple(_drawn(rng, world, rng.choice(_PLANS[kind])))
    if kind in ("greeting", "refusal"):
        return tuple((_greeting if kind == "greeting" else _refusal)(rng, world, split))
    return tuple({"shown": _shown, "tell": _tell, "words": _words}[kind](rng, world))
