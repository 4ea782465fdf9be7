from simclr_mm.commands.embed.command import main

if __name__ == '__main__':
    main()
