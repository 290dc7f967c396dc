"""The one exception that users are meant to see."""


class UserError(Exception):
    """Something the user can put right: one line that says what is wrong and what to do.

    Scripts catch it at their outermost level, print the line and exit with code 2
    (`run_main`); every other exception is a bug and keeps its traceback.
    """


def run_main(main, argv) -> int:
    """Runs `main(argv)`; a `UserError` becomes one line on stderr and exit code 2."""
    import sys

    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
