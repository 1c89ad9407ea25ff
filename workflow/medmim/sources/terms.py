"""Who gives the six sources, on which terms, and how one comes by them. Facts, each with where it is stated."""

from dataclasses import dataclass

from medmim.tables.data_policy import DataPolicy


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Terms of one source."""

    name: str
    licence: str
    terms: str
    """Where the licence is stated."""
    model_terms: str
    """What it means for a model that was trained on the data."""
    is_verified: bool
    """Whether `model_terms` was written from the owner's own text, or is passed on from others."""
    access: str
    """open, account, or application: whom the owner gives it to."""
    credentialed: bool = False
    """Whether the owner's agreement forbids passing it on."""
    how_to_apply: str
    """What one does to get it, a sentence without its full stop."""
    published_bytes: int | None = None
    """What has to be fetched, as published; None where nobody says."""
    published: str
    """What is published of its size, and where."""


PROVIDERS = {
    "embed": Provider(
        name="EMBED, Emory",
        licence="EMBED Research Use Agreement",
        terms="https://github.com/Emory-HITI/EMBED_Open_Data/blob/main/EMBED_license.md",  # its points 4 and 5: not passed on
        model_terms="Non-commercial research only. Models or weights trained on any part of it may not be released publicly or"
        " commercialised without written permission of Emory University School of Medicine (its clause 5).",
        is_verified=True,
        access="application",
        credentialed=True,
        how_to_apply="Fill in the form at https://registry.opendata.aws/emory-breast-imaging-dataset-embed, then set up AWS "
        "credentials"
        " (aws configure, AWS_PROFILE or AWS_ACCESS_KEY_ID)",
        published="480,323 images (its README); bytes are not published",
    ),
    "lumiere": Provider(
        name="LUMIERE, Bern",
        licence="LUMIERE, non-commercial",
        terms="https://doi.org/10.6084/m9.figshare.c.5904905",
        model_terms="Stated in two ways: CC0 at figshare, non-commercial in the README beside it. Until the owner settles "
        "it, take it"
        " as non-commercial, with attribution.",
        is_verified=False,
        access="open",
        how_to_apply="Nothing to do",
        published_bytes=32_500_000_000,
        published="32.5 GB, the archive of images",
    ),
    "ms_cxr_t": Provider(
        name="MS-CXR-T and MIMIC-CXR-JPG, PhysioNet",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        terms="https://physionet.org/content/mimic-cxr-jpg/view-license/2.1.0/",
        model_terms="For credentialed users who signed the agreement. PhysioNet has guidelines for models derived from "
        "MIMIC (its news"
        " of 2024-04-24): read them before such a model is given to anyone.",
        is_verified=False,
        access="application",
        credentialed=True,
        how_to_apply="Become a credentialed user of PhysioNet, sign the agreements of ms-cxr-t 1.0.0 and mimic-cxr-jpg "
        "2.1.0, and put"
        " your login into ~/.netrc (machine physionet.org) or PHYSIONET_USERNAME and PHYSIONET_PASSWORD",
        published="1,326 labels of pairs of images; bytes are not published",
    ),
    "pmc": Provider(
        name="LLaVA-Med and PubMed Central",
        licence="CC BY-NC 4.0",
        terms="https://github.com/microsoft/LLaVA-Med (data), and each paper's own (figures)",
        model_terms="For research only, and not for clinical care. Each figure keeps its article's own licence.",
        is_verified=True,
        access="open",
        how_to_apply="Nothing to do",
        published_bytes=69_000_000_000,
        published="about 69 GB for all 600K figures, as users report (LLaVA-Med issue 79); the 60K need less",
    ),
    "vqa_rad": Provider(
        name="VQA-RAD, OSF",
        licence="CC0 1.0",
        terms="https://osf.io/89kps/",
        model_terms="No condition.",
        is_verified=False,
        access="open",
        how_to_apply="Nothing to do",
        published="315 images",
    ),
    "odir": Provider(
        name="ODIR-5K, Kaggle",
        licence="ODIR-5K terms, as on Kaggle",
        terms="https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k",
        model_terms="No licence is named: ask the owner before anything made of it is passed on.",
        is_verified=False,
        access="account",
        how_to_apply="Create a token at https://www.kaggle.com/settings and save it as ~/.kaggle/kaggle.json, or set "
        "KAGGLE_USERNAME and"
        " KAGGLE_KEY",
        published="7,000 images; bytes are not published",
    ),
}

RELEASE_POLICY = DataPolicy(frozenset({"Med-MIM release, as its authors publish it"}))
"""Rules of the authors' published questions."""


def source_policy(source: str, credentialed: bool) -> DataPolicy:
    """Rules of a real source's files, of which the config says whether it is credentialed."""
    return DataPolicy(frozenset({PROVIDERS[source].licence}), frozenset({source} if credentialed else ()))
