"""What Snakemake says before it reads a Snakefile.

Imports nothing but the standard library: Snakemake's plugins, which come before all else, import it.
"""

import sys
from typing import Any

PROFILE_NOTICE = "for setting default command line arguments."


def patch_startup() -> None:
    """Patch what Snakemake's command line says, where one is running."""
    if cli := sys.modules.get("snakemake.cli"):
        vars(cli)["print"] = _print_unless_notice
    if settings := sys.modules.get("snakemake.settings.types"):
        _explain_missing_configs(settings)


def _print_unless_notice(*values: object, **options: Any) -> None:
    """Print, but not the line that names the profiles, with which every run and every answer of a program would begin."""
    if not str(values[0] if values else "").endswith(PROFILE_NOTICE):
        print(*values, **options)


def _explain_missing_configs(settings: Any) -> None:
    """Say in a line that a config file is not there, as where a target follows --configfile, which takes all words for files."""
    from snakemake.exceptions import CliException

    load = settings.load_configfile

    def load_or_explain(path: Any) -> Any:
        try:
            return load(path)
        except OSError as error:
            hint = "A target stands before the options: snakemake TARGET --configfile FILE"
            raise CliException(f"--configfile: {path}: {error.strerror}. {hint}") from None

    settings.load_configfile = load_or_explain
