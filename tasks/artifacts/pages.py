"""Markdown pages of the results of runs, for artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from oci.bundle.describe import DescribeReport
from oci.bundle.pull import PullReport
from oci.bundle.push import PushReport
from oci.errors import cause_and_step
from oci.meter import Receipt
from oci.mirror.results import MirrorReport
from oci.prune.plan import PruneRunReport
from oci.reference import ARCHIVE_PREFIX, parse_store
from oci.relocation.report import ImageTraffic, RelocationReport, VerificationReport, short_subject
from oci.units import counted, show_size
from tasks.artifacts.markdown import code, facts, in_forms, in_full, page, table, text
from tasks.artifacts.picture import bytes_picture, embedded, in_words

ROWS = 500
"""Rows of a table of a page; the value of the result has all of them."""

NOT_COMPLETE = "**Not complete; it has no name.** What is stored isn't sent again next time."
_FAILURES = 200


def costs(receipt: Receipt) -> dict[str, str]:
    """Rows that say what a run has cost."""
    again = f", {receipt.retries} of them again" if receipt.retries else ""
    rows = {
        "Sent": show_size(receipt.bytes_written) if receipt.bytes_written else "",
        "Read": show_size(receipt.bytes_read) if receipt.bytes_read else "",
        "Requests": f"{receipt.total_requests}{again}",
        "Time": f"{receipt.seconds:.1f} s",
    }
    for where, identity in sorted(receipt.identities.items(), reverse=True):
        side, _, registry = where.rpartition(" ")
        rows[f"Login at {registry}{f' ({side})' if side else ''}"] = text(identity)
    return rows | _ways(receipt.fallbacks)


def _ways(fallbacks: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What registries refused, and what was done instead."""
    return {f"Learned at {registry}": text("; ".join(texts)) for registry, texts in sorted(fallbacks.items())}


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table below a heading; nothing without rows."""
    return [f"### {title}", "", *table(header, rows)] if rows else []


def relocation_page(report: RelocationReport) -> str:
    failures = report.failures[:_FAILURES]
    left_out = len(report.failures) - len(failures)
    failed = ((code(short_subject(row.image or report.destination)), row.error, row.retryable) for row in failures)
    details = in_full(*(f"{row.image} {row.error}".strip() for row in failures))
    biggest = [(code(image.image), in_words(image), f"{image.seconds:.1f}") for image in report.biggest]
    requests = [
        (text(registry), text(kind), str(count))
        for registry, kinds in sorted(report.requests.items())
        for kind, count in sorted(kinds.items(), key=lambda item: -item[1])
    ]
    return page(
        f"{report.source} → {_place(report)}",
        [_relocation_verdict(report), ""],
        in_full(report.digest),
        failure_list(failed, f"and {left_out} more" if left_out else ""),
        _picture(report),
        facts("Source", f"{text(report.what)} {code(report.source)}".strip(), _relocation_rows(report)),
        _section("Biggest images", ("Image", "Bytes", "Seconds"), biggest),  # what the picture shows, in words
        _section(counted(report.total_requests, "request"), ("Registry", "Kind", "Requests"), requests),
        # References in full and errors as they are: no digest is broken over lines.
        ["### Details of the failures", "", *details] if details else [],
    )


def _place(report: RelocationReport) -> str:
    """Returns the destination as a person names it: an archive by its files or objects, also before it is planned."""
    named = ", ".join(report.archive) or report.destination
    return parse_store(named).short if named.startswith(ARCHIVE_PREFIX) else named


def _relocation_verdict(report: RelocationReport) -> str:
    archive = report.archive_facts
    if report.succeeded:
        if archive is not None:
            return "Nothing to do: this very archive was there." if archive.unchanged else "Complete."
        moved = report.images_copied or report.tags
        return "Complete." if moved else "Nothing to do: everything was in place."
    if archive is not None:
        return "**It has its name, but verifying found what is wrong.**" if report.published else NOT_COMPLETE
    if report.problems:
        return f"**Verifying found {counted(report.problems, 'problem')}; no name was moved.**"
    return f"**{len(report.failures)} failed; no name was moved.** What arrived is not sent again next time."


def _relocation_rows(report: RelocationReport) -> dict[str, str]:
    archive, retries = report.archive_facts, report.retries
    titles = ("Copied", "Mounted", "Skipped")
    if archive is not None:
        titles = ("Sent", "Copied in the store", "Kept from an earlier run")
    traffic = {}
    for title, kind in zip(titles, ("written", "mounted", "skipped"), strict=True):
        size, blobs = getattr(report.bytes, kind), getattr(report.blobs, kind)
        if size or blobs or kind == "written":
            in_blobs = f" in {counted(blobs, 'blob')}" if blobs or kind == "written" else ""
            traffic[title] = f"{show_size(size)}{in_blobs}"
    rows = {
        "Destination": code(_place(report)),
        "Tags moved": _tags(report.tags),
        "Images": f"{report.images_copied} copied, {report.images_present} already there",
        **traffic,
        "Verified": f"{counted(report.verified_manifests, 'manifest')}, {counted(report.verified_blobs, 'blob')}, "
        f"{show_size(report.bytes_hashed)} hashed again"
        if report.verified_manifests
        else "",
        "Time": f"{report.seconds:.1f} s",
        "Helpers": text(report.fleet),
        "Retries": f"{retries}, {report.throttled_seconds:.1f} s told to wait" if retries else "none",
    }
    if archive is not None and archive.size:
        counts = {"image": archive.images, "blob": archive.blobs, "part": archive.parts}
        parts = ", ".join(counted(count, word) for word, count in counts.items())
        rows["Archive"] = f"{show_size(archive.size)}, {parts}"
        rows["Left out"] = f"{show_size(archive.left_out)} that the other side has" if archive.left_out else ""
    for where, identity in sorted(report.identities.items(), reverse=True):
        side, _, registry = where.partition(" ")
        rows[f"Login at the {side}"] = f"{text(identity)}, {text(registry)}"
    return rows | _ways(report.fallbacks)


def _tags(tags: Sequence[str], most: int = 100) -> str:
    """Returns the names that people use; those of attachments are only counted."""
    named = list(dict.fromkeys(code(tag) for tag in tags if not tag.startswith("sha256-")))
    attached = len([tag for tag in tags if tag.startswith("sha256-")])
    shown = [", ".join(named[:most])] if named else []
    if len(named) > most:
        shown.append(f"and {len(named) - most} more")
    return ", ".join([*shown, f"{attached} of attached artifacts"] if attached else shown)


def step_of(error: str, *, retryable: bool) -> str:
    """Says what to do next about a failure, in plain text."""
    step = in_forms(cause_and_step(error)[1]) or ("" if retryable else "mend the cause, then run it again")
    return "; ".join(filter(None, (step, "trying again may help" if retryable and "again" not in step else "")))


def failure_list(failures: Iterable[tuple[str, str, bool]], more: str = "") -> list[str]:
    """Lists subject (Markdown), error and whether trying again may help. The older UI doesn't wrap tables."""
    lines = []
    for subject, error, retryable in failures:
        cause, step = cause_and_step(error)[0].removesuffix("."), step_of(error, retryable=retryable)
        lines.append(f"- {subject}: {text(cause)}. **Next step:** {text(step)}")
    return ["### Failed", "", *lines, *([f"- {more}"] if more else []), ""] if lines or more else []


