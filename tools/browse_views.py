"""Draw images beside the views that pretraining makes of them, with what was drawn."""

from simclr_mm.commands.browse_views import main

if __name__ == '__main__':
    main()
