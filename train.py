"""Trains one stage of talkjax; see `talkjax/training/command.py` and `train.py --help`."""

from talkjax.training import command

if __name__ == "__main__":
    command.run()
