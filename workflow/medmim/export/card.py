"""What every export says of itself: what is in it, whose it is, and who may have it."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from medmim.export.benchmark import Benchmark, Row, group

TEMPLATE = Path(__file__).with_name("card.md.j2")
PHANTOMS = ("phantoms, synthetic", "Apache-2.0")
LICENCES = {
    "embed": ("EMBED Open Data, Emory", "data use agreement of its owner"),
    "lumiere": ("LUMIERE, figshare collection 5904905", "terms of its owner"),
    "ms_cxr_t": ("MS-CXR-T 1.0.0 and MIMIC-CXR-JPG, PhysioNet", "PhysioNet Credentialed Health Data License"),
    "pmc": ("PMC-15M subset of LLaVA-Med", "licence of each article in PubMed Central"),
    "vqa_rad": ("VQA-RAD, OSF", "CC0 1.0"),
    "odir": ("ODIR-5K, Kaggle", "terms of its owner"),
    "medframeqa": ("MedFrameQA, SuhaoYu1020/MedFrameQA", "CC BY 4.0"),
    "medxpertqa": ("MedXpertQA MM, TsinghuaC3I/MedXpertQA", "MIT"),
}
"""Source by name: what it is, and under which licence it comes."""


def licence(benchmark: Benchmark) -> dict[str, str]:
    """Licence of the whole, in the terms of a dataset card."""
    if {row["source"] for row in benchmark.rows} <= benchmark.synthetic:
        return {"license": "apache-2.0"}
    return {"license": "other", "license_name": "terms-of-each-source", "license_link": "README.md"}


def _patients(rows: list[Row]) -> int:
    return len({patient for row in rows for patient in row["patient_ids"]})


def text(benchmark: Benchmark, use: str) -> str:
    """Markdown; `use` says how this tool is called."""
    rows = benchmark.rows
    sources = sorted({row["source"] for row in rows})
    made = [name for name in sources if name in benchmark.synthetic]
    env = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    env.filters["count"] = "{:,}".format
    return env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=benchmark.run,
        questions=len(rows),
        images=len({i for row in rows for i in row["image_ids"]}),
        patients=_patients(rows),
        credentialed=[f"{count:,} of {LICENCES[name][0]}" for name, count in sorted(benchmark.credentialed.items())],
        synthetic="Everything here" if made == sources else "What is from " + ", ".join(made) if made else "",
        use=use.strip(),
        sets=[
            {
                "name": name,
                "part": group(name).replace("_", "-"),
                "closed": sum(row["kind"] == "closed" for row in of_set),
                "open": sum(row["kind"] == "open" for row in of_set),
                "patients": _patients(of_set),
            }
            for name, of_set in benchmark.sets.items()
        ],
        sources=[
            {
                "name": name,
                "questions": sum(row["source"] == name for row in rows),
                **dict(zip(("what", "licence"), PHANTOMS if name in benchmark.synthetic else LICENCES[name], strict=True)),
            }
            for name in sources
        ],
    )
