"""The section `download` of the configuration: where downloaded sources come from, and how patiently."""

from typing import Annotated, Any

from pydantic import Field

from medmim.config.base import Positive, Section

Url = Annotated[str, Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*[^/@?#])?$")]
"""A server and a path on it, without a slash at the end; no login, no query."""

SERVERS: dict[str, tuple[str, ...]] = {
    "embed": ("embed",),
    "lumiere": ("figshare",),
    "ms_cxr_t": ("physionet",),
    "pmc": ("llava_med", "pmc", "pmc_cloud"),
    "vqa_rad": ("osf",),
    "odir": ("kaggle",),
}
"""Settings that each source's download reads, beside those of patience."""


class Bucket(Section):
    """A bucket of S3 or of a server that speaks its protocol."""

    name: str
    """The bucket."""
    prefix: str = ""
    """What stands before all keys, with its slash."""
    region: str
    """Its AWS region."""
    endpoint: Url | None = None
    """Another server than AWS."""


class Download(Section):
    """Where downloaded sources come from. A mirror may stand for each owner's server; credentials never stand here."""

    parallel: Positive = 4
    """Files of one source fetched at once."""
    retries: Positive = 8
    """Attempts at a file in a row that bring no byte before it is given up."""
    pause: Annotated[float, Field(ge=0)] = 1
    """Seconds before the second attempt; they double with each, up to a minute. A server that says how long to wait is obeyed."""
    embed: Bucket = Bucket(name="embed-dataset-open", region="us-west-2")
    """EMBED."""
    figshare: Url = "https://api.figshare.com/v2"
    """figshare's API, for LUMIERE."""
    physionet: Url = "https://physionet.org/files"
    """PhysioNet's files, for MS-CXR-T and MIMIC-CXR-JPG."""
    llava_med: Url = "https://hanoverprod.z21.web.core.windows.net/med_llava"
    """LLaVA-Med's instruction data and list of figures."""
    pmc: Url = "https://ftp.ncbi.nlm.nih.gov/pub/pmc"
    """What stands before the papers' archives, in place of what that list says."""
    pmc_cloud: Bucket | None = Bucket(name="pmc-oa-opendata", region="us-east-1")
    """PubMed Central's figures one by one, asked for what is in no archive: NCBI has announced to remove the archives in August
    2026. null asks nobody."""
    osf: Url = "https://api.osf.io/v2"
    """OSF's API, for VQA-RAD."""
    kaggle: Url = "https://www.kaggle.com/api/v1"
    """Kaggle's API, for ODIR-5K."""

    def select_settings(self, source: str) -> dict[str, Any]:
        """What one source's download reads of it."""
        return self.model_dump(mode="json", include={*SERVERS[source], "retries", "pause"})
