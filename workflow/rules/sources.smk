"""The sources' files: drawn here, or indexed where the user keeps them."""

if PHANTOMS:

    rule make_phantoms:
        """Draw a synthetic cohort in the layout and formats of a source's owner."""
        output:
            f"{R}/raw/{{source}}/files.parquet",
        log:
            f"{R}/logs/make_phantoms.{{source}}.log",
        wildcard_constraints:
            source="|".join(PHANTOMS),
        conda:
            "../../envs/data.yaml"
        params:
            cfg=lambda w: cfg(patients=RUN.sources[w.source].patients, seed=RUN.seed),
            code=lambda w: digest("make_phantoms.py", f"medmim.phantoms.{w.source}"),
        shell:
            program("make_phantoms.py") + "--source {wildcards.source} --raw {output}"


if LOCAL:

    rule index_source:
        """List and hash the files of a source that the user has."""
        output:
            f"{R}/sources/{{source}}.parquet",
        log:
            f"{R}/logs/index_source.{{source}}.log",
        wildcard_constraints:
            source="|".join(LOCAL),
        conda:
            "../../envs/data.yaml"
        params:
            cfg=cfg(),
            code=digest("index_files.py"),
            root=lambda w: raw_root(w.source),
        shell:
            program("index_files.py") + "--root {params.root:q} --index {output}"
