"""The table of commands."""

import pytest

from unlearn_nb.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name):
    command = main.get_command(None, name)
    assert command.name == name and command.help.startswith(COMMANDS[name][1].removesuffix("."))
