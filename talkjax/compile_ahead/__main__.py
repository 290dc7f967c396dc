"""`python -m talkjax.compile_ahead`."""

from talkjax.compile_ahead.command import run

if __name__ == "__main__":
    run()
