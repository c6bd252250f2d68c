"""Completion of references in a shell: repositories of a registry and tags of a repository, asked for on the spot.

A shell waits for the answer, so a registry has two seconds, and whatever goes wrong completes nothing. Logins are those
of files, environment and helpers; nothing is asked of the person.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

from click.shell_completion import CompletionItem

from oci.errors import Cancelled, CancelToken
from oci.reference import DOCKER_PREFIX, HUB, LAYOUT_PREFIX, Repository, parse_store

SECONDS = 2.0
_LIMIT = 500
"""Names that a shell is given."""


def references(incomplete: str) -> list[CompletionItem]:
    """Completes `HOST/REPOSITORY:TAG`, `oci:PATH:TAG`, and repositories after `HOST/`."""
    cancel = CancelToken()
    timer = threading.Timer(SECONDS, cancel.cancel)
    timer.daemon = True
    timer.start()
    try:
        return [CompletionItem(name) for name in islice(_names(incomplete, cancel), _LIMIT)]
    except (Exception, Cancelled):  # noqa: BLE001 - the line that a person writes is no place for an error
        return []
    finally:
        timer.cancel()


def _names(incomplete: str, cancel: CancelToken) -> Iterator[str]:
    text = incomplete.removeprefix(DOCKER_PREFIX)
    prefix = incomplete[: len(incomplete) - len(text)]
    place, colon, tag = text.rpartition(":")
    with_tag = bool(colon) and "/" not in tag and ("/" in place or place.startswith(LAYOUT_PREFIX))
    host, slash, path = text.partition("/")
    if not with_tag and (not slash or text.startswith(LAYOUT_PREFIX)):
        return
    from oci.bundle.tagnames import list_tags  # noqa: PLC0415 - a shell asks at each press of a key
    from oci.library import open_session  # noqa: PLC0415
    from oci.registry.options import RegistryOptions  # noqa: PLC0415

    quick = RegistryOptions(connect_timeout=SECONDS, header_timeout=SECONDS, retries=1)
    if with_tag:
        store = parse_store(place)
        with open_session(registry=quick, cancel=cancel, named={store.registry} - {""}) as session:
            listed = list_tags(session.source(store), internal=False)
        yield from (f"{prefix}{place}:{name.name}" for name in listed if name.name.startswith(tag))
    elif Repository.parse(f"{host}/any").registry != HUB:  # Docker Hub has no catalog
        with open_session(registry=quick, cancel=cancel, named={host}) as session:
            names = (name for name in session.repositories(host) if name.startswith(path))
            yield from (f"{prefix}{host}/{name}" for name in names)


BASH = """\
{function}() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" response kind value
    local word="${{line##* }}"
    local -a words
    read -ra words <<< "$line"
    local count=${{#words[@]}}
    [[ $word ]] && count=$((count - 1))
    response=$(env COMP_WORDS="$line" COMP_CWORD=$count {variable}=bash_complete $1 2> /dev/null)
    COMPREPLY=()
    while IFS=',' read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == */* && ${{value##*/}} != *:* ]] && compopt -o nospace
                [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && value="${{value#"${{word%"${{word##*:}}"}}"}}"
                COMPREPLY+=("$value") ;;
        esac
    done <<< "$response"
}}
complete -o nosort -F {function} {name}
"""
"""Unlike click's: bash parts words at colons, which references have. The line is read as it stands, and of each answer
the shell is given what follows the last colon that is written already."""
