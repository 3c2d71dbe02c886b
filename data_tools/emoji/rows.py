"""Rows and their truth: names to draw, variants to edit, questions with one right answer.

An edit joins two pictures whose code points differ by the edited attribute alone, both ways round; two
variants that the font draws alike are no edit.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

from data_tools.emoji.names import ADULTS, NO_TONE, Emoji
from data_tools.emoji.views import View, family_views, view_edits, views_to_ask_of

Example = tuple[dict, dict]  # a row as training reads it, and what a judge has to know about it

MARK = "<image>"
PLAIN = View()
# Groups of emoji that have a skin, which questions are about.
BODIES = ("People & Body", "Smileys & Emotion")
DRAW = ("{}", "{} emoji", "an emoji of {}", "draw {}", "a picture of {}")
EDITS = {
    "tone": ("make the skin tone {}", "change the skin tone to {}", "give it {} skin"),
    "gender": ("make it {}", "turn it into {}", "change it to {}"),
    "direction": ("turn it to face {}", "make it face {}"),
}
QUESTIONS = {
    "name": ("what is this?", "what does the emoji show?", "name this emoji"),
    "group": ("which group of emoji is it in?", "what group does it belong to?"),
    "tone": ("what is the skin tone?", "which skin tone is it?"),
    "gender": ("is it a man, a woman or a person?", "is this a woman, a man or a person?"),
    "direction": ("which way does it face?", "does it face left or right?"),
}


def tone_of(emoji: Emoji) -> str:
    """The one skin tone of an emoji that has variants of it."""
    return emoji.tones[0] if emoji.tones else NO_TONE


VALUE = {"tone": tone_of, "gender": lambda e: e.gender, "direction": lambda e: e.direction}
WITHOUT = {
    "tone": lambda e: e.without_tone,
    "gender": lambda e: e.without_gender,
    "direction": lambda e: e.without_direction,
}


def variants(emoji: Iterable[Emoji], attribute: str) -> list[list[Emoji]]:
    """Groups of emoji that differ by one attribute alone (tone, gender or direction), two or more each."""
    groups: dict[tuple, list[Emoji]] = defaultdict(list)
    for one in emoji:
        several_tones = attribute == "tone" and len(one.tones) > 1
        if not several_tones and VALUE[attribute](one) is not None:
            groups[WITHOUT[attribute](one)].append(one)
    found = [group for group in groups.values() if len(group) > 1]
    for group in found:
        values = [VALUE[attribute](one) for one in group]
        assert len(set(values)) == len(values), group
    return found


def examples(
    emoji: list[Emoji], twins: dict[str, str], lopsided: set[str], rng: Random, varied: bool
) -> Iterator[Example]:
    """Rows of all kinds about `emoji`, in order of kind.

    twins     the first emoji with exactly the same picture, by id; what a picture does not tell is not asked
    lopsided  ids of those whose mirror image is another picture
    varied    whether tone, gender and direction are edited and asked in other views as well as plainly, and
              questions about one picture are one conversation
    """
    groups = {attribute: variants(emoji, attribute) for attribute in EDITS}
    told = {attribute: _told(groups[attribute], twins) for attribute in EDITS}
    names: dict[str, set[str]] = defaultdict(set)
    for one in emoji:
        names[twins[one.id]].add(one.short_name)
        for form in rng.sample(DRAW, 2):
            row = _row(form.format(_spoken(one)), one.id)
            yield row, _truth("t2i", row, one, told)
    for attribute, forms in EDITS.items():
        for before, after in _pairs(groups[attribute], twins):
            value = VALUE[attribute](after)
            spoken = before.noun(value) if attribute == "gender" else value
            others = rng.sample(family_views(before), 2) if varied else []
            for view in [PLAIN, *_facing(attribute == "direction", others)]:
                row = _row(MARK + rng.choice(forms).format(spoken), view.name(before.id), view.name(after.id))
                truth = _truth(f"edit/{attribute}", row, after, told)
                yield row, truth | {"from": VALUE[attribute](before), "to": value}
    for one in emoji:
        for kind, words, before, after, was, is_now in view_edits(one, one.id in lopsided, rng):
            row = _row(MARK + words, before.name(one.id), after.name(one.id))
            yield row, _truth(f"edit/{kind}", row, one, told) | {"from": was, "to": is_now}
    things = [one.id for one in emoji if one.group not in BODIES]
    for one in emoji:
        answers = {
            kind: answer for kind in QUESTIONS if (answer := _answer(kind, one, names[twins[one.id]], told))
        }
        asked = {kind: answer for kind, answer in answers.items() if kind in VALUE}
        if not varied:
            for kind, answer in answers.items():
                # Few pictures tell an attribute, and all have a name: attributes are asked in every way.
                for form in QUESTIONS[kind] if kind in VALUE else [rng.choice(QUESTIONS[kind])]:
                    row = _row(MARK + form, one.id, answer=answer)
                    yield row, _truth(f"vqa/{kind}", row, one, told) | {"answer": answer}
            continue
        # One picture serves several questions; what variants differ by is asked in views that no other has.
        views = [PLAIN]
        if asked:
            views += [PLAIN, *_facing("direction" in asked, views_to_ask_of(12, things, rng))]
        for view in views:
            row = _conversation(answers if view == PLAIN else asked, view.name(one.id), rng)
            yield row, _truth("vqa/several", row, one, told)


def _answer(kind: str, one: Emoji, names: set[str], told: dict[str, set[str]]) -> str | None:
    """The one right answer to a kind of question; None if the picture does not tell.

    names  of all emoji with the same picture
    """
    if kind == "name":
        return one.short_name if len(names) == 1 else None
    if kind == "group":
        return one.group
    if kind == "gender" and one.noun("man") != ADULTS["man"]:
        return None  # a boy is no answer to "a man, a woman or a person?"
    return VALUE[kind](one) if one.id in told[kind] else None


def _conversation(answers: dict[str, str], picture: str, rng: Random) -> dict:
    """A row that asks all of it about one picture, in any order and wording."""
    messages = []
    for kind in rng.sample(list(answers), len(answers)):
        mark = "" if messages else MARK
        messages.append({"role": "user", "content": mark + rng.choice(QUESTIONS[kind])})
        messages.append({"role": "assistant", "content": answers[kind]})
    return {"messages": messages, "images": [f"pictures/{picture}.png"]}


def _facing(told: bool, views: list[View]) -> list[View]:
    """The views, without a mirror where the way it faces is told: what faces left does not do so in it."""
    return [replace(view, mirrored=False) for view in views] if told else views


def _told(groups: list[list[Emoji]], twins: dict[str, str]) -> set[str]:
    """Ids of emoji whose picture differs from every other variant's, so that it tells the attribute."""
    alone: set[str] = set()
    for group in groups:
        pictures = [twins[one.id] for one in group]
        alone |= {one.id for one in group if pictures.count(twins[one.id]) == 1}
    return alone


