"""Qdrant's formats: snapshot archives in and out, and live servers.

`config.py` has Qdrant's collection config and what it declares in ours; `edge.py` is the only
place that imports the engine, `qdrant-edge-py`. Reading and writing stand in modules of their own,
which are imported when they are asked for.
"""

from __future__ import annotations
