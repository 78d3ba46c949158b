"""``hydracore static-file hash``: the line of a person for the file."""

import sys

import click
from email_validator import EmailNotValidError, validate_email

from hydracore.plugin import Context

_LONGEST = 128


def static_file(context: Context) -> click.Group:
    """The command group."""

    async def show(email: str, password: str) -> None:
        click.echo(f"{email}:{await context.hash_password(password)}")

    params: list[click.Parameter] = [
        click.Argument(["email"], callback=_email),
        click.Option(
            ["--password-stdin", "password"],
            is_flag=True,
            callback=_password,
            help="Read the password from standard input.",
        ),
    ]
    words = "Ask for a password and print the person's line for the file."
    command = click.Command("hash", callback=show, params=params, help=words)
    return click.Group("static-file", help="The people of plugins.authenticator_static_file.file.", commands=[command])


def _email(context: click.Context, argument: click.Parameter, text: str) -> str:
    try:
        email = validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError as error:
        raise click.BadParameter(str(error), context, argument) from None
    if email.startswith("#"):
        raise click.BadParameter("a line that begins with # is a comment in the file.", context, argument)
    return email


def _password(context: click.Context, option: click.Parameter, from_stdin: bool) -> str:
    # Here, before anything is open: who types holds up nothing.
    if context.resilient_parsing:
        return ""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        password.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("the password is not valid UTF-8.", context, option) from None
    if not 1 <= len(password) <= _LONGEST:
        raise click.BadParameter(f"a password has 1 to {_LONGEST} characters.", context, option)
    return password
