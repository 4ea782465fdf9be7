from simclr_mm.commands.publish.command import main

if __name__ == '__main__':
    main()
