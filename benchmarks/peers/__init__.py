"""What the benchmarks compare with: the same work, as other people would write it."""
