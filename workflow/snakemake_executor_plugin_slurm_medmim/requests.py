"""What a job asks of SLURM: kept within the limits of its partition where it asks for more because it is tried again."""

from medmim.common.slurm_client import PartitionLimits


def clamp_request(command: list[str], limits: PartitionLimits) -> tuple[list[str], list[str]]:
    """Keep time and memory of an sbatch command within limits; the command, and what was changed, in words."""
    command, changes = list(command), []
    for option, limit, unit in (("-t", limits.minutes, "minutes"), ("--mem", limits.memory_mb, "MB of memory")):
        if limit is None or option not in command:
            continue
        place = command.index(option) + 1
        if command[place].isdecimal() and int(command[place]) > limit:
            changes.append(f"{limit} {unit} instead of {command[place]}")
            command[place] = str(limit)
    return command, changes
