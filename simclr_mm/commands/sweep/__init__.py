"""The paper's studies: their cells, the runs, the processes that train them."""
