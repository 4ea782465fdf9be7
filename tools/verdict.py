from simclr_mm.commands.verdict.command import main

if __name__ == '__main__':
    main()
