"""Pack a folder of images into shards: few large files instead of many small ones."""

from simclr_mm.commands.pack import main

if __name__ == '__main__':
    main()
