"""The one exception that users are meant to see."""


class UserError(Exception):
    """Something the user can put right: one line that says what is wrong and what to do.

    Scripts catch it at their outermost level, print the line and exit with code 2
    (`commands.run_main`); every other exception is a bug and keeps its traceback.
    """
