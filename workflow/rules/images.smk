"""One adapter a source: its images, its findings, and what could not be read."""


rule build_images:
    """Read a source in its owner's layout."""
    input:
        raw=lambda w: raw_index(w.source),
        missing=lambda w: missing(w.source),
        named=named_by_release(),
    output:
        **({"released": f"{R}/images/{{source}}.released.parquet"} if named_by_release() else {}),
        images=f"{R}/images/{{source}}.images.parquet",
        findings=f"{R}/images/{{source}}.findings.parquet",
        rejected=f"{R}/images/{{source}}.rejected.parquet",
        left_out=f"{R}/images/{{source}}.left_out.parquet",
    log:
        f"{R}/logs/build_images.{{source}}.log",
    conda:
        "../../envs/data.yaml"
    threads: lambda w: 1 if w.source in PHANTOMS else 16  # a full-size mammogram takes half a second; the result is the same
    params:
        cfg=lambda w: cfg(
            size=RUN.images.size,
            max_rejected=RUN.sources[w.source].max_rejected,
            limit=RUN.sources[w.source].limit,
            **({"patients_of": other} if (other := source_plugins.SOURCES[w.source].patients_of) else {}),
        ),
        code=lambda w: code_sha256("build_images.py", f"medmim.sources.{w.source}.adapter"),
        root=lambda w: raw_root(w.source),
        missing=lambda w: ["--missing", *missing(w.source)] if missing(w.source) else [],
        released=lambda w, output: ["--released", output.released] if named_by_release() else [],
    shell:
        program("build_images.py")
        + "--source {wildcards.source} --root {params.root} --raw {input.raw} {params.missing} --named {input.named} --threads {threads}"
        " --images {output.images} --findings {output.findings} --rejected {output.rejected} --left-out {output.left_out}"
        " {params.released}"
