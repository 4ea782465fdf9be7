from simclr_mm.commands.export.command import main

if __name__ == '__main__':
    main()
