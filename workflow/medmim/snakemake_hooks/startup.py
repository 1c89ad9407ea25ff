"""What Snakemake says before it reads a Snakefile.

Imports nothing but the standard library: Snakemake's plugins, which come before all else, import it.
"""

import sys
from pathlib import Path
from typing import Any

PROFILE_NOTICE = "for setting default command line arguments."


def patch_startup() -> None:
    """Patch what Snakemake's command line says, where one is running."""
    if cli := sys.modules.get("snakemake.cli"):
        vars(cli)["print"] = _print_unless_notice
    if settings := sys.modules.get("snakemake.settings.types"):
        _explain_config_faults(settings)


def _print_unless_notice(*values: object, **options: Any) -> None:
    """Print, but not the line that names the profiles, with which every run and every answer of a program would begin."""
    if not str(values[0] if values else "").endswith(PROFILE_NOTICE):
        print(*values, **options)


def _explain_config_faults(settings: Any) -> None:
    """Say in a line that a config file is not there, as where a target follows --configfile, or where it is no YAML in UTF-8."""
    from snakemake.exceptions import CliException, WorkflowError

    load = settings.load_configfile

    def load_or_explain(path: Any) -> Any:
        try:
            return load(path)
        except OSError as error:
            hint = "A target stands before the options: snakemake TARGET --configfile FILE"
            raise CliException(f"--configfile: {path}: {error.strerror}. {hint}") from None
        except (UnicodeDecodeError, WorkflowError):
            if fault := _find_yaml_fault(path):
                raise CliException(f"--configfile: {fault}") from None
            raise

    settings.load_configfile = load_or_explain


def _find_yaml_fault(path: Any) -> str | None:
    """FILE:LINE of what makes a file no YAML in UTF-8, and what it is; None where nothing does."""
    import yaml

    content = Path(path).read_bytes()
    try:
        yaml.safe_load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"{path}:{line}: not UTF-8, by {error.reason}: save it as UTF-8"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML: {getattr(error, 'problem', None) or error}"
    return None
