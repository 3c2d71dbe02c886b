"""Generation: the engine, text sampling, and the verbs of a loaded model."""
