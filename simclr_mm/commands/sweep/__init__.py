"""The paper's studies: their cells, runs and processes."""
