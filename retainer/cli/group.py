"""The command itself: what `retainer` is without a further word."""

from __future__ import annotations

import rich_click as click

click.rich_click.TEXT_MARKUP = "ansi"
click.rich_click.MAX_WIDTH = 100


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="retainer")
@click.pass_context
def cli(context: click.Context) -> None:
    """Keep what 100ms records: which recordings, where, and for how long, as reviewed policies.

    A plan shows what they mean today; apply does exactly what the plan says, and never deletes on a
    guess.

    \b
    Examples:
      retainer demo                       all of it in a new folder, without a network or an account
      retainer init; retainer validate    a careful start
      retainer plan --out today.plan
      retainer apply today.plan --approve-deletes 12
    """
    help_alone(context)


def help_alone(context: click.Context) -> None:
    """Without a command the help is what was asked for, and 2 would mean that there is work."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
