"""Pretrain on scikit-learn's digits, evaluate, and draw a report. No download."""

from simclr_mm.commands.demo import main

if __name__ == '__main__':
    main()
