"""The sources' files: drawn here, indexed where the user keeps them, or fetched from their owners; and what that will take."""

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
            code=lambda w: code_sha256("make_phantoms.py", f"medmim.sources.{w.source}.phantom"),
        shell:
            program("make_phantoms.py") + "--source {wildcards.source} --raw {output}"


if LOCAL:

    rule index_source:
        """List and hash the files that are needed of a source that the user has."""
        input:
            named=named_by_release(),
        output:
            index=f"{R}/sources/{{source}}.parquet",
            watched=f"{R}/sources/{{source}}.watched.parquet",
        log:
            f"{R}/logs/index_source.{{source}}.log",
        wildcard_constraints:
            source="|".join(LOCAL),
        conda:
            "../../envs/data.yaml"
        threads: 16
        params:
            cfg=lambda w: cfg(
                limit=RUN.sources[w.source].limit,
                rules=terms.source_policy(w.source, w.source in RUN.credentialed_sources).to_record(),
            ),
            code=lambda w: code_sha256("index_source.py", f"medmim.sources.{w.source}.adapter"),
            root=lambda w: raw_root(w.source),
            hashes=lambda w: f"{R}/checkpoints/index_source.{w.source}.jsonl",
        shell:
            program("index_source.py") + "--source {wildcards.source} --root {params.root} --named {input.named}"
            " --hashes {params.hashes} --threads {threads} --index {output.index} --watched {output.watched}"


if DOWNLOADED:

    rule fetch_source:
        """Fetch a source from its owner's server, as far as it is not there, and list and hash the files that are needed."""
        input:
            named=named_by_release(),
        output:
            index=f"{R}/sources/{{source}}.parquet",
            watched=f"{R}/sources/{{source}}.watched.parquet",
            missing=f"{R}/sources/{{source}}.missing.parquet",
        log:
            f"{R}/logs/fetch_source.{{source}}.log",
        wildcard_constraints:
            source="|".join(DOWNLOADED),
        localrule: True  # a cluster's nodes mostly have no way out to the internet
        conda:
            "../../envs/data.yaml"
        params:
            cfg=lambda w: cfg(
                limit=RUN.sources[w.source].limit,
                max_missing=RUN.sources[w.source].max_missing,
                download=RUN.download.select_settings(w.source),
                rules=terms.source_policy(w.source, w.source in RUN.credentialed_sources).to_record(),
            ),
            code=lambda w: code_sha256(
                "fetch_source.py", f"medmim.sources.{w.source}.download", f"medmim.sources.{w.source}.adapter"
            ),
            root=lambda w: raw_root(w.source),
            parallel=RUN.download.parallel,
        shell:
            program("fetch_source.py") + "--source {wildcards.source} --root {params.root} --threads {params.parallel}"
            " --named {input.named} --index {output.index} --watched {output.watched} --missing {output.missing}"
