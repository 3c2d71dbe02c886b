"""Real pictures with true names: emoji drawn from a font, captioned by Unicode.

Skin tone, gender and direction are variants of one picture, so they make edits whose right answer is known.

Licences.  The pictures that `make_emoji` writes are drawn from Noto Color Emoji (copyright Google; SIL Open
Font License 1.1, which leaves pictures made with a font free of its terms).  The names and groups are
Unicode's `emoji-test.txt` (copyright Unicode, Inc.; Unicode License v3).  Neither is part of this project:
both come from Debian's packages `fonts-noto-color-emoji` and `unicode-data`.
"""
