from simclr_mm.commands.demo import main

if __name__ == '__main__':
    main()
