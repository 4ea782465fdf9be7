from simclr_mm.commands.band_statistics.command import main

if __name__ == '__main__':
    main()
