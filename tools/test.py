"""Evaluate a checkpoint: top-1 and top-5 of a classifier, kNN of a pretrained model."""

from simclr_mm.commands.test import main

if __name__ == '__main__':
    main()
