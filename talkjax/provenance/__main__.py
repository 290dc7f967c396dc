"""`python -m talkjax.provenance`."""

from talkjax.provenance.command import run

if __name__ == "__main__":
    run()
