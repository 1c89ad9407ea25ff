"""The section `download` of the configuration: where downloaded sources come from, and how patiently."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from medmim.config.base import Section
from medmim.config.source_plugins import SOURCES, Bucket, Url


class DownloadSettings(Section):
    """Where downloaded sources come from. A mirror may stand for each owner's server; credentials never stand here."""

    parallel: Annotated[int, Field(ge=1, le=256)] = 4
    """Files of one source fetched at once."""
    retries: Annotated[int, Field(ge=1, le=1000)] = 8
    """Attempts at a file in a row that bring no byte before it is given up."""
    pause: Annotated[float, Field(ge=0, le=3600)] = 1
    """Seconds before the second attempt; they double with each, up to a minute. A server that says how long to wait is obeyed."""

    if TYPE_CHECKING:

        def __getattr__(self, server: str) -> Any:
            """A server: its URL, or its Bucket."""

    def select_settings(self, source: str) -> dict[str, Any]:
        """What one source's download reads of it."""
        return self.model_dump(mode="json", include={*SOURCES[source].servers, "retries", "pause"})


def _server_fields() -> dict[str, Any]:
    """Fields of the section for the servers of all sources, as their source.yaml state them."""
    fields: dict[str, Any] = {}
    for source in SOURCES.values():
        for name, server in source.servers.items():
            kind: Any = Url if server.url else Bucket
            default = server.url or server.bucket
            fields[name] = (kind | None if server.is_optional else kind, Field(default, description=server.meaning))
    return fields


if TYPE_CHECKING:
    Download = DownloadSettings
else:
    Download = create_model("Download", __base__=DownloadSettings, __doc__=DownloadSettings.__doc__, **_server_fields())
