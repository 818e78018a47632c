"""A plugin whose package is not installed."""

import a_package_that_is_not_there  # noqa: F401


class Rare:
    name = "rare"
    capabilities = frozenset()
