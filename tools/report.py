"""Results of many evaluations as a Markdown table and an HTML page."""

from simclr_mm.commands.report import main

if __name__ == '__main__':
    main()
