"""Tiles: names in plain words, dolls drawn in the game's order, masks exact, what is held out really new.

In the fixture every layer and every tile has a colour of its own, so a picture tells what went into it.
"""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from data_tools.tiles.art import Tiles, unlicensed
from data_tools.tiles.build import make_tiles
from data_tools.tiles.doll import Doll, told
from data_tools.tiles.edits import split_items
from data_tools.tiles.kin import families
from data_tools.tiles.layers import Body, Item, body_of, item_of, read_wardrobe
from data_tools.tiles.names import name_of
from tests.data_tools.given import contents, examples, real
from unimodal.data.check import check
from unimodal.errors import UserError

COLOURS = "black blue brown cyan green purple red white yellow".split()
SHAPES = {  # (top, bottom, left, right) of the layers that the fixture draws
    "cloak/{}": (6, 28, 4, 28),
    "body/robe_{}": (8, 24, 10, 22),
    "boots/middle_{}": (26, 31, 10, 22),
    "head/hood_{}": (1, 6, 11, 21),
    "hand2/book_{}": (14, 20, 24, 30),
}
BODY = (3, 30, 12, 20)
POTIONS = [f"item/potion/{colour}" for colour in COLOURS]
LIST = "# Unknown\n\n- potion_lost.png\n\n- Someone\n\t- rltiles/mon/orc_lost.png\n"


def write(folder: Path) -> dict[str, tuple[int, int, int]]:
    """A copy of the tiles in small; gives the colour of every tile."""
    release = folder / "releases" / "Nov-2015"
    layers = {f"player/{name.format(c)}": shape for name, shape in SHAPES.items() for c in COLOURS}
    others = [
        "item/potion/potion_lost",
        "mon/orc_lost",
        "mon/orc",
        "mon/elf2",
        "gui/help",
        "item/ring/i-fire",
    ]
    shapes = layers | {"player/base/elf_m": BODY, "player/base/dwarf_m": BODY, "player/base/naga_m": BODY}
    shapes |= {name: (4, 12, 4, 12) for name in POTIONS + others}
    rng, colours = Random(0), {}
    for name, (top, bottom, left, right) in shapes.items():
        colours[name] = tuple(rng.randrange(250) for _ in range(3))
        tile = np.zeros((32, 32, 4), np.uint8)
        tile[top:bottom, left:right] = (*colours[name], 255)
        path = release / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile).save(path)
    Image.new("RGBA", (32, 48), "red").save(release / "mon" / "giant.png")
    (folder / "TILES_UNDER_UNKNOWN_LICENSE.md").write_text(LIST)
    assert len(set(colours.values())) == len(colours)
    return colours


def colours_of(path: Path) -> set[tuple]:
    return {tuple(colour) for colour in np.asarray(Image.open(path)).reshape(-1, 3).tolist()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    colours = write(folder / "crawl")
    return folder / "crawl", folder / "out", colours, make_tiles(folder / "crawl", folder / "out", count=150)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("item/potion/ruby.png", "ruby potion"),
        ("item/book/dark_blue.png", "dark blue book"),
        ("item/scroll/scroll-blue.png", "blue scroll"),
        ("item/wand/gem_bone.png", "bone wand"),
        ("item/weapon/mace_large2.png", "large mace"),
        ("item/gold/10.png", "gold coins"),
        ("mon/animals/butterfly10.png", "butterfly"),
        ("mon/animals/elephant_dire.png", "dire elephant"),
        ("mon/merfolk_impaler_water.png", "merfolk impaler in water"),
        ("mon/undead/zombies/zombie_rat.png", "rat zombie"),
        ("mon/demonspawn/gelid.png", "gelid demonspawn"),
        ("dngn/statues/statue_dragon.png", "dragon statue"),
        ("dngn/altars/makhleb_flame3.png", "altar of makhleb"),
        ("dngn/floor/marble_floor3.png", "marble floor"),
        ("dngn/wall/brick_brown0.png", "brown brick wall"),
        ("dngn/gateways/enter_hell1.png", "entrance to hell"),
    ],
)
def test_file_names_become_words(path, name):
    assert name_of(path) == (name, "")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("item/ring/i-fire.png", "mark"),
        ("item/staff/staff00.png", None),
        ("mon/unique/agnes.png", "named for a person"),
        ("mon/tentacles/kraken_ends/kraken_end_n.png", "piece"),
        ("dngn/doors/gate_open_left.png", "piece"),
        ("dngn/water/deep_water_wave_E1.png", "piece"),
        ("dngn/floor/crypt_domino_1a.png", "piece"),
        ("gui/spells/air/shock.png", "menus"),
        ("effect/zap0.png", "effect"),
        ("player/transform/pig_form.png", "form"),
    ],
)
def test_what_no_name_tells_is_left_out_with_a_reason(path, reason):
    name, why = name_of(path)
    assert (name == "staff") if reason is None else (name is None and reason in why)


