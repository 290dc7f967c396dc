"""Uploading exported weights to the Hugging Face Hub, with a model card.

`huggingface_hub` does the work. Its own variables apply: HF_TOKEN, HF_HOME, HF_ENDPOINT.
"""

from __future__ import annotations

import re
from typing import Any

from talkjax import files, weights
from talkjax.errors import UserError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name
CARD = "README.md"
LIBRARY, PIPELINE = "talkjax", "video-to-video"
TAGS = ("talking-face", "lip-sync", "audio-driven", "jax", "flax")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def check(repository: str, license_id: str = "other") -> None:
    """Checks what can be checked before there is anything to upload.

    Args:
      repository: "owner/name".
      license_id: The Hub's identifier of a licence.

    Raises:
      UserError: One of them cannot be used, there is no token, or the extra `hub` is not installed.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"push={repository}: is not the id of a repository; give owner/name")
    if not _LICENSE.fullmatch(license_id):
        raise UserError(
            f"license={license_id}: is not a licence of the Hub; give an identifier such as "
            "cc-by-4.0, or other"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"uploading to {repository} needs huggingface_hub; run `pip install talkjax[hub]`"
        ) from None
    if not huggingface_hub.get_token():
        raise UserError(
            f"uploading to {repository} needs a token that may write; run `hf auth login`, or set "
            "HF_TOKEN"
        )


def push(
    folder: files.PathLike, repository: str, *, private: bool = True, license_id: str = "other"
) -> str:
    """Uploads exported weights.

    A repository that does not exist is created. A model card is written to the folder where it
    has none.

    Args:
      folder: Folder of `talkjax.export`, on this machine.
      repository: "owner/name".
      private: Whether a new repository is private; one that exists stays what it is.
      license_id: The Hub's identifier of the licence, for the card.

    Returns:
      The address of the commit.

    Raises:
      UserError: See `check`; or the Hub refuses, or cannot be reached.
    """
    check(repository, license_id)
    if files.is_remote(folder):
        raise UserError(f"{folder}: is in a bucket; export to a local folder to upload it")
    import huggingface_hub

    path = files.as_path(folder)
    if not (path / CARD).exists():
        config = files.read_json_object(path / weights.CONFIG_FILE, "export the weights again")
        files.write_text(path / CARD, card(repository, config, license_id))
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=path,
            allow_patterns=[weights.CONFIG_FILE, weights.PARAMS_FILE, CARD],
            commit_message="Weights exported by talkjax",
        )
    # The library passes on the errors of whichever HTTP client it uses, which share no base class.
    except Exception as error:
        raise UserError(
            f"cannot upload to {repository} on Hugging Face ({files.one_line(error)}); check its "
            f"owner, that the token may write, and the network; the weights are in {folder}"
        ) from error
    return commit.commit_url


def card(repository: str, config: dict[str, Any], license_id: str) -> str:
    """Returns the text of a model card: the Hub's header in YAML, and what every user must know.

    Args:
      repository: "owner/name".
      config: The exported configuration.
      license_id: The Hub's identifier of the licence.
    """
    header = [
        "---", f"license: {license_id}", f"library_name: {LIBRARY}", f"pipeline_tag: {PIPELINE}",
        "tags:", *(f"- {tag}" for tag in TAGS), "---",
    ]  # fmt: skip
    networks = config.get("networks") or {}
    trained = [
        f"| {name} | {record.get('stage', 'unknown')} | {record.get('steps', 'none')} |"
        for name, record in sorted(networks.items())
        if isinstance(record, dict)
    ]
    return "\n".join(header) + _BODY.format(
        name=repository.partition("/")[2],
        repository=repository,
        size=config.get("crop_size", "unknown"),
        networks="\n".join(trained),
    )


_BODY = """

# {name}

Weights of talkjax ([arXiv 2408.05416](https://arxiv.org/abs/2408.05416)), which turns a video or
photograph of a person and a speech track into a video of that person speaking that track. Faces are
cut out at {size} px.

```
pip install "talkjax[video,hub]"
talkjax-sample --checkpoint={repository} --video=person.mp4 --audio=speech.wav --out=out.mp4
```

| network | stage of training | steps |
|---|---|---|
{networks}

## Data and limits

Say here what the networks were trained on, under which licences, and where they fall short.

## Responsible use

Make people speak only with their consent, label the result as synthetic, and do not use it to
deceive.
"""
