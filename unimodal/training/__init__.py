"""Training: one recipe, one loop, one checkpoint format for every kind of model."""
