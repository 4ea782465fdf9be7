from simclr_mm.commands.plot_similarity import main

if __name__ == '__main__':
    main()
