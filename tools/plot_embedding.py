from simclr_mm.commands.plot_embedding import main

if __name__ == '__main__':
    main()
