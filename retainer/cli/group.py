"""The command itself: what `retainer` is without a further word."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from retainer.errors import WrongUsage
from retainer.tracing import begin
from retainer.voice import speak

click.rich_click.TEXT_MARKUP = "ansi"
click.rich_click.MAX_WIDTH = 100


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="retainer")
@click.option(
    "-C",
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work as if started in this folder.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress; results and errors alone.")
@click.option("-v", "--verbose", is_flag=True, help="Tell every single failure as it happens.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Of what goes on, on stderr: sentences, or a JSON object a line.",
)
@click.pass_context
def cli(
    context: click.Context, directory: Path | None, quiet: bool, verbose: bool, log_format: str
) -> None:
    """Keep what 100ms records: which recordings, where, and for how long, as reviewed policies.

    A plan shows what they mean today; apply does exactly what the plan says, and never deletes on a
    guess.

    \b
    Examples:
      retainer demo                       all of it in a new folder, without a network or an account
      retainer init; retainer validate    a careful start
      retainer plan --out today.plan
      retainer apply today.plan --approve-deletes 12

    Most options of a command can be given as RETAINER_COMMAND_OPTION too (RETAINER_PLAN_OUT); not
    what approves, lifts, shows names, or changes what is worked on.
    """
    if quiet and verbose:
        raise WrongUsage("-q and -v do not go together")
    speak(
        "quiet" if quiet else "verbose" if verbose else "normal",
        "json" if log_format == "json" else "text",
    )
    if directory is not None:
        os.chdir(directory)
    begin(context.invoked_subcommand or "help")
    help_alone(context)


NOT_FROM_THE_ENVIRONMENT = frozenset(
    {
        # what approves, lifts or costs something: a variable outlives what it was meant for
        *("--approve-deletes", "--lift", "--restore", "--run", "--reason", "--owner"),
        *("--end", "--until"),
        # what shows names, or changes unseen what is worked on
        *("--names", "--only", "--facts", "--as-of"),
    }
)


def take_from_environment(group: click.Group, prefix: str = "RETAINER") -> None:
    """Let every option of every command be given as RETAINER_COMMAND_OPTION too, by its long name,
    but for those that must be typed."""
    for name, command in group.commands.items():
        called = f"{prefix}_{name.upper().replace('-', '_')}"
        if isinstance(command, click.Group):
            take_from_environment(command, called)
        for option in command.params:
            long = next((each for each in option.opts if each.startswith("--")), None)
            if long and long not in NOT_FROM_THE_ENVIRONMENT and option.envvar is None:
                option.envvar = f"{called}_{long[2:].upper().replace('-', '_')}"


def help_alone(context: click.Context) -> None:
    """Without a command the help is what was asked for, and 2 would mean that there is work."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
