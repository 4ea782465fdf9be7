from simclr_mm.commands.report import main

if __name__ == '__main__':
    main()