@pytest.mark.parametrize(
    ("path", "slot", "a"),
    [
        ("player/cloak/red.png", "cloak", "a red cloak"),
        ("player/body/robe_white_blue.png", "body", "a white and blue robe"),
        ("player/body/dragonarm_quicksilver.png", "body", "quicksilver dragon armour"),
        ("player/boots/middle_ybrown.png", "boots", "yellow-brown boots"),
        ("player/gloves/glove_short_gray.png", "gloves", "grey wristlets"),
        ("player/hair/fem_red.png", "hair", "long red hair"),
        ("player/hand1/axe_executioner2.png", "hand1", "an executioner's axe"),
        ("player/hand1/club_slant.png", "hand1", "a club"),
        ("player/hand2/lshield_gold.png", "hand2", "a large gold shield"),
        ("player/head/wizard_lightgreen.png", "head", "a light green wizard hat"),
        ("player/drcwing/drcwing_pale.png", "wings", "pale wings"),
    ],
)
def test_layers_become_words(path, slot, a):
    item = item_of(path, slot)
    assert isinstance(item, Item) and item.a == a


def test_layers_that_tell_too_little_are_none():
    assert "person" in item_of("player/body/aragorn.png", "body")
    assert "no plain words" in item_of("player/body/robe_misfortune.png", "body")
    assert "no plain words" in body_of("player/base/octopode1.png")
    assert body_of("player/base/draconian_black_f.png").name == "black draconian"
    assert body_of("player/base/tengu_wingless_brown_m.png").name == "brown tengu"


def test_a_doll_is_told_in_words():
    items = [
        Item("boots", "boots", "blue", ""),
        Item("hand1", "spear", "", ""),
        Item("hair", "hair", "long red", ""),
        Item("cloak", "cloak", "red", ""),
    ]
    elf = Body("elf", "human", "")
    assert told(elf, items) == "an elf with a spear and long red hair, wearing a red cloak and blue boots"
    assert told(elf, items[:1]) == "an elf wearing blue boots"
    assert told(elf, []) == "an elf"


def test_a_doll_is_drawn_in_the_order_of_the_game(made):
    """Against a painter that goes through the layers by hand: cloak behind the body, the rest before."""
    folder, _, colours, _ = made
    tiles = Tiles(folder)
    wardrobe = {item.name: item for item in read_wardrobe(tiles).items}
    body = body_of("player/base/elf_m.png")
    doll = Doll(body, tuple(wardrobe[n] for n in ("red hood", "blue robe", "green boots", "black cloak")))
    expected = np.full((32, 32, 3), 255, np.uint8)
    painted = ("cloak/black", SHAPES["cloak/{}"]), ("base/elf_m", BODY)
    painted += ("boots/middle_green", SHAPES["boots/middle_{}"]), ("body/robe_blue", SHAPES["body/robe_{}"])
    painted += (("head/hood_red", SHAPES["head/hood_{}"]),)
    for name, (top, bottom, left, right) in painted:
        expected[top:bottom, left:right] = colours[f"player/{name}"]
    assert (doll.draw(tiles, tiles.background("white")) == expected).all()


def test_half_transparent_pixels_mix_with_what_is_below(tmp_path):
    write(tmp_path)
    path = tmp_path / "releases" / "Nov-2015" / "player" / "halo" / "halo_player.png"
    path.parent.mkdir()
    Image.new("RGBA", (32, 32), (200, 100, 0, 128)).save(path)
    tiles = Tiles(tmp_path)
    pixels = tiles.over(tiles.background("#0000ff"), "player/halo/halo_player.png")
    assert np.abs(pixels - np.array([100.4, 50.2, 127])).max() <= 1


