"""Benchmarks, each next to its ceiling in the same run: the ratios travel, the seconds do not."""
