"""Results of many evaluations as a Markdown table and an HTML page.

Searches the folders at any depth for results of simclr-mm evaluate,
simclr-mm test, simclr-mm transfer, simclr-mm sweep and simclr-mm demo, and for the loss curve,
the last step and the last validation of every training run.
"""

from pathlib import Path

from simclr_mm.commands import command_line
from simclr_mm.commands.report.pages import collect, markdown, page
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_text


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folders to search')
    place = 'folder of report.md and report.html; default: the first WORK_DIR'
    parser.add_argument('--out', metavar='DIR', help=place)
    args = parser.parse_args(argv)

    found = collect(args.work_dirs)
    for problem in found.broken:
        print(f'left out: {problem}')
    table = markdown(found)
    if not table:
        raise UserError(
            f'there is no evaluation below {", ".join(args.work_dirs)} and no training run: '
            'simclr-mm train, simclr-mm test and simclr-mm evaluate write them'
        )
    print(table, end='')
    out = Path(args.out or args.work_dirs[0])
    for name, text in (('report.md', table), ('report.html', page(found))):
        write_text(out / name, text)
    print(
        f'{len(found.runs)} evaluations, {len(found.logs)} training logs: '
        f'{out / "report.md"}, {out / "report.html"}'
    )
