"""What nsyskit's recipes share, to stand before nsys's own base class: ``class X(Adapter, Recipe)``.

Only nsys's Python knows that base class, so this one does not name it. Of the base it uses ``run``,
``get_argument_parser``, ``get_recipe_name``, ``add_output_file``, ``create_analysis_file`` and the parsed arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nsyskit.analysis.ranks import rank_names
from nsyskit.recipes.tables import input_files, joined, left_out, tables_of, write_tables


class Adapter:
    """A recipe that runs analyses of nsyskit on every trace and writes one Parquet file a table."""

    def run(self: Any, context: Any) -> None:
        super().run(context)  # type: ignore[misc]  # nsys's base class comes after this one
        given = self._parsed_args
        files = input_files(given.input)
        names = rank_names([Path(file) for file in files])
        told = context.map(tables_of, files, names, recipe=self.get_recipe_name(), window=given.window)
        tables = joined(context.wait(told))
        for note in left_out(tables):
            sys.stderr.write(f"nsyskit: {note['file']} is left out: {note['message']}\n")
        if set(tables) == {"trust"}:
            sys.exit("nsyskit: no trace holds what this recipe is about")
        write_tables(tables, lambda name: str(self.add_output_file(name, name.rsplit(".", 1)[-1])), csv=given.csv)
        # names without folders: the file lies beside results that people send around
        self._analysis_dict |= {"InputFiles": names, "Outputs": self._output_files}
        self.create_analysis_file()

    @classmethod
    def with_options(cls, parser: Any, *standard: Any) -> Any:
        """Standard options of nsys, the traces, and the window."""
        for option in standard:
            parser.add_recipe_argument(option)
        parser.add_recipe_argument(
            "--input", nargs="+", required=True, metavar="TRACE",
            help="Rep files, folders of them, SQLite exports or run folders of nsyskit",
        )  # fmt: skip
        parser.add_recipe_argument(
            "--window", metavar="all|gpu|steady|START:END", help="What to look at, as in nsyskit analyze"
        )
        return parser
