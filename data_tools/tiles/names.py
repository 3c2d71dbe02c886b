"""What a tile shows, told from its folder and file name; or why its name does not tell.

The name of a tile is `FORM[folder]` with the words of the file in it.  Numbers at the end count drawings of
one thing, so they share a name.
"""

from data_tools.tiles.words import BY_NAME, COLOURS, MARK, NO_WORDS, PIECE, is_piece, tokens

MENU = "a sign of the game's menus"
FORM = {
    "dngn": "{}",
    "dngn/altars": "altar of {}",
    "dngn/floor": "{} floor",
    "dngn/gateways": "{}",
    "dngn/traps": "{} trap",
    "dngn/wall": "{} wall",
    "item/amulet": "{} amulet",
    "item/armour": "{}",
    "item/armour/shields": "{}",
    "item/book": "{} book",
    "item/food": "{}",
    "item/gold": "gold coins",
    "item/misc": "{}",
    "item/potion": "{} potion",
    "item/ring": "{} ring",
    "item/rod": "{}",
    "item/scroll": "{}",
    "item/staff": "{}",
    "item/wand": "{} wand",
    "item/weapon": "{}",
    "mon": "{}",
    "mon/demonspawn": "{} demonspawn",
    "player/felids": "{}",
    "UNUSED/armour": "{}",
    "UNUSED/features": "{}",
    "UNUSED/food": "{}",
    "UNUSED/monsters": "{}",
    "UNUSED/weapons": "{}",
}
NOT_USED = {
    "UNUSED": MENU,
    "UNUSED/worn": "a layer of the paper doll",
    "effect": "a part of a moving effect",
    "gui": MENU,
    "misc": MARK,
    "player": "a layer of the paper doll",
    "player/transform": "a form of the player's, named for the spell",
    "item/amulet/artefact": BY_NAME,
    "item/armour/artefact": BY_NAME,
    "item/armour/brands": MARK,
    "item/food/chunk_brands": MARK,
    "item/misc/runes": BY_NAME,
    "item/ring/artefact": BY_NAME,
    "item/weapon/artefact": BY_NAME,
    "item/weapon/brands": MARK,
    "mon/draco": PIECE,
    "mon/panlord": PIECE,
    "mon/tentacles": PIECE,
    "mon/unique": BY_NAME,
}
WHOLE = {
    "boots1_brown": "brown boots",
    "boots2_jackboots": "jackboots",
    "boots3_stripe": "striped boots",
    "boots4_green": "green boots",
    "cap_jester": "jester cap",
    "cloak1_leather": "leather cloak",
    "buckler_spriggan": "spriggan buckler",
    "book_of_the_dead": "book of the dead",
    "generic": "altar",
    "grass0-dirt-mix": "grass and dirt floor",
    "killer_klown_blue": "blue clown",
    "killer_klown_green": "green clown",
    "killer_klown_purple": "purple clown",
    "killer_klown_red": "red clown",
    "killer_klown_yellow": "yellow clown",
    "manual1": "manual",
    "manual2": "manual",
    "passage_of_golubria": "passage of golubria",
    "pressure_plate": "pressure plate",
    "spectral_lbl": "spectral long blade",
    "spectral_sbl": "spectral short blade",
    "staff_mummy": "mummy's staff",
    "teleport_permanent": "permanent teleport trap",
    "water_nymph": "water nymph",
}
UNTOLD = {
    "asmodeus.small": BY_NAME,
    "cerebov": BY_NAME,
    "dispater.small": BY_NAME,
    "ereshkigal.small": BY_NAME,
    "gloorx_vloq": BY_NAME,
    "lom_lobon": BY_NAME,
    "machine_tukima": BY_NAME,
    "michael": BY_NAME,
    "mnoleg": BY_NAME,
    "missing_ghost": NO_WORDS,
    "test_spawner": NO_WORDS,
    "unseen": NO_WORDS,
    "statue_bases": PIECE,
    "altar_base": PIECE,
    "statue_base": PIECE,
    "light_vine_statue_base": PIECE,
    "dark_vine_statue_base": PIECE,
}
BEFORE = frozenset(
    "baby blessed closed demonic dire dry freed inert large legendary metal open rare rotten runed sealed "
    "small".split()
)
LAST = frozenset("statue skeleton zombie simulacrum".split())
CALLED = {
    "art": "",
    "chunk": "chunk of meat",
    "ego": "",
    "eyeclosed": "with closed eye",
    "eyeopen": "with open eye",
    "flame": "",
    "full": "",
    "gem": "",
    "lshield": "large shield",
    "misc": "",
    "mottle": "mottled",
    "penta": "pentagram",
    "rect": "rectangular",
    "vgate": "gate",
}
ODD = frozenset("dd dk scion donald louise tso gone used return transit flickering n".split())


def name_of(path: str) -> tuple[str | None, str]:
    """(name, "") of a tile, or (None, why its name does not tell).

    path  relative to the release, as "item/potion/ruby.png"
    """
    folder, _, file = path.rpartition("/")
    stem = file.removesuffix(".png")
    place = folder
    while place and place not in FORM and place not in NOT_USED:
        place = place.rpartition("/")[0]
    if place in NOT_USED or not place:
        return None, NOT_USED.get(place, NO_WORDS)
    if stem in UNTOLD:
        return None, UNTOLD[stem]
    if stem.startswith("i-"):
        return None, MARK
    if stem in WHOLE:
        return WHOLE[stem], ""
    if is_piece(stem) or "gate" in stem.split("_"):
        return None, PIECE
    form, parts = FORM[place], tokens(stem)
    if place.startswith("mon") and parts[1:] and parts[-1] == "water":
        parts[-1] = "in water"
    if any(part in ODD for part in parts):
        return None, NO_WORDS
    return _in_form(form, parts)


def _in_form(form: str, parts: list[str]) -> tuple[str | None, str]:
    if parts[:1] == ["enter"]:
        parts = ["entrance", "to", *parts[1:]]
    called = [CALLED.get(part, part) for part in parts]
    colours = [COLOURS[part] for part in called if part in COLOURS]
    before = [part for part in called if part in BEFORE]
    last = [part for part in called if part in LAST]
    rest = [part for part in called if part and part not in COLOURS and part not in BEFORE | LAST]
    words = " ".join([*before, *colours, *rest, *last])
    if not words and "{}" in form:
        return None, NO_WORDS
    noun = form.replace("{}", "").strip()
    if noun in words.split():  # `floor` of `marble_floor`
        return words, ""
    return " ".join(form.format(words).split()), ""
