"""Index kinds: one that keeps the protocol, one that does not."""

from vecdataset.indexes import Build


class ByHand:
    """An exact index, so to speak: one partition, read whole."""

    name = "by_hand"
    capabilities = frozenset({"ivf"})

    def refuses(self, vector):
        return "it is a multivector" if vector.multivector else None

    def build(self, vector, *, rows, params):
        return Build(kind="IVF_FLAT", options={"num_partitions": 1})

    def probe(self, *, k, selectivity, built, params):
        return {"nprobes": 1}


class HalfDone:
    name = "half_done"
    capabilities = frozenset()
