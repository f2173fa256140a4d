"""The directive `command-help`: shows what `fer-jax COMMAND --help` prints."""

import contextlib
import io
import os

from docutils import nodes
from docutils.parsers.rst import Directive

from fer_jax import cli


def help_text(command: str) -> str:
    """Returns the text that `fer-jax COMMAND --help` prints."""
    os.environ['COLUMNS'] = '100'
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        cli.main([command, '--help'])
    return output.getvalue()


class CommandHelp(Directive):
    """Inserts a section for every command of `fer-jax`, with its help."""

    def run(self) -> list[nodes.Node]:
        sections = []
        for name, command in cli.COMMANDS.items():
            section = nodes.section(ids=[name], names=[name])
            text = help_text(name)
            section += nodes.title(text=name)
            section += nodes.paragraph(text=f'{command.help[0].upper()}{command.help[1:]}.')
            section += nodes.literal_block(text, text, language='none')
            sections.append(section)
        return sections


def setup(app: object) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive('command-help', CommandHelp)  # type: ignore[attr-defined]
    return {'parallel_read_safe': True}
