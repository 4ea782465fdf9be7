from simclr_mm.commands.explore import main

if __name__ == '__main__':
    main()
