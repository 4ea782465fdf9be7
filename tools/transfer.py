from simclr_mm.commands.transfer import main

if __name__ == '__main__':
    main()
