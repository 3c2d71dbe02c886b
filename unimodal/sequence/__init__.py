"""Sequences: tokenizer, mask rule, layout, packing."""
