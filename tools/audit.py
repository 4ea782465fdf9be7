from simclr_mm.commands.audit import main

if __name__ == '__main__':
    main()
