"""The decoder and the unified model around it."""
