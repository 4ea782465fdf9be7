"""Compare a pretrained encoder with the untrained one and with raw pixels."""

from simclr_mm.commands.evaluate import main

if __name__ == '__main__':
    main()
