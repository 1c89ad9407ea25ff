"""Tokenized samples and preprocessed pixels in a base model's own layout."""

if TINY:

    rule make_tokenizer:
        """Tokenizer and configuration of a tiny base model."""
        input:
            f"{R}/qa/train.parquet",
            *PRETRAIN,
        output:
            f"{R}/tokenizers/{{model}}/files.parquet",
        log:
            f"{R}/logs/make_tokenizer.{{model}}.log",
        wildcard_constraints:
            model="|".join(TINY),
        conda:
            "../../envs/gpu.yaml"
        params:
            cfg=lambda w: cfg(family=MODELS[w.model].family, tiny=MODELS[w.model].tiny.model_dump(include=SIZES)),
            code=lambda w: code_sha256("make_tokenizer.py", family_module(MODELS[w.model].family)),
        shell:
            program("make_tokenizer.py") + "--qa {input} --tokenizer {output}"


rule build_shards:
    """Samples and pixels of one part of the questions for one base model."""
    input:
        model=lambda w: layout_of(w.model),
        qa=f"{R}/qa/{{part}}.parquet",
        images=IMAGES,
    output:
        samples=f"{R}/shards/{{model}}/{{part}}.samples.parquet",
        pixels=f"{R}/shards/{{model}}/{{part}}.pixels.parquet",
        rejected=f"{R}/shards/{{model}}/{{part}}.rejected.parquet",
    log:
        f"{R}/logs/build_shards.{{model}}.{{part}}.log",
    conda:
        "../../envs/gpu.yaml"
    threads: lambda w: 1 if w.model in TINY else 16
    params:
        cfg=lambda w: cfg(
            family=MODELS[w.model].family,
            system=MODELS[w.model].system,
            max_length=longest(w.model),
            max_rejected=RUN.qa.max_rejected,
        ),
        code=lambda w: code_sha256("build_shards.py", family_module(MODELS[w.model].family)),
    shell:
        program("build_shards.py") + "--model {input.model} --qa {input.qa} --images {input.images}"
        " --samples {output.samples} --pixels {output.pixels} --rejected {output.rejected} --threads {threads}"
