from simclr_mm.commands.browse_views import main

if __name__ == '__main__':
    main()
