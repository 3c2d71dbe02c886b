"""The shapes world: coloured shapes on a grid of nine cells, with a language and an exact judge.

Pictures are drawn from scenes, sentences are written about scenes, and the oracle reads pictures back into
scenes, so every example has a truth that a program can check.
"""
