"""Convert another library's SimCLR checkpoint, or a ResNet's, into one of ours."""

from simclr_mm.commands.convert import main

if __name__ == '__main__':
    main()
