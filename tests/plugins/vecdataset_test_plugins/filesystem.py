"""`attic://name`: folders beneath the one that the environment variable ATTIC names."""

import os
from dataclasses import replace

from vecdataset.storage.local import LocalFileSystem


class AtticFileSystem(LocalFileSystem):
    name = "attic"
    schemes = ("attic", "loft")
    classes = ()

    def locate(self, url, filesystem, options):
        _, _, name = url.partition("://")
        place = super().locate(os.environ["ATTIC"], filesystem, options).child(name)
        return replace(place, filesystem=self.name, reason="a folder in the attic")
