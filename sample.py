"""Makes the person of a template video or photograph say a speech track.

    uv run sample.py
    uv run sample.py --video=V --audio=A --out=O.mp4
    uv run sample.py --image=I --audio=A --out=O.mp4 --checkpoint=DIR

`uv run sample.py --help` lists all flags. The installed command `talkjax-sample` does the same.
"""

from talkjax.sampling import command

if __name__ == "__main__":
    command.run()