def _pairs(groups: list[list[Emoji]], twins: dict[str, str]) -> Iterator[tuple[Emoji, Emoji]]:
    """Every two variants with different pictures, both ways round."""
    for group in groups:
        for before in group:
            for after in group:
                if twins[before.id] != twins[after.id]:
                    yield before, after


def _spoken(emoji: Emoji) -> str:
    """`woman: dark skin tone, red hair` as one would say it: `woman with dark skin tone and red hair`."""
    head, _, tail = emoji.name.partition(": ")
    if not tail or emoji.group != "People & Body":
        return emoji.name
    return f"{head} with {' and '.join(tail.split(', '))}"


def _row(user: str, *pictures: str, answer: str = MARK) -> dict:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [f"pictures/{name}.png" for name in pictures]}


def _truth(kind: str, row: dict, emoji: Emoji, told: dict[str, set[str]]) -> dict:
    """`before` is the picture that is read, `after` the one that is to be drawn; the rest is about the emoji.

    Tone, gender and direction are None where the picture has no variants of them.
    """
    names = [path.removeprefix("pictures/").removesuffix(".png") for path in row["images"]]
    attributes = {name: VALUE[name](emoji) if emoji.id in told[name] else None for name in EDITS}
    return {
        "kind": kind,
        "before": None if kind == "t2i" else names[0],
        "after": None if kind.startswith("vqa") else names[-1],
        "name": emoji.short_name,
        "group": emoji.group,
        "family": "-".join(f"{p:x}" for p in emoji.family),
        **attributes,
    }
