"""Repeat a study of the paper: one training a cell, then a table and a figure."""

from simclr_mm.commands.sweep import main

if __name__ == '__main__':
    main()
