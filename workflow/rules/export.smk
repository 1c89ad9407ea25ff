"""The benchmark for others' tools, lmms-eval, VLMEvalKit and Hugging Face; and the instruction set for the last."""

FORMATS = ["hf", "lmms-eval", "vlmevalkit"]
EXPORTED = {
    "run": RUN.run,
    "providers": {name: source_plugins.SOURCES[name].describe_terms() for name in SOURCES}
    | {name: external_set.describe_terms() for name, external_set in EXTERNAL.items()},
    "synthetic": PHANTOMS,
    "credentialed": RUN.credentialed_sources,
    "allowed": RUN.export.credentialed,
    "max_new_tokens": RUN.prediction.max_new_tokens,
}


rule export_benchmark:
    """The benchmark's questions and images in the layout of one tool."""
    input:
        qa=BENCHMARK,
        images=SHOWN,
        train=lambda w: f"{R}/qa/train.parquet" if w.format == "hf" else [],
    output:
        f"{R}/export/{{format}}/files.parquet",
    log:
        f"{R}/logs/export_benchmark.{{format}}.log",
    wildcard_constraints:
        format="|".join(FORMATS),
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(images=True, **EXPORTED),
        code=lambda w: code_sha256("export_questions.py", f"medmim.export.{w.format.replace('-', '_')}"),
    shell:
        program("export_questions.py") + "--format {wildcards.format} --qa {input.qa} --images {input.images}"
        " --against {input.train} --export {output}"


rule export_instructions:
    """The training questions as a dataset."""
    input:
        qa=f"{R}/qa/train.parquet",
        images=IMAGES,
        benchmark=BENCHMARK,
    output:
        f"{R}/export/instructions/files.parquet",
    log:
        f"{R}/logs/export_instructions.log",
    conda:
        "../../envs/data.yaml"
    params:
        cfg=cfg(images=RUN.export.images, **EXPORTED),
        code=code_sha256("export_questions.py", "medmim.export.hf"),
    shell:
        program("export_questions.py") + "--format hf --qa {input.qa} --images {input.images}"
        " --against {input.benchmark} --export {output}"


rule export:
    """All of them."""
    input:
        expand(f"{R}/export/{{format}}/files.parquet", format=FORMATS),
        f"{R}/export/instructions/files.parquet",
