"""Judging: scores with intervals, suites, picture sheets, and speed."""
