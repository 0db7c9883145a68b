"""Weights that open_clip knows by a tag: where they lie, or where to get them.

Enters: the name of a model and a tag. Leaves: a local file. Caches are searched first, so that
weights that are there need no network. A host that does not answer is noticed before the download
is tried, because libraries of downloads try again for a minute.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import open_clip
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

SECONDS_TO_ANSWER = 5.0
_HUB_NAMES = (  # in the order in which open_clip looks for them
    'open_clip_model.safetensors',
    'open_clip_pytorch_model.safetensors',
    'open_clip_pytorch_model.bin',
)
_PLACED_SUFFIXES = ('.safetensors', '.bin', '.pt')


def find_tag(name: str, tag: str, allow_download: bool = False) -> Path:
    """Local file with the weights of an open_clip tag.

    Args:
        name: open_clip model.
        tag: one of its tags.
        allow_download: fetch what is missing, unless ``HF_HUB_OFFLINE`` is set; otherwise no
            connection is tried.

    Raises:
        ValueError: unknown tag.
        FileNotFoundError: in no local cache, and not fetched; says which file to put where.
    """
    config = tag_config(name, tag)
    searched = []
    for folder, path in _candidates(name, tag, config):
        if path is not None:
            return path
        searched.append(folder)

    # what is missing is fetched, if it may be
    source = source_url(config)
    if not allow_download:
        reason = 'and downloads are off'
    elif constants.HF_HUB_OFFLINE:
        reason = 'and HF_HUB_OFFLINE is set'
    elif not answers(source):
        reason = f'and {urlsplit(source).netloc} does not answer'
    else:
        return Path(open_clip.download_pretrained(config))

    suffix = Path(source).suffix or '.bin'
    raise FileNotFoundError(
        f'weights {tag!r} of {name} are not on this machine {reason}: fetch {source} elsewhere and '
        f'put it at {placed_path(name, tag, suffix)}, or pass its path as the weights '
        f'(looked in {", ".join(searched)})'
    )


def tag_config(name: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag.

    Raises:
        ValueError: nothing; names the tags that there are.
    """
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        tags = ', '.join(open_clip.list_pretrained_tags_by_model(name)) or 'none'
        raise ValueError(
            f'{tag!r} is neither a file nor weights of {name} that open_clip knows (tags: {tags})'
        )
    return config


def placed_path(name: str, tag: str, suffix: str = '.safetensors') -> Path:
    """Where a user may put a file of weights, beside the cache of those that have an address."""
    return Path.home() / '.cache' / 'clip' / f'{name}-{tag}{suffix}'


def source_url(config: Mapping[str, Any]) -> str:
    """The address that open_clip fetches a tag from.

    Example:
        >>> source_url(tag_config('ViT-B-16', 'laion2b_s34b_b88k')).partition('/laion/')[2]
        'CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/open_clip_model.safetensors'
    """
    if not config.get('hf_hub'):
        return config['url']
    repo, _, filename = config['hf_hub'].rpartition('/')
    return hf_hub_url(repo, filename or _HUB_NAMES[0])


def answers(url: str, seconds: float = SECONDS_TO_ANSWER) -> bool:
    """Whether the host of an address says anything at all; proxies of the environment are used."""
    request = urllib.request.Request(url, method='HEAD')
    try:
        with urllib.request.urlopen(request, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True  # it answered; what it lacks, the download says
    except (OSError, ValueError):
        return False


def _candidates(
    name: str, tag: str, config: Mapping[str, Any]
) -> Iterator[tuple[str, Path | None]]:
    """Where the weights of a tag would lie, each with the file found there."""
    placed = [placed_path(name, tag, suffix) for suffix in _PLACED_SUFFIXES]
    yield f'{placed[0].parent}', next((path for path in placed if path.is_file()), None)

    if config.get('hf_hub'):
        repo, _, filename = config['hf_hub'].rpartition('/')
        folder = str(Path(constants.HF_HUB_CACHE, f'models--{repo.replace("/", "--")}'))
        cached = (try_to_load_from_cache(repo, n) for n in ([filename] if filename else _HUB_NAMES))
        yield folder, next((Path(path) for path in cached if isinstance(path, str)), None)

    if config.get('url'):
        path = Path.home() / '.cache' / 'clip' / config['url'].rpartition('/')[2]
        yield str(path), path if path.is_file() else None
