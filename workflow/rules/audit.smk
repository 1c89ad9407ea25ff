"""Check what a run left behind against its provenance."""


rule audit:
    log:
        f"{R}/logs/audit.log",
    conda:
        "../../envs/data.yaml"
    """Hash every artifact and raw file again and follow every link between them. Has no input: it builds nothing."""
    params:
        cfg=cfg(expected=[f"{R}/leaderboard.parquet", f"{R}/report.html"]),
        code=digest("audit.py"),
        results=R,
    shell:
        program("audit.py")
        + "--results {params.results} --json {params.results}/audit.json"
