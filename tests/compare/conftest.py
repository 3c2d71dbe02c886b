"""What tests of whole comparisons share."""

import pytest

from unimodal.evaluation import shapes, talk


@pytest.fixture
def brief(monkeypatch):
    """Answers and replies of a few tokens, since random models find no end."""
    monkeypatch.setattr(shapes, "ANSWER_TOKENS", 12)
    monkeypatch.setattr(talk, "REPLY_TOKENS", 12)
