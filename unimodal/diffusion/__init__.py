"""Diffusion: processes, times, solvers, guidance, as functions."""