def _picture(report: RelocationReport) -> list[str]:
    """Nothing where no byte was moved, or should have been."""
    moved = report.bytes
    total = ImageTraffic(
        image="", written=moved.written, mounted=moved.mounted, skipped=moved.skipped, failed=report.bytes_failed
    )
    if not total.total:
        return []
    failed = sum(image.failed > 0 for image in report.biggest)
    more = report.images_copied + max(failed, len(report.failures)) - len(report.biggest)
    return [embedded(bytes_picture(total, report.biggest, max(0, more)), f"Bytes by outcome: {in_words(total)}"), ""]


def push_page(report: PushReport) -> str:
    repository, _, digest = report.reference.partition("@")
    rows = {
        "Digest": code(digest),
        "Files": f"{report.files} in {report.folders} folders, {show_size(report.size)}",
        **costs(report.receipt),
    }
    name = f"{repository}:{report.tag}"
    return page(f"Pushed {name}", facts("Reference", code(name), rows), in_full(report.reference))


def pull_page(report: PullReport) -> str:
    lock = "names where its images are now" if report.lock_updated else "kept as it is" if report.images_lock else ""
    rows = {"Folder": code(report.folder), "Lock": lock, **costs(report.receipt)}
    nested = [
        (code(os.path.relpath(bundle.folder, report.folder)), code(bundle.origin), code(bundle.image))
        for bundle in report.nested
    ]
    references = (reference for bundle in report.nested for reference in (bundle.origin, bundle.image))
    return page(
        f"Pulled {report.image.partition('@')[0]}",
        facts("Image", code(report.image), rows),
        in_full(report.image),
        _section("Nested bundles", ("Folder", "Listed as", "Pulled from"), nested),
        in_full(*dict.fromkeys(references)),
    )


