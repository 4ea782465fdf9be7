from simclr_mm.commands.embed import main

if __name__ == '__main__':
    main()
