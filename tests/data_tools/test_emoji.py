"""Emoji: names as Unicode has them, one glyph each, variants aligned, families held together."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_tools.emoji.build import make_emoji
from data_tools.emoji.glyphs import FONT, Glyphs
from data_tools.emoji.names import NAMES, Emoji, read_names
from data_tools.emoji.rows import QUESTIONS, variants
from data_tools.emoji.views import FULL, GROUNDS, PLACES, View, family_views
from unimodal.data.check import check
from unimodal.errors import UserError

draw = Glyphs.draw
INSTALLED = FONT.is_file() and NAMES.is_file()
needs_packages = pytest.mark.skipif(
    not INSTALLED, reason="apt-get install fonts-noto-color-emoji unicode-data"
)

LIST = """
# group: People & Body
# subgroup: person-role
1F9D1 200D 1F680                           ; fully-qualified     # x E12.1 astronaut
1F9D1 1F3FF 200D 1F680                     ; fully-qualified     # x E12.1 astronaut: dark skin tone
1F469 1F3FF 200D 1F680                     ; fully-qualified     # x E4.0 woman astronaut: dark skin tone
1F468 1F3FB 200D 1F9B0                     ; fully-qualified     # x E11.0 man: light skin tone, red hair
1F575 FE0F 200D 2642 FE0F                  ; fully-qualified     # x E4.0 man detective
1F575 1F3FB 200D 2642 FE0F                 ; fully-qualified     # x E4.0 man detective: light skin tone
1F575 200D 2642 FE0F                       ; unqualified         # x E4.0 man detective
1F6B6 200D 2640 FE0F                       ; fully-qualified     # x E4.0 woman walking
1F6B6 1F3FD                                ; fully-qualified     # x E1.0 person walking: medium skin tone
1F9D1 1F3FB 200D 1F91D 200D 1F9D1 1F3FC    ; fully-qualified     # x E12.0 people holding hands: two tones
1F46B                                      ; fully-qualified     # x E0.6 woman and man holding hands
1F46F 200D 2642 FE0F                       ; fully-qualified     # x E4.0 men with bunny ears
1F3FB                                      ; component           # x E1.0 light skin tone
# group: Symbols
# subgroup: gender
2640 FE0F                                  ; fully-qualified     # x E4.0 female sign
1F1E9 1F1EA                                ; fully-qualified     # x E0.6 flag: Germany
"""


@pytest.fixture
def listed(tmp_path) -> dict[str, Emoji]:
    path = tmp_path / "emoji-test.txt"
    path.write_text(LIST, encoding="utf-8")
    return {emoji.name: emoji for emoji in read_names(path)}


def test_attributes_are_told_from_code_points(listed):
    def told(name):
        emoji = listed[name]
        return emoji.tones, emoji.gender, emoji.direction, emoji.short_name

    assert told("astronaut") == ((), "person", None, "astronaut")
    assert told("woman astronaut: dark skin tone") == (("dark",), "woman", None, "woman astronaut")
    assert told("man: light skin tone, red hair") == (("light",), "man", None, "man: red hair")
    assert told("man detective") == ((), "man", None, "man detective")
    assert told("woman walking") == ((), "woman", "left", "woman walking")
    assert told("people holding hands: two tones")[:2] == (("light", "medium-light"), None)
    assert told("men with bunny ears")[1] is None
    assert told("flag: Germany")[3] == "flag: Germany"
    assert listed["flag: Germany"].group == "Symbols"
    assert listed["flag: Germany"].id == "1f1e9-1f1ea"
    assert "light skin tone" not in listed


def test_families_leave_out_tone_gender_hair_and_direction(listed):
    assert (
        listed["astronaut"].family
        == listed["woman astronaut: dark skin tone"].family
        == (0x1F9D1, 0x200D, 0x1F680)
    )
    assert listed["man: light skin tone, red hair"].family == (0x1F9D1,)
    assert listed["man detective"].family == listed["man detective: light skin tone"].family == (0x1F575,)
    assert listed["woman walking facing right"].family == listed["woman walking"].family == (0x1F6B6,)
    hands = {listed[n].family for n in ("people holding hands: two tones", "woman and man holding hands")}
    assert len(hands) == 1
    assert listed["female sign"].family == (0x2640,)


def test_older_lists_are_given_what_faces_right(listed, tmp_path):
    turned = listed["person walking facing right: medium skin tone"]
    assert turned.points == (0x1F6B6, 0x1F3FD, 0x200D, 0x27A1, 0xFE0F)
    assert turned.direction == "right"
    newer = tmp_path / "newer.txt"
    line = f"1F6B6 1F3FD 200D 27A1 FE0F ; fully-qualified # x E15.1 {turned.name}\n"
    newer.write_text(LIST.replace("# group: Symbols", line + "# group: Symbols"), encoding="utf-8")
    assert Counter(e.bare for e in read_names(newer)) == Counter(e.bare for e in listed.values())


def test_variants_differ_by_one_attribute_alone(listed):
    def names(attribute):
        return [{emoji.name for emoji in group} for group in variants(listed.values(), attribute)]

    assert names("tone") == [
        {"astronaut", "astronaut: dark skin tone"},
        {"man detective", "man detective: light skin tone"},
    ]
    assert names("gender") == [{"astronaut: dark skin tone", "woman astronaut: dark skin tone"}]
    assert names("direction") == [
        {"woman walking", "woman walking facing right"},
        {"person walking: medium skin tone", "person walking facing right: medium skin tone"},
    ]


def test_missing_packages_are_named(tmp_path):
    words = "apt-get install fonts-noto-color-emoji unicode-data"
    with pytest.raises(UserError, match=words):
        read_names(tmp_path / "none.txt")
    with pytest.raises(UserError, match=words):
        Glyphs(tmp_path / "none.ttf")
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    with pytest.raises(UserError, match=words):
        Glyphs(tmp_path / "bad.ttf")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="names no emoji"):
        read_names(tmp_path / "empty.txt")


@needs_packages
def test_what_is_not_one_glyph_is_no_picture():
    glyphs = Glyphs(size=32)
    astronaut = "\N{ADULT}\u200d\N{ROCKET}"
    for text in (
        "\N{GRINNING FACE}",
        "\N{ADULT}",
        "\N{REGIONAL INDICATOR SYMBOL LETTER D}\N{REGIONAL INDICATOR SYMBOL LETTER E}",
    ):
        picture = glyphs.draw(text)
        assert picture.shape == (32, 32, 3)
        assert picture.dtype == np.uint8
        assert (picture[0] == 255).all()
        assert np.ptp(picture) > 50
    assert (glyphs.draw(astronaut) is not None) == (glyphs.shaping == "raqm")
    for text in (
        "\N{ROCKET}\u200d\N{SNAKE}",
        "\N{ROCKET}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
        "\U0010ffff",
        "A",
        " ",
    ):
        assert glyphs.draw(text) is None, text


FAMILIES = {(0x1F6B6,), (0x1F3C3,), (0x1F44D,), (0x1F44E,), (0x1F9D1,), (0x1F647,), (0x1F64B,)}
FAMILIES |= {(code,) for code in range(0x1F347, 0x1F357)}
FAMILIES |= {(0x1F1F3, 0x1F1F4), (0x1F1F8, 0x1F1EF), (0x1F1E7, 0x1F1FB)}  # three countries, one flag


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji") / "out"
    report = make_emoji(out, size=48, seed=5, val=0.3, keep=lambda e: e.family in FAMILIES)
    splits = {}
    for split in ("train", "val"):
        files = [(out / name).read_text().splitlines() for name in (f"{split}.jsonl", f"{split}.truth.jsonl")]
        assert len(files[0]) == len(files[1])
        splits[split] = [(json.loads(row), json.loads(truth)) for row, truth in zip(*files)]
    return out, report, splits


@needs_packages
def test_rows_are_right_and_carry_nothing_else(made):
    out, report, splits = made
    for split, found in splits.items():
        checked = check(out / f"{split}.jsonl")
        assert checked.ok, checked.errors
        assert checked.sizes.keys() == {(48, 48)}
        assert Counter(truth["kind"] for _, truth in found) == report.rows[split]
        assert {key for row, _ in found for key in row} == {"messages", "images"}
        for kind in ("tone", "gender", "direction", "background", "mirror", "size"):
            assert report.rows[split][f"edit/{kind}"], (split, kind)
        assert report.rows[split]["t2i"]
        asked = ("several",) if split == "train" else ("name", "group", "tone", "gender", "direction")
        assert {kind for kind in report.rows[split] if "vqa" in kind} == {f"vqa/{kind}" for kind in asked}
    assert report.pictures == len(list((out / "pictures").iterdir()))
    assert report.left_out == ([] if report.shaping == "raqm" else report.left_out)


@needs_packages
def test_truth_is_about_its_row(made):
    for found in made[2].values():
        for row, truth in found:
            user, assistant = (message["content"] for message in row["messages"][:2])
            ids = [path.removeprefix("pictures/").removesuffix(".png") for path in row["images"]]
            assert ids == [i for i in (truth["before"], truth["after"]) if i]
            task = truth["kind"].partition("/")[0]
            assert user.startswith("<image>") == (task != "t2i")
            assert assistant == ("<image>" if task != "vqa" else truth.get("answer", assistant))
            if task == "edit":
                attribute = truth["kind"].partition("/")[2]
                assert truth["from"] != truth["to"]
                assert truth.get(attribute) in (truth["to"], None)
                if attribute not in ("gender", "mirror", "size"):
                    assert truth["to"] in user


@needs_packages
def test_families_and_equal_pictures_stay_in_one_split(made):
    out, _, splits = made
    families = {split: {truth["family"] for _, truth in found} for split, found in splits.items()}
    assert not families["train"] & families["val"]
    pictures = {
        split: {np.asarray(Image.open(out / path)).tobytes() for row, _ in found for path in row["images"]}
        for split, found in splits.items()
    }
    assert not pictures["train"] & pictures["val"]
    flags = {
        split: {"1f1f3-1f1f4", "1f1f8-1f1ef", "1f1e7-1f1fb"} & names for split, names in families.items()
    }
    assert sorted(map(len, flags.values())) == [0, 3]


@needs_packages
def test_an_ambiguous_picture_is_not_asked_for_its_name(made):
    asked = {
        truth["family"]
        for found in made[2].values()
        for row, truth in found
        if any(message["content"].removeprefix("<image>") in QUESTIONS["name"] for message in row["messages"])
    }
    assert asked
    assert not {"1f1f3-1f1f4", "1f1f8-1f1ef", "1f1e7-1f1fb"} & asked


@needs_packages
def test_one_picture_serves_several_questions_in_training(made):
    """Every answer is what the truth says of the picture; people are asked for all that tells them apart."""
    told = {form: kind for kind, forms in QUESTIONS.items() for form in forms}
    asked = Counter()
    for row, truth in made[2]["train"]:
        if truth["kind"] != "vqa/several":
            continue
        said = [message["content"].removeprefix("<image>") for message in row["messages"]]
        kinds = [told[question] for question in said[::2]]
        assert len(set(kinds)) == len(kinds)
        assert {"name", "group"}.isdisjoint(kinds) or View.parse(truth["before"])[1] == View()
        assert "direction" not in kinds or not View.parse(truth["before"])[1].mirrored
        for kind, answer in zip(kinds, said[1::2]):
            assert answer == truth[kind], (row, truth)
        asked[frozenset(kinds)] += 1
    assert max(map(len, asked)) == 5  # somebody who walks, of a tone and a gender
    assert asked[frozenset({"name", "group"})] > 10


@needs_packages
def test_variants_lie_on_each_other(made):
    """A skin tone changes colours alone: the outline stays; turning round mirrors the picture."""
    out, _, splits = made

    def pixels(name):
        return np.asarray(Image.open(out / "pictures" / f"{name}.png")).astype(int)

    edits = [truth for found in splits.values() for _, truth in found if truth["kind"].startswith("edit")]
    edits = [truth for truth in edits if View.parse(truth["before"])[1] == View()]
    tones = [truth for truth in edits if truth["kind"] == "edit/tone"][:100]
    for truth in tones:
        outline = [(pixels(truth[side]) < 250).any(-1) for side in ("before", "after")]
        assert (outline[0] != outline[1]).mean() < 0.02, truth
        assert not np.array_equal(pixels(truth["before"]), pixels(truth["after"]))
    for truth in [truth for truth in edits if truth["kind"] == "edit/direction"][:50]:
        assert np.abs(pixels(truth["before"]) - pixels(truth["after"])[:, ::-1]).mean() < 2


@needs_packages
def test_what_an_edit_of_the_view_does(made):
    out, _, splits = made

    def pixels(name):
        return np.asarray(Image.open(out / "pictures" / f"{name}.png")).astype(int)

    seen = Counter()
    for truth in (truth for found in splits.values() for _, truth in found):
        kind = truth["kind"].removeprefix("edit/")
        if kind not in ("mirror", "background", "size"):
            continue
        one, other = pixels(truth["before"]), pixels(truth["after"])
        (emoji, before), (also, after) = View.parse(truth["before"]), View.parse(truth["after"])
        assert emoji == also
        if kind == "mirror" and before.place in (FULL, "middle"):
            assert np.array_equal(one[:, ::-1], other)
            assert np.abs(one - other).max() > 8
        elif kind == "background":
            for shown, ground in ((one, truth["from"]), (other, truth["to"])):
                assert any(
                    tuple(shown[row, column]) == GROUNDS[ground] for row in (0, -1) for column in (0, -1)
                )
            # What is drawn in full covers either ground alike.
            assert (one == other).all(-1).mean() > (0.01 if before.place == FULL else 0.001)
        elif kind == "size":
            places = [view.place for view in (before, after)]
            assert sorted(places) == sorted([FULL, "middle"])
            small, large = (one, other) if places[0] == "middle" else (other, one)
            assert (small[0] == small[0, 0]).all(), "a small one keeps off the edge"
            assert small.shape == large.shape
        seen[kind] += 1
    assert seen["background"] > seen["mirror"] > seen["size"] / 2 > 50


@needs_packages
def test_training_shows_variants_in_several_views_and_judging_plainly(made):
    for split, found in made[2].items():
        kinds = ("edit/tone", "edit/direction", "vqa/tone", "vqa/several")
        some = [truth for _, truth in found if truth["kind"] in kinds and truth["tone"]]
        for truth in some:
            views = [View.parse(name)[1] for name in (truth["before"], truth["after"]) if name]
            assert len(set(views)) == 1, "an edit of an attribute leaves the view alone"
            assert not (views[0].mirrored and truth["kind"] == "edit/direction")
            assert split == "train" or views[0] == View()
        plain = sum(View.parse(truth["before"])[1] == View() for truth in some) / len(some)
        assert plain == 1 if split == "val" else 0.2 < plain < 0.5


def test_a_picture_is_named_after_its_view(listed):
    for one in listed.values():
        beside = View(ground="blue", place="lower_left", side=50, beside="1f468-200d-1f37c")
        odd = [View(True, "gray", "upper_left"), View(ground="pink"), View(place="middle", side=87.5), beside]
        for view in [View(), *family_views(one), *odd]:
            assert View.parse(view.name(one.id)) == (one.id, view)
    assert View().name("1f600") == "1f600"
    assert family_views(listed["astronaut"]) == family_views(listed["woman astronaut: dark skin tone"])


@pytest.mark.parametrize("place", PLACES)
def test_a_small_one_stands_where_it_is_said(place):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
    shown = View(ground="pink", place=place).show(pixels)
    rows, columns = np.nonzero((shown != GROUNDS["pink"]).all(-1))
    assert rows.max() - rows.min() == columns.max() - columns.min() == 19
    edges = {"upper": rows.min() == 0, "lower": rows.max() == 31, "left": columns.min() == 0}
    edges["right"] = columns.max() == 31
    assert {name for name, at in edges.items() if at} == set(place.split("_")) - {"middle"}
    assert np.array_equal(View(mirrored=True, place=place, ground="pink").show(pixels[:, ::-1]), shown)


def test_another_one_stands_beside_it():
    rng = np.random.default_rng(0)
    pixels, other = (rng.integers(low, low + 100, (32, 32, 3), dtype=np.uint8) for low in (0, 120))
    view = View(ground="white", place="upper_right", side=50, beside="1f6b2")
    shown = view.show(pixels, other)
    assert np.array_equal(shown[:16, 16:], View(place="middle", side=50).show(pixels)[8:24, 8:24])
    assert np.array_equal(shown[:16, :16], View(place="middle", side=50).show(other)[8:24, 8:24])
    assert (shown[16:] == 255).all()


@needs_packages
def test_questions_are_asked_in_views_of_many_sizes(made):
    """Beside a person stands a thing of the same split, which has no skin to be asked about."""
    truths = [truth for _, truth in made[2]["train"] if truth["kind"] == "vqa/several"]
    group = {View.parse(truth["before"])[0]: truth["group"] for truth in truths}
    asked = Counter()
    for truth in truths:
        emoji, view = View.parse(truth["before"])
        asked[view.side if view.place != FULL else FULL] += group[emoji] == "People & Body"
        if view.beside:
            assert group[view.beside] not in ("People & Body", "Smileys & Emotion")
            asked["beside"] += 1
    assert min(asked[way] for way in (FULL, 50, 62.5, 75, 87.5, "beside")) > 10


@needs_packages
def test_edits_are_there_both_ways(made):
    for found in made[2].values():
        edits = [t for _, t in found if t["kind"].startswith("edit")]
        pairs = {
            (t["kind"], View.parse(t["before"])[0], View.parse(t["after"])[0], *sorted((t["from"], t["to"])))
            for t in edits
        }
        assert pairs == {(kind, after, before, *values) for kind, before, after, *values in pairs}


@needs_packages
def test_the_same_arguments_write_the_same_bytes(made, tmp_path):
    make_emoji(tmp_path / "again", size=48, seed=5, val=0.3, keep=lambda e: e.family in FAMILIES)
    for file in made[0].rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "again" / file.relative_to(made[0])).read_bytes()


@needs_packages
def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    def joins_nothing(self, text, *on):
        return None if "\u200d" in text else draw(self, text, *on)

    monkeypatch.setattr(Glyphs, "draw", joins_nothing)
    report = make_emoji(tmp_path / "out", size=16, val=0.3, keep=lambda e: e.family in FAMILIES)
    assert len(report.left_out) > 100
    assert "man bowing" in report.left_out
    assert f"left out: {len(report.left_out)} emoji" in report.summary()
    assert f"train: {report.rows['train'].total()} rows" in report.summary()


@needs_packages
def test_a_used_folder_is_left_alone(made):
    with pytest.raises(UserError, match="not an empty folder"):
        make_emoji(made[0])


@needs_packages
def test_one_task_alone_has_its_rows_and_no_other(made, tmp_path):
    keep = lambda e: e.family in FAMILIES  # noqa: E731
    report = make_emoji(tmp_path / "t2i", size=48, seed=5, val=0.3, keep=keep, tasks=("t2i",))
    for split in ("train", "val"):
        every = (made[0] / f"{split}.jsonl").read_text().splitlines()
        rows = (tmp_path / "t2i" / f"{split}.jsonl").read_text().splitlines()
        assert set(report.rows[split]) == {"t2i"}
        assert len(rows) == report.rows[split]["t2i"] == made[1].rows[split]["t2i"] > 0
        assert set(rows) <= set(every)
    with pytest.raises(UserError, match="t2i, edit, vqa"):
        make_emoji(tmp_path / "other", tasks=("draw",))
