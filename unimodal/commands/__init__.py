"""The verbs of the command line that do not need a model."""
