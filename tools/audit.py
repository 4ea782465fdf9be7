from simclr_mm.commands.audit.command import main

if __name__ == '__main__':
    main()
