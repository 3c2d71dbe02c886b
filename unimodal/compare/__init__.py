"""Entrants trained on equal terms, judged on the same prompts, told in one report: `unimodal compare`."""
