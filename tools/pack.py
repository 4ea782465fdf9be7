from simclr_mm.commands.pack import main

if __name__ == '__main__':
    main()
