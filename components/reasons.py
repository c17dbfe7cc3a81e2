"""`pixclip reasons [STEP]`: why a region, or an entry of an import, is dropped, and what it means.

pixclip reasons --markdown > docs/reasons.md
"""

import click

from data_contracts.reasons import BY_STEP, ContractReason, reasons_of

ANY_STEP = "any step"
HEAD = """# Why a region is dropped

Every dropped region stands in its step's quarantine with one of these reasons; what `import_coco`
and `make_hard_negatives` leave out stands in `_left_out.jsonl`. A `*` stands for what differs, such
as the status in `http_404`. `pixclip reasons STEP` prints a part of this table.

| step | reason | meaning |
|---|---|---|
"""


def rows(step: str | None = None) -> list[tuple[str, str, str]]:
    """Step, reason and meaning, of one step or of all."""
    steps = [step] if step else list(BY_STEP)
    own = [(name, reason) for name in steps for reason in reasons_of(name)]
    listed = [(name, reason) for name, reason in own if reason not in ContractReason]
    common = [(step or ANY_STEP, reason) for reason in ContractReason]
    return [(name, reason.value, reason.meaning) for name, reason in [*listed, *common]]


def markdown() -> str:
    """The whole table, as docs/reasons.md holds it."""
    lines = (f"| {step} | `{reason}` | {meaning} |\n" for step, reason, meaning in rows())
    return HEAD + "".join(lines)


@click.command()
@click.argument("step", type=click.Choice(list(BY_STEP)), required=False)
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print all of it for docs/reasons.md."
)
def reasons(step: str | None, as_markdown: bool) -> None:
    """Print why regions are dropped: every reason of a step, or of all, with its meaning."""
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("step", "reason", "meaning"):
        table.add_column(name, overflow="fold")
    for row in rows(step):
        table.add_row(*row)
    Console().print(table)
