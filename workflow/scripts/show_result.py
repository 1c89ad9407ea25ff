"""Say what a run shows: how far each tuned model is above its base, and where the report is.

Snakemake calls this by itself at the end of a run.
"""

import argparse
import sys
from pathlib import Path

from medmim.common.errors import TableError
from medmim.reporting.report.board import Leaderboard
from medmim.reporting.report.headlines import format_headlines
from medmim.tables import table_io


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of the run")
    args = parser.parse_args()
    try:
        board = Leaderboard(table_io.read_frame(args.results / "leaderboard.parquet", "leaderboard"))
    except (OSError, TableError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    for line in format_headlines(board):
        print(line)
    print(f"Leaderboard: {args.results / 'leaderboard.parquet'}\nReport: {args.results / 'report.html'}")


if __name__ == "__main__":
    main()
