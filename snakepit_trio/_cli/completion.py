"""`snakepit completion`: prints the script by which a shell completes the command."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import BashComplete, add_completion_class, split_arg_string

_PROGRAM: Final = "snakepit"
_VARIABLE: Final = "_SNAKEPIT_COMPLETE"
# bash takes a colon for the end of a word, so that an adapter would be three words. It gets what comes after the last
# colon alone.
_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local line="${COMP_LINE:0:COMP_POINT}" prefix="" response word type value
    word="${line##*[[:space:]]}"
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        prefix="${word%%"${word##*:}"}"
    fi
    response=$(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$prefix"}")
        fi
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that is not complete."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        if line[-1:].isspace():
            return words[1:], ""
        return words[1:-1], words[-1]


add_completion_class(_Bash, "bash")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, adapters and tools. bash must be 4.4 or later.

    Adapters and tools are read from the sources below the working directory; no code of them runs.

    \b
    Examples, for the start-up file of each shell:
      eval "$(snakepit completion bash)"       in ~/.bashrc
      eval "$(snakepit completion zsh)"        in ~/.zshrc, after compinit
      snakepit completion fish | source        in ~/.config/fish/config.fish
    """  # noqa: D301 - \b is click's mark of lines to keep
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    completes = made(context.find_root().command, {}, _PROGRAM, _VARIABLE)
    # Not `source()`, which starts bash to look at its version: the script may be for another machine.
    click.echo(completes.source_template % completes.source_vars())
