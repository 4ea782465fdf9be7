"""Write the features of every image in a folder into a file."""

from simclr_mm.commands.embed import main

if __name__ == '__main__':
    main()
