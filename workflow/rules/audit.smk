"""Check what a run left behind against its provenance."""


rule audit:
    """Hash every artifact and raw file again and follow every link between them. It has no input and builds nothing."""
    log:
        f"{R}/logs/audit.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(expected=[f"{R}/leaderboard.parquet", f"{R}/report.html"]),
        code=digest("audit.py"),
        results=R,
    shell:
        program("audit.py") + "--results {params.results} --json {params.results}/audit.json"
