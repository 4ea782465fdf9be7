"""Draw how similar two views of one image are, beside views of different images."""

from simclr_mm.commands.plot_similarity import main

if __name__ == '__main__':
    main()
