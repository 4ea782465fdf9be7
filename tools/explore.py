from simclr_mm.commands.explore.command import main

if __name__ == '__main__':
    main()
