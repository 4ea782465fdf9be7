from simclr_mm.commands.evaluate.command import main

if __name__ == '__main__':
    main()
