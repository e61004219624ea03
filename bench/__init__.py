"""Measure what is promised; each module is one recipe, and its results are in `bench/results`."""
