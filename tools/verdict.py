from simclr_mm.commands.verdict import main

if __name__ == '__main__':
    main()
