"""A format without a purpose: its protocol is checked where formats are."""


class Lines:
    name = "lines"
    capabilities = frozenset({"read"})
