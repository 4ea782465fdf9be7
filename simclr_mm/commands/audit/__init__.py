"""Find duplicates, leaks and useless images before training."""