def describe_page(report: DescribeReport) -> str:
    contents = report.contents[: 2 * ROWS]
    rows = (
        (
            "- " * content.depth + content.kind,
            text(content.error) or code(short_subject(content.image)),
            code(content.origin.partition("@")[0]),
            str(len(content.layers) or ""),
        )
        for content in contents
    )
    more = len(report.contents) - len(contents)
    return page(
        report.image.partition("@")[0],
        in_full(report.digest),
        table(("Type", "Image", "Origin", "Layers"), rows),
        [f"and {more} more", ""] if more > 0 else [],
        in_full(*dict.fromkeys(content.image for content in contents)),
    )


def verification_page(report: VerificationReport) -> str:
    places = (
        (
            code(place.place),
            ", ".join(map(code, place.names)) or "all tags",
            str(place.manifests),
            str(place.blobs),
            show_size(place.bytes_hashed),
            str(len(place.problems)),
        )
        for place in report.places
    )
    problems = report.problems
    lost = ((code(place.place), problem, False) for place in report.places for problem in place.problems)
    return page(
        f"Verified {counted(len(report.places), 'place')}",
        [f"**{'Complete' if report.complete else counted(len(problems), 'problem')}.**", ""],
        table(("Place", "Names", "Manifests", "Blobs", "Hashed", "Problems"), places),
        failure_list(islice(lost, ROWS)),
        in_full(*problems[:ROWS]),
    )


def mirror_page(report: MirrorReport) -> str:
    alarms = {
        "declared immutable, and moved at the source; not overwritten": report.mutated,
        "refused by the policy of signatures; not taken": report.unsigned,
    }
    lines = [f"**{len(tags)} {words}:** {_tags(tags, 20)}" for words, tags in alarms.items() if tags]
    lines += [f"**Given up:** {text(cause)}" for cause in report.causes]
    waiting = [f"{report.held} too young"] if report.held else []
    waiting += [f"{counted(report.waiting, 'image')} left to the next run"] if report.waiting else []
    mounted = report.receipt.bytes_mounted
    rows = {
        "Tags": f"{report.copied} copied, {report.in_place} in place, {report.extra} extra at the destinations",
        "Waiting": ", ".join(waiting),
        "Copied": _tags(report.tags, 20),
        "Mounted": show_size(mounted) if mounted else "",
        **costs(report.receipt),
    }
    return page(
        f"{report.mirror}: {report.source} → {', '.join(report.destinations)}",
        [_mirror_verdict(report), ""],
        (part for line in lines for part in (line, "")),
        _mirror_failures(report),
        facts("Mirror", text(report.mirror), rows),
    )


def _mirror_verdict(report: MirrorReport) -> str:
    if report.failed:
        return f"**{len(report.failed)} failed.** What arrived is in place and isn't sent again."
    if report.nothing_taken:
        return f"**Nothing is mirrored**: {text(report.nothing_taken)}."
    return f"{counted(report.copied, 'tag')} copied." if report.copied else "Nothing to copy: everything was in place."


def _mirror_failures(report: MirrorReport) -> list[str]:
    tried = [failed for failed in report.failed if not failed.not_tried]
    not_tried = len(report.failed) - len(tried)
    more = [f"and {len(tried) - _FAILURES} more"] if len(tried) > _FAILURES else []
    more += [f"{not_tried} not tried"] if not_tried else []
    rows = []
    for failed in tried[:_FAILURES]:
        names = ", ".join(code(name.rpartition("/")[2]) for name in failed.names) or text(report.mirror)
        where = f" → {text(failed.destination)}" if failed.destination else ""
        rows.append((names + where, failed.error, failed.retryable))
    return failure_list(rows, ", ".join(more))


def prune_page(report: PruneRunReport) -> str:
    rows = {
        "Manifests deleted": str(len(report.deleted)),
        "Tags deleted": str(len(report.tags_deleted)),
        "Gone already": str(report.gone or ""),
        "Within their grace period": str(report.waiting or ""),
        "Manifests kept": str(report.kept),
        "Freed, at most": show_size(report.bytes_freed),
        "Requests": str(report.requests or ""),
    }
    remaining = {
        "Failed": report.failed,
        "Left, because something has changed since the plan": report.skipped,
        "Tags that the registry can't take away alone": report.refused,
    }
    sections = (
        [
            *_section(title, ("What", "Why"), [(code(item.subject), text(item.reason)) for item in items[:ROWS]]),
            *in_full(*(item.subject for item in items[:ROWS])),
        ]
        for title, items in remaining.items()
    )
    return page(
        report.destination,
        [f"**{report.outcome.capitalize()}.**" + (f" {text(report.note)}" if report.note else ""), ""],
        facts("To delete", str(report.planned), rows),
        *sections,
    )
