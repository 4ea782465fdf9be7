from simclr_mm.commands.evaluate import main

if __name__ == '__main__':
    main()
