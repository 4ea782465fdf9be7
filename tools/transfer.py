from simclr_mm.commands.transfer.command import main

if __name__ == '__main__':
    main()
