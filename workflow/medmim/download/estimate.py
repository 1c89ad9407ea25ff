"""What a source's download comes to, as far as its owner's server tells before it begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Bytes to fetch and bytes of disk they need while they come, None where nobody knows, and how that is known."""

    download_bytes: int | None
    disk_bytes: int | None
    basis: str
