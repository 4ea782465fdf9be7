from simclr_mm.commands.report.command import main

if __name__ == '__main__':
    main()
