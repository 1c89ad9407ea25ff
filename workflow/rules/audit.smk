"""Check what a run left behind against its provenance."""


rule audit:
    """Hash every artifact and raw file again, follow every link and compare the code. It has no input and builds nothing."""
    log:
        f"{R}/logs/audit.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(expected=[f"{R}/leaderboard.parquet", f"{R}/report.html", f"{R}/tables/leaderboard.md"]),
        code=code_sha256("audit.py"),
        results=R,
        cache=lambda w: ["--cache", CACHE] if CACHE else [],
    shell:
        program("audit.py", is_shown=True) + "--results {params.results} {params.cache} --json {params.results}/audit.json"
