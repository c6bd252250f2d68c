"""What a push or a pull of files did, as a value and as a page."""

from __future__ import annotations

import os

from pydantic import BaseModel

from oci.bundle.pull import Pulled
from oci.bundle.push import Pushed
from oci.meter import Receipt
from oci.units import counted, show_size
from tasks.cost import Cost
from tasks.page import table


class PushReport(BaseModel):
    """`reference` is by digest, `tag` the name it has."""

    reference: str
    tag: str
    files: int
    folders: int
    size: int
    """Bytes of the files."""
    cost: Cost = Cost()

    @classmethod
    def of(cls, pushed: Pushed, receipt: Receipt) -> PushReport:
        folders = sum(entry.is_folder for entry in pushed.entries)
        return cls(
            reference=str(pushed.reference),
            tag=pushed.tag,
            files=len(pushed.entries) - folders,
            folders=folders,
            size=sum(entry.size for entry in pushed.entries),
            cost=Cost.of(receipt),
        )

    def __str__(self) -> str:
        """One line."""
        return f"pushed {self.reference} as {self.tag}: {counted(self.files, 'file')}, {show_size(self.size)}"

    def to_markdown(self) -> str:
        repository, _, digest = self.reference.partition("@")
        rows = (
            ("Reference", f"`{repository}:{self.tag}`"),
            ("Digest", f"`{digest}`"),
            ("Files", f"{self.files} in {self.folders} folders, {show_size(self.size)}"),
            *self.cost.rows(),
        )
        return "\n".join((f"## Pushed {repository}:{self.tag}", "", *table(("", ""), rows)))


class PulledBundle(BaseModel):
    """A nested bundle: where it was listed, pulled from and put."""

    image: str
    origin: str
    folder: str
    lock_updated: bool


class PullReport(BaseModel):
    """`image` is by digest. `cacheable`: pulling the same reference another day can't give anything else."""

    image: str
    folder: str
    images_lock: str = ""
    """Path of the bundle's lock; empty for a plain image."""
    lock_updated: bool = False
    """Whether that lock names the bundle's own repository now, which has all that it lists."""
    nested: list[PulledBundle] = []
    cacheable: bool = False
    cost: Cost = Cost()

    @classmethod
    def of(cls, pulled: Pulled, folder: str, receipt: Receipt) -> PullReport:
        return cls(
            image=pulled.image,
            folder=os.path.abspath(folder),
            images_lock=os.path.join(os.path.abspath(folder), pulled.lock_path) if pulled.lock_path else "",
            lock_updated=pulled.updated,
            nested=[
                PulledBundle(
                    image=one.image,
                    origin=one.origin,
                    folder=os.path.join(os.path.abspath(folder), one.folder),
                    lock_updated=one.updated,
                )
                for one in pulled.nested
            ],
            cacheable=pulled.cacheable,
            cost=Cost.of(receipt),
        )

    def __str__(self) -> str:
        """One line."""
        nested = f", {counted(len(self.nested), 'nested bundle')}" if self.nested else ""
        return f"pulled {self.image} into {self.folder}{nested}: {show_size(self.cost.bytes_read)}"

    def to_markdown(self) -> str:
        lock = "names where its images are now" if self.lock_updated else "kept as it is" if self.images_lock else ""
        rows = (
            ("Image", f"`{self.image}`"),
            ("Folder", f"`{self.folder}`"),
            *((("Lock", lock),) if lock else ()),
            *self.cost.rows(),
        )
        nested = (
            ("### Nested bundles", "", *table(("Folder", "Listed as", "Pulled from"), self._nested_rows()))
            if self.nested
            else ()
        )
        return "\n".join((f"## Pulled {self.image.partition('@')[0]}", "", *table(("", ""), rows), *nested))

    def _nested_rows(self) -> list[tuple[str, str, str]]:
        return [(os.path.relpath(one.folder, self.folder), one.origin, one.image) for one in self.nested]
