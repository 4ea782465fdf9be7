from simclr_mm.commands.convert.command import main

if __name__ == '__main__':
    main()