def test_rows_pass_the_check_and_pictures_are_whole_squares(made):
    _, out, _, summary = made
    for split in ("train", "val"):
        report = check(out / f"{split}.jsonl")
        assert report.ok and set(report.sizes) == {(64, 64)}
        assert report.tasks.keys() == {"t2i", "edit"}
        assert report.rows == summary.rows[split].total()
    for path in (out / "pictures").iterdir():
        pixels = np.asarray(Image.open(path))
        assert (pixels == pixels[::2, ::2].repeat(2, 0).repeat(2, 1)).all()


def test_masks_are_exactly_what_an_edit_changes(made):
    folder, out, colours, _ = made
    items = {
        item.name: colours[item.path.removesuffix(".png")] for item in read_wardrobe(Tiles(folder)).items
    }
    seen = set()
    for split in ("train", "val"):
        for row, truth in examples(out, split):
            if not truth["kind"].startswith("edit/"):
                continue
            before, after = (np.asarray(Image.open(out / path)) for path in row["images"])
            mask = np.asarray(Image.open(out / truth["mask"]))
            assert set(np.unique(mask)) == {0, 255}
            assert ((before != after).any(-1) == (mask == 255)).all()
            assert truth["changed"] == pytest.approx((mask == 255).mean(), abs=1e-4)
            removes = truth["kind"] == "edit/remove"
            one = items[truth["item"]]
            inside, outside = (before, after) if removes else (after, before)
            assert ((inside[mask == 255] == one).all(-1)).any() and not (outside == one).all(-1).any()
            words = row["messages"][0]["content"].removeprefix("<image>")
            assert truth["item"] in words or (removes and truth["item"].split()[-1] in words)
            assert truth["instead"] is None or truth["instead"] in words
            seen.add(truth["kind"])
            if truth["instead"]:
                assert (before == items[truth["instead"]]).all(-1).any()
    assert seen == {"edit/add", "edit/remove", "edit/swap"}


def test_dolls_are_told_with_what_shows_of_them(made):
    folder, out, colours, _ = made
    items = {
        item.name: colours[item.path.removesuffix(".png")] for item in read_wardrobe(Tiles(folder)).items
    }
    for row, truth in examples(out, "train"):
        if truth["kind"] == "t2i/doll":
            shown = colours_of(out / row["images"][0])
            assert {name for name, colour in items.items() if colour in shown} == set(truth["items"])
            assert all(name in row["messages"][0]["content"] for name in truth["items"])


def test_what_is_held_out_is_in_no_picture_of_train(made):
    folder, out, colours, _ = made
    meta = json.loads((out / "meta.json").read_text())["held_out"]
    assert len(meta["items"]) == len(SHAPES)  # one of the nine of every kind
    by_name = {item.name: item.path.removesuffix(".png") for item in read_wardrobe(Tiles(folder)).items}
    held = {colours[by_name[name]] for name in meta["items"]}
    held |= {colours[path] for path in POTIONS if f"{path.split('/')[-1]} potion" in meta["names"]}
    assert len(held) == len(SHAPES) + 1
    for row, _ in examples(out, "train"):
        for path in row["images"]:
            assert not colours_of(out / path) & held
    for row, _ in examples(out, "val"):
        assert any(colours_of(out / path) & held for path in row["images"])


def test_held_out_items_have_their_kind_and_colour_in_train():
    pairs = [("cloak", "cloak"), ("body", "robe"), ("head", "hood")]
    items = [Item(slot, kind, colour, f"{slot}/{colour}") for slot, kind in pairs for colour in COLOURS]
    items += [Item("hand1", "staff", word, word) for word in ("living", "evil", "forked")]
    items += [Item("hand2", "shield", colour, colour) for colour in ("red", "teal", "blue")]
    for seed in range(20):
        train, val = split_items(items, 0.3, Random(seed))
        assert sorted(train + val) == sorted(items)
        assert {item.kind for item in val} <= {"cloak", "robe", "hood", "shield"}
        assert len(val) in (9, 10) and all(item.adjective != "teal" for item in val)
        for item in val:
            assert any(one.adjective == item.adjective for one in train)
            assert sum(one.kind == item.kind for one in train) >= 2


