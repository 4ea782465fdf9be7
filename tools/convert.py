from simclr_mm.commands.convert import main

if __name__ == '__main__':
    main()
