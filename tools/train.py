from simclr_mm.commands.train import main

if __name__ == '__main__':
    main()
