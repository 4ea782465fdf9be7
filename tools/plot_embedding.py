"""Draw features as points in the plane, coloured by class: t-SNE, UMAP or PCA."""

from simclr_mm.commands.plot_embedding import main

if __name__ == '__main__':
    main()
