from simclr_mm.commands.pack.command import main

if __name__ == '__main__':
    main()
