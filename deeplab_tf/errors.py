"""The one exception for what a user can put right."""


class UserError(ValueError):
    """A mistake in the user's input: a file, a flag, an argument.

    The message is one line that names the thing at fault, what was found, what was expected, and what to do. Command
    lines print it without a stack trace and exit with status 1.
    """
