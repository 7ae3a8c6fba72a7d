"""The ``airflow pacifica`` commands; imported at every call of ``airflow``, so it imports next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


def get_pacifica_cli_commands() -> list[CLICommand]:
    """Return the provider's commands."""
    from pacifica_provider.case.options import OPTIONS

    return [
        GroupCommand(
            name="pacifica",
            help="Withdrawals from Pacifica",
            subcommands=(
                ActionCommand(
                    name="case",
                    help="Show one task's withdrawal and take a person's decision on it",
                    func=lazy_load_command("pacifica_provider.case.command.run_and_exit"),
                    args=tuple(Arg((flag,), **settings) for flag, settings in OPTIONS),
                ),
            ),
        )
    ]
