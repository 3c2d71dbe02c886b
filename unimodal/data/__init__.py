"""Rows, documents, pictures and mixtures: everything before a tokenizer.  Knows no model."""
