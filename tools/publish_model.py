"""Make a file to publish out of a checkpoint: weights, config and preprocessing."""

from simclr_mm.commands.publish import main

if __name__ == '__main__':
    main()
