"""Further questions about a scene that was shown or told: in a stream, one picture serves several answers."""

from itertools import permutations
from random import Random

from data_tools.shapes import open_questions, question_words, questions
from data_tools.shapes.language import IT, OPPOSITE, RELATIONS, Group, refer, related
from data_tools.shapes.question import Question
from data_tools.shapes.reasons import placed
from data_tools.shapes.scene import COLOURS, SHAPES, Scene, World
from data_tools.shapes.steps import Step

# What takes two looks is learned last, so it is asked more often.
_SHOWN = {
    "colour": 1.0,
    "shape": 1.0,
    "count": 3.0,
    "existence": 3.0,
    "relation": 3.0,
    "comparison": 3.0,
    "position": 1.0,
    "background": 0.5,
    **open_questions.WEIGHTS,
}
_PLACED = ("relation", "position", "places", "direction")  # what words alone tell if places are told
_UNTOLD = (*_PLACED, *open_questions.SIZED, "background")
_TOLD = {kind: weight for kind, weight in _SHOWN.items() if kind not in _UNTOLD}
_TOLD_WITH_PLACES = _TOLD | {kind: _SHOWN[kind] for kind in _PLACED}


def question_about(
    rng: Random, world: World, scene: Scene, without: tuple[str, ...], kinds: dict[str, float]
) -> Question | None:
    """A question about this scene whose words are clear, or None where the kind drawn has none."""
    kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
    thing = rng.choice(scene.objects)
    if kind == "background":
        return Question(kind)
    if kind in open_questions.ANSWERS:
        return open_questions.open_question(rng, scene, kind, without)
    if kind == "count":
        return Question(kind, rng.choice((Group(thing.shape), Group(None, thing.colour), IT)))
    if kind == "existence":
        colour, shape = thing.pair if rng.random() < 0.5 else rng.choice(world.pairs)
        return Question(kind, Group(shape, colour))
    if kind == "comparison":
        return _comparison(rng, scene, without)
    if kind == "relation":
        if len(scene.objects) < 2:
            return None
        other = rng.choice([o for o in scene.objects if o != thing])
        first, second = (refer(rng, scene, t, (*without, "cell")) for t in (thing, other))
        true = rng.choice([name for name in RELATIONS if related(thing, name, other)])
        word = true if rng.random() < 0.5 else OPPOSITE[true]
        return first and second and Question(kind, first, second, word)
    hidden = "cell" if kind == "position" else kind
    group = refer(rng, scene, thing, (*without, hidden))
    return group and Question(kind, group)


def _comparison(rng: Random, scene: Scene, without: tuple[str, ...]) -> Question | None:
    """A comparison within this scene that names nothing of `without`, or None if the one drawn has none."""
    words = ("more", "more", "colour", "shape") + (() if "size" in without else ("larger", "smaller", "size"))
    word, wanted = rng.choice(words), rng.choice(("yes", "no"))
    if word == "more":
        name, values = rng.choice((("shape", SHAPES), ("colour", tuple(COLOURS))))
        here = list(dict.fromkeys(getattr(thing, name) for thing in scene.objects))
        here.append(rng.choice([value for value in values if value not in here]))
        pairs = [(Group(**{name: one}), Group(**{name: other})) for one, other in permutations(here, 2)]
    else:
        hidden = (*without, "cell", "size" if word in ("larger", "smaller") else word)
        named = {thing: refer(rng, scene, thing, hidden) for thing in scene.objects}
        pairs = [(named[one], named[other]) for one, other in permutations(scene.objects, 2)]
    found = [Question("comparison", *pair, word) for pair in pairs if all(pair)]
    found = [question for question in found if questions.answer(question, scene) == wanted]
    return rng.choice(found) if found else None


def ask_further(rng: Random, world: World, scene: Scene, told: str | None, closed: bool = False) -> Step:
    """One more question about a scene that has been shown (None), or `told` in words of colour and shape.

    closed  only questions with short answers, which are judged
    """
    known = told is None or placed(scene, told)
    if told is None:
        kinds, without = _SHOWN, ()
    elif known:
        kinds, without = _TOLD_WITH_PLACES, ("size",)
    else:
        kinds, without = _TOLD, ("size", "cell")
    kinds = {kind: w for kind, w in kinds.items() if not (closed and kind in open_questions.ANSWERS)}
    while True:
        question = question_about(rng, world, scene, without, kinds)
        if question:
            words = question_words.ask(rng, question)
            return Step(words, scene, question=question, told=told is not None, placed=known)
