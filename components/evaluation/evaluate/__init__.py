"""Measure region retrieval on the benchmark, against the baselines."""
