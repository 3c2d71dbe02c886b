"""Adapters: low-rank changes of a model's weights, in folders of their own."""
