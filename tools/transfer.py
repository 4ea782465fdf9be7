"""Transfer learning on every dataset that is on disk: linear, fine-tuned or both."""

from simclr_mm.commands.transfer import main

if __name__ == '__main__':
    main()
