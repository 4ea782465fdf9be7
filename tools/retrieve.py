from simclr_mm.commands.retrieve import main

if __name__ == '__main__':
    main()
