"""Print the images of an embedded folder that are nearest to a query, and draw them."""

from simclr_mm.commands.retrieve import main

if __name__ == '__main__':
    main()
