from simclr_mm.commands.sweep.command import main

if __name__ == '__main__':
    main()
