"""Evaluates a checkpoint or the videos of another system; see talkjax/metrics/command.py."""

from talkjax.metrics import command

if __name__ == "__main__":
    command.run()
