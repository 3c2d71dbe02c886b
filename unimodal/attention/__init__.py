"""Attention: one door, four backends."""