def test_tiles_of_unknown_licence_are_never_drawn(made):
    folder, out, colours, summary = made
    assert unlicensed(folder / "TILES_UNDER_UNKNOWN_LICENSE.md") == {"potion_lost.png", "orc_lost.png"}
    left = summary.left_out["named in TILES_UNDER_UNKNOWN_LICENSE.md"]
    assert left == ["item/potion/potion_lost.png", "mon/orc_lost.png"]
    lost = {colours["item/potion/potion_lost"], colours["mon/orc_lost"]}
    assert not any(colours_of(path) & lost for path in (out / "pictures").iterdir())
    assert any(
        "not 32x32" in reason and paths == ["mon/giant.png"] for reason, paths in summary.left_out.items()
    )


def test_tiles_drawn_nearly_alike_are_kin(tmp_path):
    write(tmp_path)
    mon = tmp_path / "releases" / "Nov-2015" / "mon"
    art = Random(0).randbytes(32 * 32 * 4)
    tile = np.frombuffer(art, np.uint8).reshape(32, 32, 4) | np.array([0, 0, 0, 255], np.uint8)
    near, far = tile.copy(), tile.copy()
    near[:6, :, 0] ^= 255  # 81 % alike
    far[:16, :, 0] ^= 255  # half
    for name, pixels in (("imp", tile), ("imp_wet", near), ("imp_red", far)):
        Image.fromarray(pixels).save(mon / f"{name}.png")
    names = {f"mon/{name}.png": name for name in ("imp", "imp_wet", "imp_red")}
    family = families(Tiles(tmp_path), names)
    assert family["imp"] == family["imp_wet"] != family["imp_red"]


def test_the_same_arguments_write_the_same_bytes(made, tmp_path):
    folder, *_ = made
    for name, options in (("a", {}), ("b", {}), ("c", {"seed": 1}), ("d", {"tasks": ("edit",), "size": 32})):
        make_tiles(folder, tmp_path / name, count=20, **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    kinds = {truth["kind"].split("/")[0] for _, truth in examples(tmp_path / "d", "train")}
    assert kinds == {"edit"} and {size for size in check(tmp_path / "d" / "train.jsonl").sizes} == {(32, 32)}


def test_mistakes_are_told(made, tmp_path):
    folder, *_ = made
    with pytest.raises(UserError, match=r"https://github\.com/crawl/tiles"):
        make_tiles(tmp_path / "nowhere", tmp_path / "out")
    for options, message in (
        ({"size": 48}, "multiple of 32"),
        ({"background": "blurple"}, "no colour, and no tile"),
        ({"background": "mon/orc.png"}, "transparent pixels"),
        ({"tasks": ("vqa",)}, "some of t2i, edit"),
        ({"val": 0}, "no share"),
    ):
        with pytest.raises(UserError, match=message):
            make_tiles(folder, tmp_path / "out", **options)
    write(tmp_path / "bare")
    (tmp_path / "bare" / "TILES_UNDER_UNKNOWN_LICENSE.md").write_text("none")
    with pytest.raises(UserError, match="names no tile"):
        make_tiles(tmp_path / "bare", tmp_path / "out")
    (tmp_path / "bare" / "TILES_UNDER_UNKNOWN_LICENSE.md").unlink()
    with pytest.raises(UserError, match=r"UNKNOWN_LICENSE\.md is missing"):
        make_tiles(tmp_path / "bare", tmp_path / "out")


def test_the_tiles(tmp_path):
    summary = make_tiles(real("crawl-tiles"), tmp_path / "out", count=60, tasks=("edit",))
    assert summary.rows["train"].total() == 60 and summary.rows["val"].total() == 6
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    held = set(meta["held_out"]["items"])
    assert len(held) >= 20
    for split in ("train", "val"):
        for row, truth in examples(tmp_path / "out", split):
            before, after = (np.asarray(Image.open(tmp_path / "out" / path)) for path in row["images"])
            mask = np.asarray(Image.open(tmp_path / "out" / truth["mask"])) == 255
            assert ((before != after).any(-1) == mask).all() and mask.sum() >= 32
            assert (truth["item"] in held) == (split == "val")
