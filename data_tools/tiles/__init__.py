"""Real art in small: tiles of the game Dungeon Crawl Stone Soup, named by file, with a paper doll in layers.

The doll's layers lie on each other exactly, so putting one on or taking one off is an edit whose right answer
is known to the pixel.

Licence.  The tiles are not part of this project: CC0 1.0, from `crawl/tiles`, whose ARTISTS.md names who drew
them and whose TILES_UNDER_UNKNOWN_LICENSE.md names tiles that nobody may pass on; those are never read.
"""
