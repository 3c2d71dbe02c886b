"""The verbs of the command line, one file for those that go together."""
