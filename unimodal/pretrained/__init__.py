"""Pretrained language models in and out: a unified model of an LLM and a codec, and its text part back."""
