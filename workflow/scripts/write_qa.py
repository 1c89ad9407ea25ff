"""Have a language model write questions of one source: templates' ones in other words, and open ones from findings.

cfg: writer (the section qa.writer), seed, parts (sources that share the budget), credentialed (sources whose data may only go to
an endpoint that says so). Keys are read from the environment variables that the endpoints' key_env name, if any. Each reply is
checked by code; what is rejected, and why, and what each reply cost is listed in --writing. Questions for which nothing usable
came, or for which there was no budget, stay as the templates made them.
"""

import logging
from pathlib import Path

from medmim.provenance.job import Job, build_parser

log = logging.getLogger("medmim")


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source, a folder of medmim/sources")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table of the source (read)")
    arguments.add_argument("--findings", type=Path, required=True, help="findings table of the source (read)")
    arguments.add_argument("--replies", type=Path, required=True, help="folder that keeps every reply, for this and later runs")
    arguments.add_argument("--written", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--writing", type=Path, required=True, help="writing table: every reply and its cost (written)")
    with Job(arguments, inputs=["qa", "findings"], outputs=["written", "writing"], use_cache=False) as job:
        from medmim.config.question_writer import Writer
        from medmim.endpoints.client import require_allowed
        from medmim.endpoints.reply_store import ReplyStore
        from medmim.questions.rewriting.rewrite import write_questions
        from medmim.tables import table_io

        cfg, args = job.cfg, job.args
        writer = Writer(**cfg["writer"])
        rows = table_io.read_table(args.qa, "qa").to_pylist()
        findings = table_io.read_table(args.findings, "findings", ["finding_id", "name", "value"]).to_pylist()
        credentialed_sources = job.policy.credentialed | ({args.source} & {*cfg["credentialed"]})
        counts = {source: f"{len(rows)} questions and their findings" for source in sorted(credentialed_sources)}
        for name, author in (("generator", writer.generator), ("reviewer", writer.reviewer)):
            if author is not None:
                require_allowed(counts, author, f"qa.writer.{name}")
        with ReplyStore(args.replies) as replies:
            result = write_questions(rows, findings, writer=writer, seed=cfg["seed"], replies=replies, parts=cfg["parts"])
        table_io.write_table(job.out["written"], "qa", result.rows)
        table_io.write_table(job.out["writing"], "writing", result.replies)
        outcome_counts, budget = result.counts, result.budget
        if outcome_counts["unasked"]:
            log.warning(
                "the budget is spent: %d questions of %s were not written and stay as the templates made them. For more raise "
                "qa.writer.budget_tokens or budget_usd, of which each source has an equal part (%d tokens, %.2f USD), or write "
                "less, and start again: what was paid for is kept",
                outcome_counts["unasked"],
                args.source,
                budget.tokens,
                budget.usd,
            )
        job.extra_fields["writing"] = {
            **outcome_counts,
            "credentialed": sorted(credentialed_sources),
            "sent": result.sent,
            "tokens": budget.spent_tokens,
            "usd": round(budget.spent_usd, 6),
        }
        summary = ", ".join(f"{n} {outcome}" for outcome, n in outcome_counts.items())
        job.set_summary(f"{args.source}: {summary}; {budget.spent_tokens} tokens, {budget.spent_usd:.2f} USD")


if __name__ == "__main__":
    main()
