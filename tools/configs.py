from simclr_mm.commands.configs import main

if __name__ == '__main__':
    main()
